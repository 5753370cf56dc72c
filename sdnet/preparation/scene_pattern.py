"""Finds the scene in the name of a pair by the user's regular expression, in bounded time."""

import re
import signal
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sdnet.errors import InputError, shown

# Processor time of this process, so that a busy host refuses no pattern. A usual name takes microseconds.
_MOST_CPU_S = 5.0


class ScenePattern:
    """`data.split.scene_pattern`: its one group is the scene, and it matches the whole name of each pair."""

    def __init__(self, text: str):
        self._text = shown(text)
        self._pattern = re.compile(unicodedata.normalize("NFC", text))

    def scene_of(self, name: str) -> str:
        """The scene of a pair. name: in Unicode's form NFC.

        Raises InputError when the pattern does not match, or when it takes too long, as `(a+)+` may.
        """
        try:
            with _limited(_MOST_CPU_S):
                match = self._pattern.fullmatch(name)
        except _TooSlow:
            raise InputError(
                f"data.split.scene_pattern {self._text} takes more than {_MOST_CPU_S:g} s for {name!r}, the name of "
                r"a pair; put no repeat inside a repeat, such as (a+)+, and use [^_]+ or \d+ instead of .+"
            ) from None
        if match is None or match[1] is None:
            raise InputError(
                f"data.split.scene_pattern {self._text} does not match {name!r}, the name of a pair; it must match "
                "the whole name of each"
            )
        return match[1]


class _TooSlow(Exception):
    """The block took longer than its limit."""


@contextmanager
def _limited(most_cpu_s: float) -> Iterator[None]:
    """Raise _TooSlow in this block after so much processor time. Only the main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, most_cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise _TooSlow
