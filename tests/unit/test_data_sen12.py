"""Pairs in a SEN1-2 tree or two flat folders, and their split by scene."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdnet.config import SplitConfig
from sdnet.errors import InputError
from sdnet.preparation.sen12 import find_pairs, split_scenes


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def pair_in_tree(roi: str, scene: str, patch: str) -> tuple[str, str]:
    first, second = (f"{roi}/{s}_{scene}/{roi}_{s}_{scene}_{patch}.png" for s in ("s1", "s2"))
    return first, second


def test_a_sen12_tree_is_listed_in_natural_order_with_sensors_told_apart(tmp_path):
    for scene, patch in (("10", "p2"), ("2", "p10"), ("2", "p9")):
        touch(tmp_path, *pair_in_tree("ROIs1158_spring", scene, patch))
    pairs = find_pairs(tmp_path).pairs
    assert [pair.name for pair in pairs] == [
        "ROIs1158_spring_2_p9", "ROIs1158_spring_2_p10", "ROIs1158_spring_10_p2",
    ]  # fmt: skip
    assert pairs[0].scene == "ROIs1158_spring_2"
    assert pairs[0].sar == tmp_path / "ROIs1158_spring/s1_2/ROIs1158_spring_s1_2_p9.png"
    assert pairs[0].optical == tmp_path / "ROIs1158_spring/s2_2/ROIs1158_spring_s2_2_p9.png"


def test_images_without_partner_are_reported_and_not_paired(tmp_path):
    sar, optical = pair_in_tree("ROIs1_fall", "0", "p1")
    lonely_sar, _ = pair_in_tree("ROIs1_fall", "0", "p2")
    _, lonely_optical = pair_in_tree("ROIs1_fall", "1", "p1")
    touch(tmp_path, sar, optical, lonely_sar, lonely_optical)
    listing = find_pairs(tmp_path)
    assert len(listing.pairs) == 1
    assert listing.orphans == (tmp_path / lonely_sar, tmp_path / lonely_optical)


def test_what_is_no_image_and_what_is_hidden_does_not_count(tmp_path):
    touch(tmp_path, *pair_in_tree("ROIs1_fall", "0", "p1"), "ROIs1_fall/s1_0/readme.txt", "manifest.csv")
    touch(tmp_path, "ROIs1_fall/s1_0/._ROIs1_fall_s1_0_p1.png", "ROIs1_fall/lc_0/ROIs1_fall_lc_0_p1.png")
    listing = find_pairs(tmp_path)
    assert len(listing.pairs) == 1 and listing.orphans == ()


@pytest.mark.parametrize(
    "sar, optical, scene",
    [
        ("harbour_01.png", "harbour_01.png", "harbour"),
        ("s1_harbour_01.png", "s2_harbour_01.png", "s_harbour"),
        ("harbour_s1_01.tif", "harbour_s2_01.png", "harbour_s"),
        ("ROIs7_summer_s1_3_p4.png", "ROIs7_summer_s2_3_p4.png", "ROIs7_summer_3"),
        ("town.jpg", "town.jpg", "town"),
    ],
)
def test_flat_folders_pair_equal_names_and_name_the_scene_by_the_rule(tmp_path, sar, optical, scene):
    touch(tmp_path, f"s1/{sar}", f"s2/{optical}")
    [pair] = find_pairs(tmp_path).pairs
    assert (pair.scene, pair.sar.name, pair.optical.name) == (scene, sar, optical)


def test_two_images_of_one_name_are_refused_and_not_silently_chosen_from(tmp_path):
    touch(tmp_path, "s1/a_1.png", "s1/a_1.jpg", "s2/a_1.png")
    with pytest.raises(InputError, match=r"a_1\.jpg and .*a_1\.png have the same name; rename or remove one"):
        find_pairs(tmp_path)


def test_a_folder_without_pairs_and_a_missing_folder_are_refused_with_the_layout(tmp_path):
    touch(tmp_path, "s1/a.png", "s2/b.png")
    with pytest.raises(
        InputError, match=r"holds no pair \(1 optical, 1 SAR images\): .*; SAR belongs in s1_"
    ):
        find_pairs(tmp_path)
    with pytest.raises(InputError, match=r'images " " is not a folder; give a SEN1-2 tree'):
        find_pairs(Path(" "))
    with pytest.raises(InputError, match=r"none is not a folder; give a SEN1-2 tree"):
        find_pairs(tmp_path / "none")


@pytest.mark.parametrize("sar", ["Port_1.png", "port_01.png", "port_1_VV.png"])
def test_names_that_differ_a_little_are_shown_by_an_example(sar, tmp_path):
    touch(tmp_path, f"s1/{sar}", "s2/port_1.png", "s2/port_2.png")
    with pytest.raises(InputError, match=f": for example, s2/port_1.png and s1/{sar} do not have the same"):
        find_pairs(tmp_path)


@pytest.mark.shared
def test_the_real_tiles_are_464_pairs_of_29_scenes(shared):
    listing = find_pairs(shared / "data/s1s2-sample")
    assert (len(listing.pairs), listing.orphans) == (464, ())
    split = SplitConfig(train_scenes=("ROIs2020_*",), test_scenes=("ROIs2021_*",))
    train, test = split_scenes((pair.scene for pair in listing.pairs), split)
    assert (len(train), len(test)) == (22, 7)


@given(count=st.integers(3, 60), share=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_a_drawn_split_is_whole_disjoint_and_leaves_two_scenes_to_test(count, share, seed):
    scenes = [f"ROIs1_fall_{number}" for number in range(count)]
    split = SplitConfig(train=share, seed=seed)
    train, test = split_scenes(scenes, split)
    assert sorted(train + test) == sorted(scenes)
    assert len(train) == min(max(round(share * count), 1), count - 2)
    assert split_scenes(reversed(scenes * 2), split) == (train, test)


def test_seeds_draw_different_splits():
    scenes = [str(number) for number in range(20)]
    assert len({split_scenes(scenes, SplitConfig(seed=seed)) for seed in range(5)}) == 5


def test_patterns_choose_scenes_and_the_rest_is_left_out():
    split = SplitConfig(train_scenes=("a_*", "b_1"), test_scenes=("c_?",))
    train, test = split_scenes(["a_1", "a_20", "b_1", "b_2", "c_1", "C_1", "c_10", "c_2"], split)
    assert (train, test) == (("a_1", "a_20", "b_1"), ("c_1", "c_2"))


@pytest.mark.parametrize(
    "train, test, message",
    [
        (("a*",), ("z*",), r'test_scenes: "z\*" matches none of the 2 scenes \(a, b\)'),
        (("a*",), ("*",), "scene a matches train_scenes and test_scenes; make the patterns disjoint"),
        ((), ("b",), "train_scenes is empty; give at least one pattern"),
        (("a",), ("b",), "the only test scene is b; non-matches come from another scene, so give at least 2"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(train, test, message):
    with pytest.raises(InputError, match=message):
        split_scenes(["a", "b"], SplitConfig(train_scenes=train, test_scenes=test))


@pytest.mark.parametrize("scenes, said", [(["a", "a"], r"1 scene\(s\) \(a\)"), (["b", "a"], r"\(a, b\)")])
def test_one_or_two_scenes_cannot_be_split(scenes, said):
    with pytest.raises(InputError, match=f"{said}; a split by scene needs at least 3"):
        split_scenes(scenes, SplitConfig())


def test_a_folder_that_cannot_be_listed_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(root: Path, layout: str) -> None:
        raise PermissionError(13, "Permission denied", str(root / "s1"))

    monkeypatch.setattr("sdnet.preparation.sen12.images_of", refuse)
    with pytest.raises(
        InputError, match=r"/s1 cannot be listed \(Permission denied\); let this user read it"
    ):
        find_pairs(tmp_path)
