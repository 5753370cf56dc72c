"""Standard output and error that may disappear while a command runs."""

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, TextIO, cast

from sdnet.cli.command_line import ESCAPE


class _Stream(io.FileIO):
    """A file that drops what it cannot write. Examples: the disk is full, the reader of the pipe has ended."""

    lost: OSError | None = None

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        remaining = memoryview(data).cast("B")
        total = len(remaining)
        while remaining:
            try:
                written = super().write(remaining)
            except OSError as error:
                self.lost = self.lost or error
                break
            if written is None:  # a pipe that is full, and that somebody has made non-blocking
                select.select([], [self], [])
            remaining = remaining[written or 0 :]
        return total


@dataclass(slots=True)
class Streams:
    """The streams of this process while `standard_streams` lasts."""

    files: dict[str, _Stream] = field(default_factory=dict)

    def why_output_was_lost(self) -> str:
        """Why some of standard output was dropped; empty when nothing was, or when the reader closed the pipe.

        A reader that closes the pipe, as `head` does, has what it needs.
        """
        output = self.files.get("stdout")
        if output is not None:
            sys.stdout.flush()
        if output is None or output.lost is None or output.lost.errno == errno.EPIPE:
            return ""
        return os.strerror(output.lost.errno or errno.EIO)


@contextmanager
def standard_streams() -> Iterator[Streams]:
    """In this block, printing to standard output and error never fails.

    A run of days must not end because its terminal was closed or the disk of its log is full. Descriptors that
    were closed before the start become /dev/null. Otherwise a file of the run could get descriptor 1, and
    libraries would print into it. A stream that a test or a caller has replaced is not changed.
    """
    _open_missing_descriptors()
    streams = Streams()
    before = {"stdout": (sys.stdout, sys.__stdout__), "stderr": (sys.stderr, sys.__stderr__)}
    for descriptor, (name, (current, original)) in enumerate(before.items(), start=1):
        if current is original:
            streams.files[name] = _Stream(descriptor, "w", closefd=False)
            setattr(sys, name, _text(streams.files[name], current))
    try:
        yield streams
    finally:
        for name in streams.files:
            getattr(sys, name).flush()
            setattr(sys, name, before[name][0])


def _text(file: _Stream, like: TextIO | None) -> io.TextIOWrapper:
    """A text stream over `file`, with the encoding of the one that it replaces."""
    if like is not None:
        like.flush()
    # No BufferedWriter: if a signal interrupts it after the write, it writes the same bytes again.
    return io.TextIOWrapper(
        cast(BinaryIO, file),
        encoding=like.encoding if like is not None else "utf-8",
        errors=ESCAPE,  # a path may contain bytes that are not text
        line_buffering=file.isatty() or file.fileno() == 2,
        write_through=isinstance(like, io.TextIOWrapper) and like.write_through,
    )


def _open_missing_descriptors() -> None:
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
