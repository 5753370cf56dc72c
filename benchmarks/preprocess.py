"""Pairs/s of the preprocess stage with 2 workers, against twice the rate of bare OpenCV in one process.

    python benchmarks/preprocess.py [IMAGES] [--per-pair 12] [--repeats 3] [--json]

The stage's time includes everything except the start of Ray and of its workers: listing, splitting,
tasks, SIFT, writing shards, merging, checksums and manifest. The bare side decodes both images of a
pair, finds SIFT keypoints on the optical one and cuts windows at the strongest; it writes nothing.
The sides alternate, and the result is the median of each. The bare side also runs on both workers at
once, in the stage's processes and thus with its memory setting. What this lacks to twice the bare rate is
a limit of the machine; what the stage lacks beyond it is its own overhead.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from orchestrator.job.spec.job_spec import ClusterSpec, JobSpec, spec_from_dict
from orchestrator.ray_cluster.environment import prepare_environment
from orchestrator.ray_cluster.session import ray_session
from sdnet.config import PatchConfig
from sdnet.preparation.sen12 import Pair, find_pairs

WORKERS, TARGET = 2, 0.95
REAL_TILES = Path(__file__).resolve().parents[2] / "shared/data/s1s2-sample"


def bare_seconds(pairs: tuple[Pair, ...], per_pair: int) -> float:
    """Decode, find SIFT keypoints and crop, and nothing else."""
    sift, half = cv2.SIFT_create(), 32  # type: ignore[attr-defined]
    begun = time.perf_counter()
    for pair in pairs:
        images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in (pair.optical, pair.sar)]
        rows, columns = images[0].shape
        patches: list[np.ndarray] = []
        for point in sorted(sift.detect(images[0], None), key=lambda point: -point.response):
            x, y = (round(value) for value in point.pt)
            if half <= x <= columns - half and half <= y <= rows - half:
                window = slice(y - half, y + half), slice(x - half, x + half)
                patches.append(np.hstack([image[window] for image in images]))
                if len(patches) == per_pair:
                    break
    return time.perf_counter() - begun


def bare_task_seconds(pairs: tuple[Pair, ...], per_pair: int) -> float:
    """The bare side on all workers at once, as Ray tasks: the most that this machine can reach."""
    import ray

    task = ray.remote(num_cpus=1)(bare_seconds)
    begun = time.perf_counter()
    ray.get([task.remote(pairs[worker::WORKERS], per_pair) for worker in range(WORKERS)])
    return time.perf_counter() - begun


def stage_seconds(spec: JobSpec) -> float:
    """One run of the stage into an empty directory."""
    from orchestrator.job.run_directory import RunDirectory
    from orchestrator.job.stages.preprocess import preprocess
    from orchestrator.telemetry.record import EventWriter

    with tempfile.TemporaryDirectory(prefix="benchmark-") as storage:
        run = RunDirectory.of(storage, spec.name)
        run.create()
        with EventWriter(run.storage) as events:
            began = time.perf_counter()
            preprocess(spec, run, events.record)
            return time.perf_counter() - began


def measure(images: Path, per_pair: int, repeats: int) -> dict[str, object]:
    pairs = find_pairs(images).pairs
    patches = {"per_pair": per_pair, "min_distance_px": PatchConfig().min_distance_px}
    data = {"images": str(images), "patches": patches, "max_bad_images": 1.0}
    spec = spec_from_dict({"name": "benchmark", "cluster": {"workers": WORKERS}, "data": data}, "benchmark")
    cv2.setNumThreads(1)
    bare, tasks, stage = [], [], []
    with ray_session(ClusterSpec(workers=WORKERS)):
        stage_seconds(spec)  # starts the workers
        for _ in range(repeats):
            bare.append(bare_seconds(pairs, per_pair))
            tasks.append(bare_task_seconds(pairs, per_pair))
            stage.append(stage_seconds(spec))
    bare_rate, tasks_rate, rate = (
        len(pairs) / statistics.median(seconds) for seconds in (bare, tasks, stage)
    )
    ratio = rate / (WORKERS * bare_rate)
    return {
        "name": "preprocess", "ratio": round(ratio, 3), "target": TARGET, "met": ratio >= TARGET,
        "pairs": len(pairs), "workers": WORKERS, "stage_pairs_per_s": round(rate, 1),
        "bare_pairs_per_s": round(bare_rate, 1), "bare_tasks_pairs_per_s": round(tasks_rate, 1),
        "bare_tasks_ratio": round(tasks_rate / (WORKERS * bare_rate), 3),
        "stage_s": stage, "bare_s": bare, "bare_tasks_s": tasks,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images", nargs="?", type=Path, default=REAL_TILES, help="a SEN1-2 tree")
    parser.add_argument("--per-pair", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    prepare_environment()
    result = measure(arguments.images.resolve(), arguments.per_pair, arguments.repeats)
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"stage: {result['stage_pairs_per_s']} pairs/s with {WORKERS} workers; bare OpenCV: "
            f"{result['bare_pairs_per_s']} pairs/s in one process; ratio to {WORKERS} times bare "
            f"{result['ratio']} (target {TARGET}; bare Ray tasks here: {result['bare_tasks_ratio']})"
        )


if __name__ == "__main__":
    main()
