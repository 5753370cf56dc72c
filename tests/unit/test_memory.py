"""The memory that a process may use is the lowest limit of its host and its control groups."""

from pathlib import Path

import psutil
import pytest

from orchestrator.job.memory import memory_bytes

GIB = 2**30
TOTAL = psutil.virtual_memory().total
V1, V2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"


def host(root: Path, groups: str, limits: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, **limits}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {f"{V2}/memory.max": f"{GIB}\n"}, GIB),
        ("0::/\n", {f"{V2}/memory.max": "max\n"}, TOTAL),
        ("0::/a/b\n", {f"{V2}/a/memory.max": f"{GIB}\n", f"{V2}/a/b/memory.max": "max\n"}, GIB),
        ("0::/a/b\n", {f"{V2}/a/memory.max": "max", f"{V2}/a/b/memory.max": f"{GIB // 2}\n"}, GIB // 2),
        ("0::/unseen\n", {f"{V2}/memory.max": f"{GIB}\n"}, GIB),
        ("4:cpu:/x\n7:memory:/docker/1\n0::/\n", {f"{V1}/memory.limit_in_bytes": f"{GIB}\n"}, GIB),
        ("7:memory:/d\n", {f"{V1}/d/memory.limit_in_bytes": "9223372036854771712\n"}, TOTAL),
        ("3:cpu,memory:/d\n", {f"{V1}/d/memory.limit_in_bytes": f"{GIB}\n"}, GIB),
        ("0::/\n", {}, TOTAL),
    ],
)
def test_the_lowest_limit_counts(tmp_path: Path, groups: str, limits: dict[str, str], expected: int) -> None:
    assert memory_bytes(host(tmp_path, groups, limits)) == expected


def test_without_control_groups_it_is_the_hosts(tmp_path: Path) -> None:
    assert memory_bytes(tmp_path) == TOTAL
