"""Explains a syntax error of YAML by what people really write: where its cause is, and how to remove it.

libyaml reports the place where it could not continue, which is often behind the cause.
"""

import contextlib
import itertools
import re
import unicodedata

import yaml

UNEXPANDED = re.compile(r"\$[A-Za-z_{(]|\{\{")
NOT_EXPANDED = (
    "variables and templates are not expanded here: write the value, or let the shell expand it in --set"
)
_CONFLICT = re.compile(r"(<{7}|>{7}|\|{7})( .*)?|={7}")
# Only with a bracket does a variable break the syntax.
_TEMPLATE = re.compile(r"\$[{(]|\{\{")
_BYTE_ORDER_MARK = "\ufeff"
_INDENTED_KEY = re.compile(r"\s+([A-Za-z_]+):(\s.*)?")
_NO_SPACE = re.compile(r"\s*([A-Za-z_]+):[^\s/].*")
_TOML = re.compile(r"[\w.-]+ *= *\S.*")
# What web pages, chats and input methods write in place of a space, or add without a trace. YAML takes it for text.
_ODD = "[\u00a0\u00ad\u1680\u180e\u2000-\u200f\u202f\u205f\u2060\u3000]"
# Where a line has its structure: before or behind a key or the dash of an item, and before a comment. Such a character
# inside a value may belong to the name of a folder.
_ODD_SPACE = re.compile(
    r"(?:[^\"'#]*\{(?:[^\"'#]*,)?)?[ \t]*(?:-[ \t]*)*"
    rf"(?:[\w.]+[ \t]*[:\uff1a][ \t]*|[\w.]+(?={_ODD}+[ \t]*[:\uff1a]))?(?P<sign>{_ODD})"
    rf"|(?:[^\"'#]|\"[^\"]*\"|'[^']*')*?(?P<comment>{_ODD})[ \t]*#"
)
_ODD_SIGN = re.compile(_ODD)
# To search: the time for a line grows with the square of its length.
_LONGEST_LINE, _MOST_LINES = 300, 100
# libyaml's parser is about 20 times faster than the one in Python, which is the fallback.
LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_GENERAL = "correct it, and put a value that contains `: ` or begins with a sign like [ { @ % * in quotes"


def cause_of(error: yaml.YAMLError, lines: list[str]) -> tuple[int, str]:
    """The index of the line with the cause, and what is wrong there with the remedy. lines: of the whole text."""
    for index, written in enumerate(lines):
        if _CONFLICT.fullmatch(written):
            return (
                index,
                f"has the conflict mark {written[:7]} of Git; merge the two versions, and remove the marks",
            )
        if index and written.startswith(_BYTE_ORDER_MARK):
            return index, (
                "begins with a byte-order mark (U+FEFF), as where two files were joined; remove the mark, and "
                "keep one of the two jobs"
            )
    line = _line_of(error, lines)
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    remedy = _structure(error, lines) or _remedy(lines[line] if line < len(lines) else "")
    return line, f"is not YAML ({problem}); {remedy}"


def first_odd_space(text: str) -> str:
    """The first line with another space or an invisible character around its key, and what is wrong; empty if none."""
    if not _ODD_SIGN.search(text):
        return ""
    lines = enumerate(_without_content(text).splitlines(), 1)
    odd = ((number, line) for number, line in lines if _ODD_SIGN.search(line))
    found = ((number, _odd_space(line)) for number, line in itertools.islice(odd, _MOST_LINES))
    return next((f"line {number} {problem}" for number, problem in found if problem), "")


def _without_content(text: str) -> str:
    """The text with `x` for each such sign in quotes or in a block (`|` or `>`), where it is content.

    Behind a syntax error the text stays as it is.
    """
    parts, done = [], 0
    with contextlib.suppress(yaml.YAMLError):
        for event in yaml.parse(text, Loader=LOADER):
            if not isinstance(event, yaml.ScalarEvent) or event.style not in ("|", ">", "'", '"'):
                continue
            assert event.start_mark is not None and event.end_mark is not None, event
            first, end = event.start_mark.index, event.end_mark.index
            if event.style in ("|", ">"):
                # Its first line is no content. Example: `|- # a comment`.
                first += len(text[first:end].partition("\n")[0])
            parts += [text[done:first], _ODD_SIGN.sub("x", text[first:end])]
            done = end
    return "".join([*parts, text[done:]])


def _odd_space(written: str) -> str:
    found = _ODD_SPACE.match(written[:_LONGEST_LINE])
    if found is None:
        return ""
    sign = found["sign"] or found["comment"]
    name = f"U+{ord(sign):04X} ({unicodedata.name(sign).lower()})"
    if not sign.isspace():
        return f"has the invisible character {name}; remove it"
    if written[: found.end()].isspace():
        return f"is indented with {name}; type spaces instead"
    return f"has {name} where YAML takes only a space; type a space instead"


def on_one_line(lines: list[str], first: int, last: int) -> str:
    """What to do about a text from line `first` to line `last`, both from 1, which probably means two keys."""
    if _TOML.fullmatch(lines[first - 1]):
        return "this is not YAML: write `key: value`, not `key = value`"
    if joined := _NO_SPACE.fullmatch(lines[first - 1]):
        return f"put a space after `{joined[1]}:`"
    key = _INDENTED_KEY.fullmatch(lines[last - 1])
    return f"put it on one line{f', and do not indent `{key[1]}:`' if key else ''}"


def _line_of(error: yaml.YAMLError, lines: list[str]) -> int:
    mark, begun = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    line = mark.line if mark else 0
    # The parser notices a missing bracket or colon later, often at the end of the file.
    if begun and (line >= len(lines) or "simple key" in getattr(error, "context", "")):
        line = begun.line
    return int(line)


def _structure(error: yaml.YAMLError, lines: list[str]) -> str:
    """What to do about a wrong indentation, or a quote that is not closed; empty if neither is the cause."""
    problem, mark = str(getattr(error, "problem", "")), getattr(error, "problem_mark", None)
    if "quoted scalar" in str(getattr(error, "context", "")) and "end of stream" in problem:
        return "close its quote"
    if "<document start>" in problem:
        begun = (index for index, line in enumerate(lines) if line.strip() and line.lstrip()[0] not in "#%")
        first = next(begun, 0)
        return (
            f"line {first + 1} is indented; begin all keys of a job without spaces"
            if lines[first][0] == " "
            else ""
        )
    if mark is None or mark.line >= len(lines):
        return ""
    written = lines[mark.line]
    spaces = len(written) - len(written.lstrip(" "))
    if "expected key" not in problem or not spaces or mark.column != spaces:
        return ""
    beside = "items" if written[spaces] == "-" else "keys"
    return f"it begins with {spaces} spaces; indent it like the {beside} beside it"


def _remedy(written: str) -> str:
    if any(sign in written for sign in "：，［］｛｝＃"):
        return "it has a full-width sign such as '：': type the ASCII one"
    if "\t" in written:
        return "indent with spaces, not with tabs"
    return NOT_EXPANDED if _TEMPLATE.search(written) else _GENERAL
