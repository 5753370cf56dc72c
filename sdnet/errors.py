"""Errors of the package: the input cannot be used, or training diverged."""

import json
import math

_LONGEST_VALUE = 60


def shown(value: object) -> str:
    """A value as a message shows it: as YAML spells it, on one line, shortened to 60 characters."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"inf": ".inf", "-inf": "-.inf"}.get(str(value), ".nan")
    text = json.dumps(value, ensure_ascii=False, default=str)
    # JSON leaves some characters that move the cursor of a terminal, and lone surrogates.
    text = text if text.isprintable() else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}... ({len(text)} characters)"


def one_line(text: str) -> str:
    """The text with line ends and other control characters as escapes.

    A file name may contain any of them.
    """
    return "".join(sign if sign.isprintable() else escaped(sign) for sign in text)


def escaped(sign: str) -> str:
    r"""A character as an escape. A byte that is no text, which Python reads as a lone surrogate, becomes `\xc3`."""
    if "\udc80" <= sign <= "\udcff":
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode("ascii")


class InputError(ValueError):
    """The user's input cannot be used: a file, a value or a folder.

    The message is one line that names the thing, its value and the remedy.
    A command line prints it without a traceback and exits with 2.
    Example: a test.npz that is truncated, a batch larger than the data.
    """


class NonFiniteLoss(ArithmeticError):
    """The total loss became NaN or infinite at `step`, counted from 0 over the whole run.

    Example: a learning rate far too high. A retry from an earlier checkpoint fails in the same way.
    """

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step

    def __str__(self) -> str:
        return f"the loss is not finite at step {self.step}; lower train.lr, or look at the data"


class NonFiniteWeights(NonFiniteLoss):
    """Weights or Adam's moments became NaN or infinite in the update after a finite loss."""

    def __str__(self) -> str:
        return f"the weights are not finite after step {self.step}; lower train.lr, or look at the data"
