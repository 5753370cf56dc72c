"""A fake `launch`, which a drill can run without Ray: python launch_stand_in.py -m MODULE launch JOB

One process per generation is the only rank: it sleeps, while this program makes the "steps", saves checkpoints, and
records events and the run's state as a launch does. A rank that ends or is stopped is a failure.

A real job is much longer than the time that a drill needs to inject a fault. This one is short, so it does not make
its last step before `STAND_IN_FAILURES` ranks have failed; the clean run of a drill has no failures to wait for.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

from orchestrator.engine.checkpoints import Encoded, newest_valid, write_checkpoint
from orchestrator.engine.host.left_over import RUN_VARIABLE
from orchestrator.engine.pruning import prune
from orchestrator.job.run_directory import RunDirectory
from orchestrator.process_identity import start_ticks
from orchestrator.telemetry import events
from orchestrator.telemetry.record import EventWriter, merge_events
from orchestrator.telemetry.state import Process, RunState, write_state

STEP_S = 0.02
FAILURES = int(os.environ["STAND_IN_FAILURES"])


def main() -> None:
    """Run the job with one step per epoch, until it is done."""
    job = yaml.safe_load(Path(sys.argv[-1]).read_text())
    run, steps = RunDirectory.of(job["storage"], job["name"]), job["train"]["epochs"]
    began = time.time()
    with EventWriter(run.storage) as writer:
        writer.record(events.RunStarted(run=job["name"], host="here", pid=os.getpid()))
        writer.record(events.StageStarted(stage="train"))
        generation, last = 1, 1 if job["name"].endswith("-clean") else 1 + FAILURES
        while not run_generation(run, writer, generation, steps, generation >= last):
            generation += 1
        writer.record(events.StageFinished(stage="train"))
        writer.record(events.RunFinished(status="succeeded"))
    merge_events(run.storage)
    seconds = {"train": time.time() - began}
    summary = {"name": job["name"], "status": "succeeded", "steps": steps, "seconds": seconds}
    run.storage.put(run.summary.name, json.dumps(summary).encode())


def run_generation(
    run: RunDirectory, writer: EventWriter, generation: int, steps: int, may_end: bool
) -> bool:
    """Make steps until all are done or the rank fails; whether all are done."""
    writer.record(events.GroupStarting(generation=generation, world_size=1))
    rank = subprocess.Popen(["sleep", "600"], env={**os.environ, RUN_VARIABLE: str(run.root)})
    process = Process(host="here", pid=rank.pid, started=start_ticks(rank.pid))
    write_state(run.storage, RunState(generation=generation, ranks={"0": process}))
    name, encoded, corrupt = newest_valid(run.storage)
    for error in corrupt:
        writer.record(
            events.CheckpointCorrupt(checkpoint=error.name.removeprefix("checkpoint "), detail=error.detail)
        )
    step = 0
    if name is not None and encoded is not None:
        step = encoded.step
        writer.record(events.Resumed(checkpoint=name, step=step))
    first = step + 1
    while step < steps:
        time.sleep(STEP_S)
        failure = failure_of(rank)
        if failure:
            rank.kill()
            rank.wait()
            writer.record(events.FailureDetected(kind=failure, rank=0, step=step, generation=generation))
            return False
        if step == steps - 1 and not may_end:
            continue
        step += 1
        write_checkpoint(
            run.storage, Encoded({"model.ckpt": bytes([step]), "optimizer.ckpt": b"o"}, {"step": step})
        )
        prune(run.storage, 3)
        writer.record(events.FirstStep(step=step) if step == first else events.Progress(step=step))
    writer.record(events.Epoch(epoch=1, step=step, loss=0.5, losses={}, lr=0.1, steps=steps, seconds=1.0))
    rank.kill()
    rank.wait()
    return True


def failure_of(rank: "subprocess.Popen[bytes]") -> str:
    """The kind of failure; empty while the rank is well."""
    if rank.poll() is not None:
        return "rank_crashed"
    return "hang" if psutil.Process(rank.pid).status() == psutil.STATUS_STOPPED else ""


if __name__ == "__main__":
    main()
