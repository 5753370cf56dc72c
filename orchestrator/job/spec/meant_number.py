"""How to write the number that a text probably means, such as '5', 010, 1:30, 30s or one with a typographic minus."""

import math
import re
import unicodedata

_OCTAL = re.compile(r"[-+]?0[0-9_]+")
_BASE_60 = re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?")
_WITH_UNIT = re.compile(r"([-+]?[0-9]+\.?[0-9]*) ?(%|[A-Za-z]+)")
_UNITS = {"_s": "seconds", "_gb": "GB", "_px": "pixels", "_pixels": "pixels", "_deg": "degrees"}
# Hyphens, dashes and the minus sign, which word processors and web pages put in the place of the ASCII minus.
_MINUS = dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-")


def meant_number(text: str, key: str) -> str:
    """How to write the text as a number; empty for texts that mean none. key: its last part can name a unit."""
    if _OCTAL.fullmatch(text):
        return "readers of YAML differ about a leading 0, which can mean octal: write it without"
    if _BASE_60.fullmatch(text):
        return "readers of YAML differ about colons, which can mean base 60: write one number"
    try:
        number = int(text, 0) if "x" in text.lower() or "b" in text.lower() else float(text)
    except ValueError:
        return _in_ascii(text) or _without_unit(text, key)
    return f"that is text here: write {number:.12g}" if math.isfinite(number) else ""


def _in_ascii(text: str) -> str:
    """Names the sign that looks like one of a number, and is another; empty if the text has none."""
    # NFKC replaces full-width signs.
    plain = unicodedata.normalize("NFKC", text).translate(_MINUS)
    try:
        float(plain)
    except ValueError:
        return ""
    other = next((sign for sign in text if not sign.isascii()), "")
    if not other:
        return ""
    name = unicodedata.name(other, "no name")
    return f"it has the sign U+{ord(other):04X} ({name}): write {plain}, in ASCII"


def _without_unit(text: str, key: str) -> str:
    found = _WITH_UNIT.fullmatch(text)
    if not found:
        return ""
    if found[2] == "%":
        return f"write a share: {float(found[1]) / 100:.12g}"
    unit = next((f" of {name}" for end, name in _UNITS.items() if key.endswith(end)), "")
    return f"write the number{unit} without a unit"
