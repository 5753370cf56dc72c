"""The process that owns a bed, encoded in the names of the bed's namespaces and directory.

A process id alone does not identify a process: the kernel reuses ids. The start time is part of
the name too, so a bed is stale as soon as the process that created it has ended.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

# Short: the paths of Ray's Unix sockets contain it, and must fit in 107 bytes.
_NAME = re.compile(r"sdn(?P<pid>\d+)t(?P<started>[0-9A-F]+)(?:[a-z]\d*)?")
# Fields of /proc/<pid>/stat after the name in parentheses, which may contain spaces itself.
_STATE, _START_TIME = 0, 19


@dataclass(frozen=True, slots=True)
class Owner:
    """A process. started: clock ticks between the start of the machine and that of the process."""

    pid: int
    started: int

    @classmethod
    def this_process(cls) -> "Owner":
        stat = _stat(os.getpid())
        assert stat is not None
        return cls(os.getpid(), int(stat[_START_TIME]))

    @property
    def prefix(self) -> str:
        """The prefix of every name of its bed; a letter and a number may follow."""
        return f"sdn{self.pid}t{self.started:X}"

    def is_gone(self) -> bool:
        """Whether the process has ended, even if its parent has not reaped it or its id is in use again."""
        stat = _stat(self.pid)
        return stat is None or stat[_STATE] in "ZX" or int(stat[_START_TIME]) != self.started


def is_stale(name: str) -> bool:
    """Whether this namespace or directory belongs to a bed whose owner is gone."""
    found = _NAME.fullmatch(name)
    return found is not None and Owner(int(found["pid"]), int(found["started"], 16)).is_gone()


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the state on; None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
