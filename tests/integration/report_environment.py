"""Lets real ranks of a job report their environment: python report_environment.py JOB.yaml OUT"""

import json
import os
import sys
from pathlib import Path

os.environ["RAY_AUTH_MODE"] = "token"

import ray
from ray.train import RunConfig, ScalingConfig

from orchestrator import MindSporeTrainer, RecoveryConfig, get_session
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import load_spec
from orchestrator.job.stages.train import mindspore_config


def report(config: dict[str, str]) -> None:
    """In a rank: write all variables to a file."""
    path = Path(config["out"]) / f"{get_session().rank}.json"
    path.write_text(json.dumps(dict(os.environ)))


def main() -> None:
    """Start the ranks as the job says."""
    spec, out = load_spec(Path(sys.argv[1])), sys.argv[2]
    run = RunDirectory.of(spec.storage, spec.name)
    ray.init(address="auto", log_to_driver=False)
    MindSporeTrainer(
        report,
        train_loop_config={"out": out},
        mindspore_config=mindspore_config(spec.cluster),
        scaling_config=ScalingConfig(num_workers=spec.cluster.max_workers),
        run_config=RunConfig(name=run.root.name, storage_path=str(run.root.parent)),
        recovery=RecoveryConfig(compile_cache=True),  # as the job does
    ).fit()


if __name__ == "__main__":
    main()
