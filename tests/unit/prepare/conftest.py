"""Prepared data that the tests of preprocessing share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sdnet.config import SyntheticConfig
from sdnet.preparation import prepare as module
from sdnet.preparation.prepare import prepare
from sdnet.preparation.synthetic import make_tree
from sdnet.preparation.work import plan_work
from tests.unit.prepare.prepared import PATCHES, SPLIT


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images`, 36 pairs of 6 scenes, and `out`, the prepared data."""
    folder = tmp_path_factory.mktemp("made")
    make_tree(folder / "images", SyntheticConfig(pairs=36, scenes=6))
    (folder / "out").mkdir()
    prepare(plan_work(folder / "images", folder / "out", PATCHES, SPLIT, 0.0))
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change; times of files are kept."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


@pytest.fixture
def shards_made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that are made from now on."""
    names: list[str] = []
    make: Callable = module.make_shard

    def noting(shard, directory, config):
        names.append(shard.name)
        return make(shard, directory, config)

    monkeypatch.setattr(module, "make_shard", noting)
    return names
