"""Share of a training step that the random views of its batch take, recipe `modern`.

Both are CPU seconds of one batch. A thread makes the views while the previous step runs, so this is the largest
share: with an idle CPU the views take no time of the step.

usage: python benchmarks/views.py [--batch 100] [--rounds 5] [--json]
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
from step_options import read_options  # type: ignore[import-not-found]

from sdnet.data.augment import VIEW, Views, Where
from sdnet.data.store import PatchFile
from sdnet.network.model import SDNet
from sdnet.parameters import weights
from sdnet.recipes import RECIPES, edge_needed
from sdnet.training.train_step import TrainStep

TARGET = 0.03


def cpu_ms(run: Callable[[int], None], rounds: int) -> float:
    """Median CPU time of all threads of this process; the first round compiles and is not counted."""
    times = []
    for step in range(rounds + 1):
        began = time.process_time()
        run(step)
        times.append(1000 * (time.process_time() - began))
    return statistics.median(times[1:])


def measure(batch: int, rounds: int) -> dict[str, object]:
    """CPU milliseconds of both for one batch of random patches."""
    recipe = replace(RECIPES["modern"], batch=batch)
    edge = edge_needed(recipe)
    images = np.random.default_rng(0).integers(0, 256, (batch, edge, 2 * edge), np.uint8)
    shifts = np.zeros((batch, 2), np.int16)
    views = Views(recipe, PatchFile(Path("train.npz"), images, np.ones(batch, np.int32), shifts))
    pairs, indices = np.empty((batch, VIEW, 2 * VIEW), np.uint8), np.arange(batch)
    net = SDNet(recipe, training=True)
    weights.load(net, weights.initial(net, seed=0))
    train_step = TrainStep(net, recipe, batch, slices=1, world_size=1)

    def train(step: int) -> None:
        train_step.add_slice(pairs, step, 0)
        train_step.apply(step, recipe.lr)
        train_step.losses()  # waits for the device

    views_ms = cpu_ms(lambda step: views.fill(Where(step, 0), indices, pairs), rounds)
    step_ms = cpu_ms(train, rounds)
    share = views_ms / step_ms
    return {
        "name": "views", "ratio": round(share, 5), "target": TARGET, "met": share <= TARGET, "batch": batch,
        "views_cpu_ms": round(views_ms, 2), "step_cpu_ms": round(step_ms, 1),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    arguments = read_options(__doc__, "measured batches")
    ms.set_context(mode=ms.GRAPH_MODE)
    found = measure(arguments.batch, arguments.rounds)
    if arguments.json:
        print(json.dumps(found))
    else:
        print(f"views {found['views_cpu_ms']:9.2f} CPU ms per batch of {found['batch']}")
        print(f"step  {found['step_cpu_ms']:9.2f} CPU ms")
        print(f"share {found['ratio']:9.3%}    target {TARGET:.0%}: {'met' if found['met'] else 'MISSED'}")


if __name__ == "__main__":
    main()
