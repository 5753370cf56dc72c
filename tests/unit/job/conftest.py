"""Jobs and images that several tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.job.spec.job_spec import JobSpec, spec_from_dict
from sdnet.config import SyntheticConfig
from sdnet.preparation.synthetic import make_tree


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., JobSpec]:
    """Makes a job with this `data` section."""

    def job(**data: object) -> JobSpec:
        raw = {"name": "job", "storage": str(tmp_path / "runs"), "train": {"recipe": "demo"}, "data": data}
        return spec_from_dict(raw, "test")

    return job


@pytest.fixture
def images(tmp_path: Path) -> Path:
    make_tree(tmp_path / "images", SyntheticConfig(pairs=24, scenes=6))
    return tmp_path / "images"
