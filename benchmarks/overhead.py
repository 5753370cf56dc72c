"""The orchestrator's overhead per step: one rank inside `launch` against a bare MindSpore loop.

Both sides train the same recipe on the same patches, in processes with the same environment,
pinned to the same number of CPUs. A round is a whole `launch` (Ray, Ray Train, prefetching, heartbeats,
checkpoints at `every_s: auto`) and the bare loop, which only gathers a batch and calls the step.
The first epoch of a round compiles and is not counted. Only the last epoch is evaluated,
so the seconds of the others are those of their steps.

The speed of a shared machine changes by up to 25 % within minutes. So rounds are short, every second round
starts with the bare loop, and the ratio is the median of the rounds' own ratios.
Every epoch ends with a save: `stall_share` is the share of the loop's time that saving takes.

`--threads` is the job's `cluster.threads`. With as many threads as CPUs, the rank shares the CPUs
with Ray's processes, and the bare loop does not. The kernels split their work evenly, so a process of Ray
that takes one CPU for a moment delays all threads. Each Ray worker (a launch of one rank has five) checks
for signals 99 times a second; Ray 2.60 has no setting for that.

usage: python benchmarks/overhead.py [--batch 64] [--steps 5] [--epochs 3] [--rounds 8]
                                     [--threads 1] [--json]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from orchestrator.ascend.environment import thread_variables
from orchestrator.engine.rank.cpus import compute_on
from orchestrator.job.launch import launch
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import spec_from_dict
from orchestrator.ray_cluster.environment import prepare_environment
from orchestrator.telemetry.events import CheckpointSaved, Epoch
from orchestrator.telemetry.record import EventReader
from sdnet.data.store import open_patches, write_patches

TARGET = 1.05
STALL_TARGET = 0.01


def bare_loop(train: Path, batch: int, steps: int, epochs: int, threads: int) -> list[float]:
    """Seconds of each epoch of the bare loop; runs in a process of its own."""
    import mindspore as ms

    from sdnet.config import Recipe
    from sdnet.network.model import SDNet
    from sdnet.parameters import weights
    from sdnet.training.train_step import TrainStep

    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    compute_on(threads)
    recipe = Recipe(epochs=epochs, batch=batch)
    net = SDNet(recipe, training=True)
    weights.load(net, weights.initial(net, recipe.seed))
    step = TrainStep(net, recipe, recipe.batch, slices=1, world_size=1)
    images = open_patches(train).images
    order = np.random.default_rng(0).permutation(len(images))
    seconds = []
    for epoch in range(epochs):
        began = time.perf_counter()
        for number in range(steps):
            done = epoch * steps + number
            step.add_slice(images[order[number * batch : (number + 1) * batch]], done, 0)
            step.apply(done, recipe.lr)
        step.losses()  # waits for the device
        seconds.append(time.perf_counter() - began)
    return seconds


def launched(folder: Path, number: int, batch: int, epochs: int, threads: int) -> tuple[list[float], float]:
    """Seconds of each epoch but the first inside `launch`, and seconds that saving stalled them, from events."""
    spec = spec_from_dict(
        {
            "name": f"overhead-{number}",
            "storage": str(folder),
            "cluster": {"threads": threads},
            "data": {"prepared": str(folder)},
            "train": {"batch": batch, "epochs": epochs},
            "evaluate": {"every_epochs": epochs},
        },
        "overhead",
    )
    launch(spec)
    happened = [r.event for r in EventReader(RunDirectory.of(spec.storage, spec.name).storage).read()]
    # Events after the first epoch; the save at its end is the first that counts.
    later = happened[1 + next(at for at, event in enumerate(happened) if isinstance(event, Epoch)) :]
    stalls = [event.stall_s for event in later if isinstance(event, CheckpointSaved)]
    return [event.seconds for event in later if isinstance(event, Epoch)], sum(stalls)


def make_patches(folder: Path, samples: int) -> None:
    """Random train.npz and test.npz: the time of a step does not depend on the pixels."""
    rng = np.random.default_rng(0)
    for name, count in (("train.npz", samples), ("test.npz", 64)):
        images = rng.integers(0, 256, (count, 64, 128), np.uint8)
        write_patches(
            folder / name, count, [images], np.arange(count) % 2 if name == "test.npz" else np.ones(count)
        )


def bare(train: Path, batch: int, steps: int, epochs: int, threads: int) -> list[float]:
    """Seconds of each epoch but the first of the bare loop, in a process of its own."""
    command = [sys.executable, __file__, "--bare", str(train), f"--threads={threads}",
               f"--batch={batch}", f"--steps={steps}", f"--epochs={epochs}"]  # fmt: skip
    environment = {**os.environ, **thread_variables(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout.splitlines()[-1])[1:])


def measure(batch: int, steps: int, epochs: int, rounds: int, threads: int) -> dict[str, object]:
    """Median milliseconds per step of both sides, and the median ratio of a round."""
    launch_ms: list[float] = []
    bare_ms: list[float] = []
    trained_s = stalled_s = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_patches(folder, batch * steps)
        bare_run = partial(bare, folder / "train.npz", batch, steps, epochs, threads)
        for number in range(rounds):
            bare_first = number % 2 == 1
            alone = bare_run() if bare_first else []
            seconds, stalls_s = launched(folder, number, batch, epochs, threads)
            if not bare_first:
                alone = bare_run()
            trained_s, stalled_s = trained_s + sum(seconds), stalled_s + stalls_s
            launch_ms.append(round(1000 * statistics.median(seconds) / steps, 2))
            bare_ms.append(round(1000 * statistics.median(alone) / steps, 2))
    ratios = [round(launch / alone, 4) for launch, alone in zip(launch_ms, bare_ms, strict=True)]
    ratio, stall_share = statistics.median(ratios), stalled_s / trained_s
    return {
        "name": "overhead",
        "batch": batch,
        "threads": threads,
        "cpus": len(os.sched_getaffinity(0)),
        "ratio": round(ratio, 4),
        "target": TARGET,
        "met": ratio <= TARGET and stall_share <= STALL_TARGET,
        "stall_share": round(stall_share, 5),
        "stall_target": STALL_TARGET,
        "launch_ms": round(statistics.median(launch_ms), 2),
        "bare_ms": round(statistics.median(bare_ms), 2),
        "rounds": {"ratio": ratios, "launch_ms": launch_ms, "bare_ms": bare_ms},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option, default in (
        ("--batch", 64),
        ("--steps", 5),
        ("--epochs", 3),
        ("--rounds", 8),
        ("--threads", 1),
    ):
        parser.add_argument(option, type=int, default=default)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare is not None:
        print(json.dumps(bare_loop(given.bare, given.batch, given.steps, given.epochs, given.threads)))
        return
    prepare_environment()
    result = measure(given.batch, given.steps, given.epochs, given.rounds, given.threads)
    if given.json:
        print(json.dumps(result))
    else:
        print(f"a step takes {result['launch_ms']} ms in launch, {result['bare_ms']} ms bare: "
              f"ratio {result['ratio']} (target at most {TARGET}); saving stalled the loop for "
              f"{result['stall_share']:.2%} of the time (target at most {STALL_TARGET:.0%})")  # fmt: skip


if __name__ == "__main__":
    main()
