"""What `plan` prints is what real ranks find in their environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.job.plan import build_plan, plan_as_dict
from orchestrator.job.planned_ranks import KNOWN_AT_START
from orchestrator.job.spec.job_spec import load_spec
from tests.integration.ray_node import RayCluster

pytestmark = pytest.mark.integration

OURS = ("DEVICE_ID", "GLOG_v", "MKL_NUM", "MS_", "OMP_NUM", "OPENBLAS_", "RANK_", "SDNET_RUN")


@pytest.mark.parametrize("rendezvous", ["store", "dynamic_cluster"])
def test_every_variable_of_the_plan_is_what_the_ranks_report_and_there_is_no_other(
    ray_cluster: RayCluster, tmp_path: Path, rendezvous: str
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        f"name: planned\nstorage: {tmp_path}\ncluster: {{workers: 2, rendezvous: {rendezvous}}}\n"
        "train: {recipe: demo}\n"
    )
    planned = plan_as_dict(build_plan(load_spec(job)))["ranks"]
    script = Path(__file__).with_name("report_environment.py")
    subprocess.run(
        [sys.executable, str(script), str(job), str(tmp_path)],
        env=ray_cluster.environment,
        cwd=script.parent,  # Ray lets the ranks import from here
        check=True,
    )
    for rank in planned:
        reported = json.loads((tmp_path / f"{rank['rank']}.json").read_text())
        # What the host had set before is not ours, unless the plan sets it too.
        inherited = os.environ.keys() - rank["environment"].keys()
        found = {n: value for n, value in reported.items() if n.startswith(OURS) and n not in inherited}
        marked = {name for name, value in rank["environment"].items() if value == KNOWN_AT_START}
        assert found.keys() == rank["environment"].keys()
        assert {n: v for n, v in found.items() if n not in marked} == {
            n: v for n, v in rank["environment"].items() if n not in marked
        }
    assert len(planned) == 2
