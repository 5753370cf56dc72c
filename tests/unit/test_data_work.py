"""What the listing of images shows, and whether a finished result was made from them."""

import os
import shutil
from pathlib import Path

import pytest

from sdnet.config import PatchConfig, SplitConfig, SyntheticConfig
from sdnet.preparation import shards
from sdnet.preparation.prepare import prepare
from sdnet.preparation.synthetic import make_tree
from sdnet.preparation.work import images_changed, notes, plan_work

PATCHES, SPLIT = PatchConfig(per_pair=4, negatives=1.5), SplitConfig(train=0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `images`, 36 pairs of 6 scenes, and an empty `out`."""
    make_tree(tmp_path / "made/images", SyntheticConfig(pairs=36, scenes=6))
    (tmp_path / "made/out").mkdir()
    return tmp_path / "made"


def again(folder: Path) -> None:
    prepare(plan_work(folder / "images", folder / "out", PATCHES, SPLIT, 0.0))


def images_of(folder: Path, sensor: str) -> list[Path]:
    return sorted(folder.glob(f"images/*/{sensor}_*/*.png"))


def test_notes_name_orphans_scenes_left_out_and_scenes_of_one_image(folder, tmp_path):
    orphan = images_of(folder, "s1")[0]
    Path(str(orphan).replace("s1_", "s2_")).unlink()
    named = SplitConfig(train_scenes=("*_1",), test_scenes=("*_2", "*_3"))
    found = notes(plan_work(folder / "images", tmp_path, PATCHES, named, 0.1), named)
    assert found == (
        f"1 image(s) have no partner and are left out: {orphan.relative_to(folder / 'images').as_posix()}",
        "3 scene(s) match neither train_scenes nor test_scenes and are left out: "
        + ", ".join(f"ROIs0000_synthetic_{number}" for number in (0, 4, 5)),
    )
    assert notes(plan_work(folder / "images", tmp_path, PATCHES, SPLIT, 0.1), SPLIT)[1:] == ()


@pytest.mark.parametrize(
    "sure",
    [SplitConfig(scene_pattern=r"(t\d)\d"), SplitConfig(train_scenes=("t1*",), test_scenes=("t2*",))],
)
def test_a_split_between_single_images_is_warned_of_unless_scenes_are_named(tmp_path, sure):
    for name in ("t11", "t12", "t21", "t22", "t31", "t32"):
        for sensor in ("s1", "s2"):
            (tmp_path / sensor).mkdir(exist_ok=True)
            (tmp_path / sensor / f"{name}.png").touch()

    def notes_on(split: SplitConfig) -> list[str]:
        found = notes(plan_work(tmp_path, tmp_path, PATCHES, split, 0.0), split)
        return [note for note in found if "scene of its own" in note]

    [note] = notes_on(SplitConfig())
    assert note.startswith("each of the 6 pairs is a scene of its own, so neighbours on the ground may be")
    assert notes_on(sure) == []


def test_folders_that_the_layout_does_not_read_are_named_and_litter_is_not(folder, tmp_path):
    images = folder / "images"
    first = images_of(folder, "s1")[0]
    for place in ("more", "ROIs0000_synthetic/deeper/s1_0", ".hidden", "__MACOSX", f"{first.parent}/sub"):
        (images / place).mkdir(parents=True)
        shutil.copyfile(first, images / place / "a.PNG")
    (images / "notes").mkdir()
    (images / "notes/read.me").touch()
    [note] = notes(plan_work(images, tmp_path, PATCHES, SPLIT, 0.0), SPLIT)
    sub = (first.parent / "sub").relative_to(images)
    assert note == (
        "3 folder(s) with images are no part of the layout and are left out: "
        f"ROIs0000_synthetic/deeper/s1_0, {sub}, more"
    )


def test_images_have_changed_when_one_has_other_pixels_is_added_or_removed_and_not_before(folder):
    def changed() -> bool | None:
        return images_changed(plan_work(folder / "images", folder / "out", PATCHES, SPLIT, 0.1))

    again(folder)
    assert changed() is False
    first, second = images_of(folder, "s1")[:2]
    content = first.read_bytes()
    shutil.copyfile(second, first)
    assert changed() and changed()
    first.write_bytes(content)
    assert not changed()
    first.unlink()
    assert changed()
    first.write_bytes(content)
    next((folder / "out/shards").glob("*.json")).unlink()
    assert changed() is None
    shutil.rmtree(folder / "out")
    assert changed() is None


def test_images_that_were_only_touched_are_compared_once(folder, monkeypatch):
    work = plan_work(folder / "images", folder / "out", PATCHES, SPLIT, 0.1)
    again(folder)
    before = (folder / "out/train.npz").read_bytes()
    os.utime(images_of(folder, "s1")[0])
    assert not images_changed(work)
    monkeypatch.setattr(shards, "make_shard", None)
    assert not images_changed(work) and (folder / "out/train.npz").read_bytes() == before
