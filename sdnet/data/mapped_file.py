"""A memory-mapped file, and the check that nobody has changed it in place."""

import hashlib
import os
import weakref
from pathlib import Path

import numpy as np

from sdnet.data.npz_member import Member
from sdnet.errors import InputError


class MappedFile:
    """An open file whose arrays are memory-mapped.

    Mapped pages show every change that is made to the file in place. A file that replaces it by rename is another
    file: the pages stay those of the old one. So the check looks at the open file, not at the path.
    """

    def __init__(self, path: Path):
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._seen = self._stamp()

    def map(self, member: Member) -> np.memmap:
        """Map an array in place."""
        with open(self._descriptor, "rb", closefd=False) as file:
            return np.memmap(file, member.dtype, "r", member.begin, member.shape)

    def refuse_changed(self, sha256: str | None) -> None:
        """Raise InputError if somebody changed the file in place since it was opened.

        sha256: of the file. With it, a file that was only touched is accepted. Takes microseconds while size and
        modification time stay. Raises OSError when storage fails.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise InputError(
                    f"{self._path} was changed while this run used it; put the same file back, and run this again: "
                    "training resumes from its last checkpoint"
                )
        self._seen = stamp

    def _stamp(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns
