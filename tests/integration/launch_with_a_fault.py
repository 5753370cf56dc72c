"""`sdnet-orchestrate` with a training function that fails, or waits, before its fourth step.

Ranks import the training function by name, so this is a module and not a script. Call `launch` with the fault's name
before the usual arguments: python -c "import launch_with_a_fault as it; it.launch()" bug launch JOB
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "token"

from orchestrator.cli import main
from orchestrator.job.stages import train as stage
from orchestrator.job.workload import SdnetJob, train_sdnet


def bug(root: Path) -> None:
    """Raise in every generation."""
    raise ArithmeticError("the fourth step does not add up")


def accident(root: Path) -> None:
    """Raise the first time only. root: the run's directory."""
    mark = root / "accident"
    if not mark.exists():
        mark.touch()
        raise ArithmeticError("the fourth step did not add up this time")


def memory(root: Path) -> None:
    """Rank 1 allocates up to 10 GB, the first time only; that is more than the test allows."""
    import numpy
    import ray.train

    mark = root / "memory_taken"
    if ray.train.get_context().get_world_rank() == 1 and not mark.exists():
        mark.touch()
        taken = [numpy.ones(50_000_000, numpy.uint8) for _ in range(200)]
        raise ArithmeticError(f"{len(taken)} times 50 MB were there")


def late(root: Path) -> None:
    """Rank 1 is late once, by more than the 30 s for which MindSpore waits by itself."""
    import time

    import ray.train

    if ray.train.get_context().get_world_rank() == 1:
        time.sleep(35)
        (root / "was_late").touch()


def held(root: Path) -> None:
    """Every rank waits until the test unlocks the file `held` in the folder above the storage."""
    import fcntl

    with (root.parents[1] / "held").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)


def train_with_bug(job: SdnetJob) -> Mapping[str, Any]:
    """See `bug`."""
    return _train(job, bug)


def train_with_accident(job: SdnetJob) -> Mapping[str, Any]:
    """See `accident`."""
    return _train(job, accident)


def train_with_memory(job: SdnetJob) -> Mapping[str, Any]:
    """See `memory`."""
    return _train(job, memory)


def train_with_late(job: SdnetJob) -> Mapping[str, Any]:
    """See `late`."""
    return _train(job, late)


def train_with_held(job: SdnetJob) -> Mapping[str, Any]:
    """See `held`."""
    return _train(job, held)


def _train(job: SdnetJob, fault: Callable[[Path], None]) -> Mapping[str, Any]:
    from sdnet.training.trainer import Trainer

    step = Trainer.step

    def step_with_a_fault(self: Trainer) -> None:
        if self.progress.step == 3:
            fault(job.train.parents[1])
        step(self)

    Trainer.step = step_with_a_fault  # type: ignore[method-assign]
    return train_sdnet(job)


def launch() -> None:
    """Run the command line with the fault that the first argument names."""
    stage.train_sdnet = globals()[f"train_with_{sys.argv.pop(1)}"]
    main()
