"""What `plan` says of the copies on each host."""

from pathlib import Path

import numpy as np

from orchestrator.job.data.copies import Copies, copies_of
from orchestrator.job.plan import build_plan
from orchestrator.job.spec.job_spec import CacheSpec, spec_from_dict
from orchestrator.storage.mounts import Mount

NETWORK = Copies(Path("/mnt/run/data"), Mount(Path("/mnt"), "fuse.sshfs"), 2_500_000)


def test_a_plan_says_that_nothing_is_copied_from_a_local_file_system(tmp_path: Path) -> None:
    plan = build_plan(spec_from_dict({"name": "x", "storage": str(tmp_path)}, "test"))
    [stage] = [stage for stage in plan.stages if stage.name == "local data"]
    assert stage.work.startswith(f"nothing is copied: {tmp_path}/x/data is on ")
    assert plan.needs["copied_bytes_per_host"] == 0


def test_a_plan_says_what_is_copied_from_a_network_file_system_and_where_to() -> None:
    assert NETWORK.describe(CacheSpec(path="/scratch")) == (
        "at most 2.5 MB are copied to /scratch on each host, because /mnt/run/data is on fuse.sshfs, "
        "a network file system"
    )


def test_data_above_the_limit_are_a_problem_before_anything_starts() -> None:
    assert NETWORK.problem(CacheSpec(limit_gb=0.0025)) == ""
    assert NETWORK.problem(CacheSpec(limit_gb=0.002)) == (
        "each host would copy 2.5 MB of data, and cluster.cache.limit_gb is 0.002 (2.0 MB); raise it"
    )


def test_nothing_is_copied_of_local_files(tmp_path: Path) -> None:
    for name in ("train.npz", "test.npz"):
        np.savez(tmp_path / name, np.zeros(3))
    assert copies_of(tmp_path / "train.npz", tmp_path / "test.npz").size_bytes == 0
