"""Prepares small data as the tests of preprocessing want it."""

from pathlib import Path

from sdnet.config import PatchConfig, SplitConfig
from sdnet.preparation.prepare import prepare
from sdnet.preparation.work import plan_work

PATCHES, SPLIT = PatchConfig(per_pair=4, negatives=1.5), SplitConfig(train=0.5)
RESULTS = ("train.npz", "test.npz", "manifest.json")


def again(folder: Path, patches: PatchConfig = PATCHES, max_bad_images: float = 0.0) -> dict:
    return prepare(plan_work(folder / "images", folder / "out", patches, SPLIT, max_bad_images))


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "out" / name).read_bytes() for name in RESULTS}


def images_of(folder: Path, sensor: str) -> list[Path]:
    return sorted(folder.glob(f"images/*/{sensor}_*/*.png"))
