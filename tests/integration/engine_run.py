"""Runs one of the examples' training functions: python engine_run.py MODULE STORAGE NAME STEPS [RANKS_PER_HOST]"""

import os
import sys
from importlib import import_module
from pathlib import Path

os.environ["RAY_AUTH_MODE"] = "token"

import ray
from ray.train import RunConfig, ScalingConfig

from orchestrator import MindSporeTrainer, RecoveryConfig

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def main() -> None:
    """Train on the cluster that RAY_ADDRESS names."""
    module, storage, name, steps, *limit = sys.argv[1:]
    per_host = int(limit[0]) if limit else None
    sys.path.insert(0, str(EXAMPLES))
    ray.init(address="auto", log_to_driver=False)
    trainer = MindSporeTrainer(
        import_module(module).train,
        train_loop_config={"steps": int(steps)},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name=name, storage_path=storage),
        # Standbys would take the CPUs of a run that lasts seconds. A host has room for more than one rank.
        recovery=RecoveryConfig(
            checkpoint_every_s=0.3, step_timeout_s=6.0, standbys=False, workers_per_host=per_host
        ),
    )
    result = trainer.fit()
    print(f"{result.checkpoint} {result.metrics['loss']}")


if __name__ == "__main__":
    main()
