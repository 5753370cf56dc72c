"""How much memory this process may use: the host's, or less when its container has a limit."""

from pathlib import Path

import psutil

# cgroup v1 writes a number near 2^63 where there is no limit.
_NO_LIMIT = 1 << 60


def memory_bytes(root: Path = Path("/")) -> int:
    """The host's memory, or the lowest limit of the control groups that this process is in.

    root: where /proc and /sys are.
    """
    return min([psutil.virtual_memory().total, *_limits(root)])


def _limits(root: Path) -> list[int]:
    """The limits of this process's groups and of all groups above them, of both cgroup versions."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            mount, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # A container often sees its own group as the mount's root, whatever the path says.
        here = mount / group.strip("/")
        for folder in (here, *here.parents[: len(here.relative_to(mount).parts)]):
            found += _limit_in(folder / name)
    return found


def _limit_in(path: Path) -> list[int]:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return []  # no such group here, or no controller for memory
    return [int(text)] if text.isdigit() and int(text) < _NO_LIMIT else []
