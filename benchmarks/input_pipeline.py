"""Samples per second for a training step: our pipeline against the published one, from the same npz.

    python benchmarks/input_pipeline.py [--samples 20000] [--repeats 3] [--json]

Ours: a memory-mapped npz, one gather per batch in a thread, uint8 passed on as a MindSpore tensor;
patches are normalised on the device, inside the step. The published way: a Python source that
returns one sample, resized and min-max normalised by OpenCV, in a MindSpore GeneratorDataset with
mapped operations and 2 workers. Both sides shuffle and return tensors of one batch. They alternate,
and the result is the median of each.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import mindspore as ms
import numpy as np
from mindspore import dataset

from sdnet.data.pipeline import Prefetcher
from sdnet.data.sampler import epoch_order, slice_indices, steps_per_epoch
from sdnet.data.store import PatchFile, open_patches, write_patches

BATCH, WORKERS, TARGET = 500, 2, 100
EPOCHS = 20  # of our side in one measurement: a single one is too short to time
FEWER = 10  # the published side gets this many times fewer samples; otherwise it takes minutes


class PublishedSource:
    """One sample at a time: both halves resized, scaled to [0, 1] each, float32."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        optical, sar = (_scaled(half) for half in np.hsplit(self.images[index], 2))
        return optical, sar, self.labels[index]


def published_samples_per_s(patches: PatchFile) -> float:
    """Time one epoch of the published pipeline over fewer samples, after its workers have started."""
    cv2.setNumThreads(1)
    count = len(patches) // FEWER
    source = PublishedSource(np.asarray(patches.images[:count]), patches.labels[:count])
    data = dataset.GeneratorDataset(
        source,
        ["optical", "sar", "label"],
        shuffle=True,
        num_parallel_workers=WORKERS,
        python_multiprocessing=True,
    )
    for column in ("optical", "sar"):
        data = data.map(_centred, column, num_parallel_workers=WORKERS, python_multiprocessing=True)
    data = data.batch(BATCH, drop_remainder=True)
    batches = data.create_tuple_iterator(num_epochs=2)
    for _ in batches:  # the first epoch starts the workers
        pass
    begun = time.perf_counter()
    samples = sum(len(label) for _, _, label in batches)
    return samples / (time.perf_counter() - begun)


def our_samples_per_s(patches: PatchFile) -> float:
    """Time epochs of shuffled batches, each passed on as a tensor like those of a training step."""
    steps = steps_per_epoch(len(patches), BATCH)
    batches = (
        slice_indices(epoch_order(len(patches), 0, epoch), batch=BATCH, slices=1, step=step, slice_=0)
        for epoch in range(EPOCHS)
        for step in range(steps)
    )
    samples = 0
    begun = time.perf_counter()
    with Prefetcher(patches.images, batches) as prefetcher:
        for batch in prefetcher:
            samples += len(ms.Tensor(batch))
    return samples / (time.perf_counter() - begun)


def measure(samples: int, repeats: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        path = Path(folder) / "train.npz"
        noise = np.random.default_rng(0)
        chunks = (noise.integers(0, 256, (BATCH, 64, 128), np.uint8) for _ in range(samples // BATCH))
        write_patches(path, samples, chunks, np.ones(samples, np.int32))
        patches = open_patches(path)
        rates = [(our_samples_per_s(patches), published_samples_per_s(patches)) for _ in range(repeats)]
    ours, published = (statistics.median(rate) for rate in zip(*rates, strict=True))
    ratio = ours / published
    return {
        "name": "input_pipeline", "ratio": round(ratio, 1), "target": TARGET, "met": ratio >= TARGET,
        "batch": BATCH, "ours_samples_per_s": round(ours), "published_samples_per_s": round(published),
        "ours": [round(rate) for rate, _ in rates], "published": [round(rate) for _, rate in rates],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000, help=f"a multiple of {BATCH * FEWER}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    result = measure(arguments.samples, arguments.repeats)
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"ours: {result['ours_samples_per_s']:,} samples/s; published way: "
            f"{result['published_samples_per_s']:,}; ratio {result['ratio']} (target {TARGET})"
        )


def _scaled(patch: np.ndarray) -> np.ndarray:
    """Resized to 64 x 64 and scaled to [0, 1]: float32 [1, 64, 64]."""
    resized = cv2.resize(patch, (64, 64)).astype(np.float32)
    return cv2.normalize(resized, None, 0.0, 1.0, cv2.NORM_MINMAX)[None]


def _centred(patch: np.ndarray) -> np.ndarray:
    return (patch - np.float32(0.5)) / np.float32(0.5)


if __name__ == "__main__":
    main()
