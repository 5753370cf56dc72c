"""The real `launch` command with a short lease and without Ray: python -m tests.unit.owner_stand_in JOB FIRST_STEP

Instead of the stages it "trains": as a launch and its controller do, it records events, writes the run's state and
saves checkpoints, from FIRST_STEP on, until the file `finish` is in the folder of the job.
"""

import functools
import sys
import time
from dataclasses import replace
from pathlib import Path

from orchestrator import cli
from orchestrator.engine.checkpoints import Encoded, write_checkpoint
from orchestrator.engine.checkpoints.pruning import prune
from orchestrator.job import launch
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec
from orchestrator.storage import Ownership, owned
from orchestrator.storage.lease import LeaseTimes
from orchestrator.telemetry.events import Progress
from orchestrator.telemetry.record import EventWriter
from orchestrator.telemetry.state import read_state, write_state

TIMES = LeaseTimes(renew_every_s=0.1, timeout_s=1.5)
STEP_S = 0.02


def train(
    first_step: int,
    finish: Path,
    spec: JobSpec,
    run: RunDirectory,
    events: EventWriter,
    owning: Ownership,
    notes: tuple[str, ...],
) -> None:
    """Make steps until the parent asks for the end."""
    step, lease = first_step, owning.lease
    while not finish.exists():
        time.sleep(STEP_S)
        step += 1
        events.record(Progress(step=step))
        encoded = Encoded({"model.ckpt": step.to_bytes(8, "big")}, {"step": step})
        name = write_checkpoint(run.storage, encoded, lease.check)
        lease.check()
        write_state(run.storage, replace(read_state(run.storage, lease.number), saved=name))
        lease.check()
        prune(run.storage, 3)


def main(job: Path, first_step: int) -> None:
    """Launch the job."""
    launch._run_stages = functools.partial(train, first_step, job.with_name("finish"))
    launch.owned = functools.partial(owned, times=TIMES)
    sys.argv = ["sdnet-orchestrate", "launch", str(job)]
    cli.main()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
