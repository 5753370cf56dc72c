"""Identifies processes. An id alone does not: the kernel reuses ids, and every host and container has its own."""

import os
from pathlib import Path


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since the host booted; None when there is no such process.

    Together with the id it identifies a process, because the kernel reuses ids. Everybody may read it, even for
    another user's process, and setting the clock does not change it.
    """
    stat = _stat(pid)
    return None if stat is None else int(stat[19])  # field 22 of `man proc`


def process_mark(pid: int) -> str:
    """Identifies one process among all that ever ran, by boot, process namespace, id and start time.

    Empty when there is no such process.
    """
    started = start_ticks(pid)
    return "" if started is None else f"{_where_ids_count()} {pid} {started}"


def is_alive(mark: str) -> bool | None:
    """Whether the process of a `process_mark` still runs; None when that cannot be seen from here.

    A process of another machine, boot or container has its own ids. A host may hide the processes of other users
    (the option `hidepid` of /proc).
    """
    where, _, process = mark.partition(" ")
    pid, _, started = process.partition(" ")
    if where != _where_ids_count() or not (pid.isascii() and pid.isdigit() and len(pid) < 10):
        return None
    stat = _stat(int(pid))
    if stat is None and _exists(int(pid)):
        return None
    # A killed process stays as a zombie until its parent waits for it.
    return stat is not None and stat[19] == started and stat[0] not in ("Z", "X")


def _stat(pid: int) -> list[str] | None:
    """The fields of `/proc/<pid>/stat` from the third on, the state; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()  # the name in brackets may hold spaces


def _exists(pid: int) -> bool:
    """Whether there is such a process, also one that /proc does not show."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _where_ids_count() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
