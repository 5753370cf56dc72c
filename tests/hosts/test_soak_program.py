"""The conclusions of benchmarks/soak.py from a drill, and the logs that it keeps of a failed one."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator.storage import DirectoryStorage
from tests.hosts.bed import bed
from tests.hosts.network import why_impossible

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "soak.py"
    found = importlib.util.spec_from_file_location("soak", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_a_free_host_without_a_rank_and_a_host_that_left_ray_are_both_named(soak: ModuleType) -> None:
    faults = [
        {"number": 1, "host": "10.231.0.2", "waited_for_host": False},
        {"number": 2, "host": "10.231.0.3", "waited_for_host": True},
    ]
    assert soak.unused_hosts({"faults": faults[:1], "missing_hosts": []}) == []
    assert soak.unused_hosts({"faults": faults, "missing_hosts": ["10.231.0.2"]}) == [
        "fault 2: the run waited for 10.231.0.3 although another host was free",
        "10.231.0.2 is not in Ray",
    ]
    assert soak.unused_hosts({"error": "the drill did not start"}) == []


def test_half_written_checkpoints_are_named_and_valid_or_corrupt_ones_are_not(
    soak: ModuleType, tmp_path: Path
) -> None:
    for name in ("1/model.ckpt", "1/state.json", "2/model.ckpt", "2/corrupt", "3/model.ckpt", "3/.x.tmp"):
        path = tmp_path / "checkpoints" / f"step_0000000{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert soak.half_written(DirectoryStorage(tmp_path)) == [
        "checkpoints/step_00000003/model.ckpt",
        "checkpoints/step_00000003/.x.tmp",
    ]


def test_the_logs_of_a_failed_soak_outlive_its_hosts(soak: ModuleType, tmp_path: Path) -> None:
    with bed(hosts=2) as cluster:
        for host in cluster.hosts:
            logs = host.directory / "ray" / "session_1" / "logs"
            logs.mkdir(parents=True)
            (logs / "raylet.out").write_text(f"raylet of {host.name}")
            (host.directory / "ray" / "session_latest").symlink_to(host.disk / "ray" / "session_1")
        run = cluster.storage / "soak-drill"
        (run / "logs").mkdir(parents=True)
        (run / "logs" / "rank_0.log").write_text("rank 0")
        (run / "events.jsonl").write_text("merged")
        killed = cluster.storage / "soak-drill-clean"
        for name in ("logs/rank_0.log", "events/a/000000.jsonl"):
            (killed / name).parent.mkdir(parents=True)
            (killed / name).write_text(name)
        (tmp_path / "mine").touch()
        directory = soak.keep_logs(cluster, tmp_path)
    assert directory.parent == tmp_path and (tmp_path / "mine").exists()
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert {str(path.relative_to(directory)): path.read_text() for path in files} == {
        "host1/raylet.out": "raylet of host1",
        "host2/raylet.out": "raylet of host2",
        "soak-drill/rank_0.log": "rank 0",
        "soak-drill/events.jsonl": "merged",
        "soak-drill-clean/rank_0.log": "logs/rank_0.log",
        "soak-drill-clean/events/a/000000.jsonl": "events/a/000000.jsonl",
    }
