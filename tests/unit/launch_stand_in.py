"""A fake `launch`, which a drill can run without Ray: python launch_stand_in.py -m MODULE launch JOB

One process per generation is the only rank. As in a real run, the rank makes the steps and saves the checkpoints, so
neither happens while it is stopped. This program starts the ranks and records their failures.

A real job is much longer than the time that a drill needs to inject a fault. This one is short, so each of its first
`STAND_IN_FAILURES` ranks makes its steps and then waits for its fault. It leaves a step to each later rank. The clean
run of a drill has no failures to wait for.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

from orchestrator.engine.checkpoints import Encoded, newest_valid, write_checkpoint
from orchestrator.engine.checkpoints.pruning import prune
from orchestrator.engine.host.left_over import RUN_VARIABLE
from orchestrator.job.run_directory import RunDirectory
from orchestrator.process_identity import start_ticks
from orchestrator.telemetry import events
from orchestrator.telemetry.record import EventReader, EventWriter, merge_events
from orchestrator.telemetry.state import Process, RunState, write_state

STEP_S = 0.02


def launch(job_file: Path, failures: int) -> None:
    """Run the job with one step per epoch, until it is done."""
    job = yaml.safe_load(job_file.read_text())
    run, steps = RunDirectory.of(job["storage"], job["name"]), job["train"]["epochs"]
    began = time.time()
    with EventWriter(run.storage) as writer:
        writer.record(events.RunStarted(run=job["name"], host="here", pid=os.getpid()))
        writer.record(events.StageStarted(stage="train"))
        for generation in range(1, failures + 2):
            later_ranks = 0 if job["name"].endswith("-clean") else failures + 1 - generation
            failure = failure_of_rank(run, writer, generation, steps - later_ranks, waits=later_ranks > 0)
            if not failure:
                break
            writer.record(events.FailureDetected(kind=failure, rank=0, generation=generation))
        writer.record(
            events.Epoch(epoch=1, step=steps, loss=0.5, losses={}, lr=0.1, steps=steps, seconds=1.0)
        )
        writer.record(events.StageFinished(stage="train"))
        writer.record(events.RunFinished(status="succeeded"))
    merge_events(run.storage)
    seconds = {"train": time.time() - began}
    summary = {"name": job["name"], "status": "succeeded", "steps": steps, "seconds": seconds}
    run.storage.put(run.summary.name, json.dumps(summary).encode())


def failure_of_rank(run: RunDirectory, writer: EventWriter, generation: int, steps: int, waits: bool) -> str:
    """Start the rank of a generation; the kind of its failure, or an empty string when it has made its steps."""
    writer.record(events.GroupStarting(generation=generation, world_size=1))
    command = [sys.executable, __file__, "rank", str(run.root), str(steps), "waits" if waits else "ends"]
    rank = subprocess.Popen(command, env={**os.environ, RUN_VARIABLE: str(run.root)})
    try:
        process = Process(host="here", pid=rank.pid, started=start_ticks(rank.pid))
        write_state(run.storage, RunState(generation=generation, ranks={"0": process}))
        while rank.poll() is None:
            time.sleep(STEP_S)
            if is_frozen(rank.pid, run, generation):
                return "hang"
        return "rank_crashed" if rank.returncode else ""
    finally:
        rank.kill()
        rank.wait()


def is_frozen(pid: int, run: RunDirectory, generation: int) -> bool:
    """Whether the drill has frozen this rank.

    A drill also stops a rank for a moment to damage a checkpoint. A real launch calls a rank hung only after many
    seconds. This one asks the record, so that its judgement never depends on timing.
    """
    if psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        return False
    recorded = [line.event for line in EventReader(run.storage).read()]
    faults = [event for event in recorded if isinstance(event, events.FaultInjected)]
    return ("freeze", generation) in [(event.fault, event.generation) for event in faults]


def rank(run: RunDirectory, steps: int, waits: bool) -> None:
    """Resume, make the steps up to this one, each with a checkpoint, and then end or wait to be killed."""
    with EventWriter(run.storage) as writer:
        name, encoded, corrupt = newest_valid(run.storage)
        for error in corrupt:
            named = error.name.removeprefix("checkpoint ")
            writer.record(events.CheckpointCorrupt(checkpoint=named, detail=error.detail))
        resumed = 0
        if name is not None and encoded is not None:
            resumed = encoded.step
            writer.record(events.Resumed(checkpoint=name, step=resumed))
        for step in range(resumed + 1, steps + 1):
            time.sleep(STEP_S)
            files = {"model.ckpt": bytes([step]), "optimizer.ckpt": b"o"}
            write_checkpoint(run.storage, Encoded(files, {"step": step}))
            prune(run.storage, 3)
            first = step == resumed + 1
            writer.record(events.FirstStep(step=step) if first else events.Progress(step=step))
    if waits:
        signal.pause()


if __name__ == "__main__":
    if sys.argv[1] == "rank":
        rank(RunDirectory(Path(sys.argv[2])), int(sys.argv[3]), waits=sys.argv[4] == "waits")
    else:
        launch(Path(sys.argv[-1]), int(os.environ["STAND_IN_FAILURES"]))
