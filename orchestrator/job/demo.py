"""`demo`: a job that anyone can run, and a naive distance as its baseline."""

import numpy as np

from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec, spec_from_dict
from sdnet.data.store import open_patches
from sdnet.evaluation.metrics import fpr95


def demo_spec(storage: str) -> JobSpec:
    """Two ranks on this machine, synthetic pairs, the `demo` recipe."""
    return spec_from_dict(
        {
            "name": "demo",
            "storage": storage,
            "cluster": {"workers": 2},
            "data": {"patches": {"per_pair": 12}},
            "train": {"recipe": "demo"},
        },
        "demo",
    )


def raw_pixel_rate(run: RunDirectory) -> float:
    """FPR95 on the run's test pairs of the Euclidean distance between min-max normalised patches."""
    test = open_patches(run.test_npz)
    images = np.asarray(test.images, dtype=np.float32)
    optical, sar = (_normalised(half) for half in (images[:, :, :64], images[:, :, 64:]))
    distances = np.sqrt(((optical - sar) ** 2).sum(axis=1, dtype=np.float64))
    return fpr95(distances, np.asarray(test.labels))


def _normalised(patches: np.ndarray) -> np.ndarray:
    """[N, 64, 64] to [N, 4096] in [0, 1]; a constant patch becomes 0."""
    flat = patches.reshape(len(patches), -1)
    low, high = flat.min(axis=1, keepdims=True), flat.max(axis=1, keepdims=True)
    return (flat - low) / np.maximum(high - low, 1)
