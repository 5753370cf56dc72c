"""Folders of public data sets: their layout, and the scene of each image."""

import signal
from pathlib import Path
from typing import get_args

import pytest

from sdnet.config import Layout, SplitConfig
from sdnet.errors import InputError
from sdnet.preparation import scene_pattern
from sdnet.preparation.sen12 import find_pairs, split_scenes

DOCUMENTATION = (Path(__file__).resolve().parents[2] / "docs/data.md").read_text(encoding="utf-8")
TREES = {
    "sen12": ["ROIs1_fall/s1_0/ROIs1_fall_s1_0_p1.png", "ROIs1_fall/s2_0/ROIs1_fall_s2_0_p1.png"],
    "flat": ["s1/harbour_1.png", "s2/harbour_1.png"],
    "qxslab_saropt": ["sar_256_oc_0.2/1234.png", "opt_256_oc_0.2/1234.png"],
    "osdataset": ["train/sar17.png", "train/opt17.png"],
}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize(
    "layout, scene, name",
    [
        ("sen12", "ROIs1_fall_0", "ROIs1_fall_0_p1"),
        ("flat", "harbour", "harbour_1"),
        ("qxslab_saropt", "block_01", "1234"),
        ("osdataset", "train_17", "train_17"),
    ],
)
def test_each_layout_is_found_by_itself_and_by_its_name(tmp_path, layout, scene, name):
    sar, optical = TREES[layout]
    touch(tmp_path, sar, optical)
    [pair] = find_pairs(tmp_path).pairs
    assert find_pairs(tmp_path, layout).pairs == (pair,)
    assert (pair.scene, pair.name) == (scene, name)
    assert (pair.sar, pair.optical) == (tmp_path / sar, tmp_path / optical)


@pytest.mark.parametrize(
    "first, second", [("sen12", "flat"), ("flat", "osdataset"), ("qxslab_saropt", "flat")]
)
def test_a_folder_that_fits_two_layouts_is_refused_until_one_is_named(tmp_path, first, second):
    touch(tmp_path, *TREES[first], *TREES[second])
    with pytest.raises(InputError, match=r"fits the layouts .* and .*; set data\.layout to one of them"):
        find_pairs(tmp_path)
    assert len(find_pairs(tmp_path, first).pairs) == len(find_pairs(tmp_path, second).pairs) == 1


def test_another_layout_than_the_one_that_is_named_holds_no_pair(tmp_path):
    touch(tmp_path, *TREES["flat"])
    said = r"holds no pair \(0 optical, 0 SAR images\); images belong in train/, val/ or test/, optical as opt<number>"
    with pytest.raises(InputError, match=said):
        find_pairs(tmp_path, "osdataset")


def test_the_folder_above_is_refused_with_the_folder_to_give(tmp_path):
    for size in ("256", "512"):
        touch(tmp_path / size, *TREES["osdataset"])
    with pytest.raises(InputError, match=r"holds no pair .*; give a folder inside it: 256, 512"):
        find_pairs(tmp_path)


def test_one_season_of_sen12_is_refused_with_the_folder_above_it(tmp_path):
    touch(tmp_path, *TREES["sen12"])
    with pytest.raises(InputError, match=f"one season of SEN1-2; give the folder above it, {tmp_path}$"):
        find_pairs(tmp_path / "ROIs1_fall")


def test_a_hidden_season_of_sen12_is_ignored(tmp_path):
    names = TREES["sen12"]
    touch(tmp_path, *names, *[f".trash/{name.partition('/')[2]}" for name in names])
    touch(tmp_path, ".ROIs2_fall/s1_0/ROIs2_fall_s1_0_p1.png", ".ROIs2_fall/s2_0/ROIs2_fall_s2_0_p1.png")
    listing = find_pairs(tmp_path)
    assert [pair.name for pair in listing.pairs] == ["ROIs1_fall_0_p1"] and not listing.orphans


@pytest.mark.parametrize(
    "sar, optical",
    [
        ("ROIs1_fall/s1_0/ROIs1_fall_s2_0_p1.png", "ROIs1_fall/s2_0/ROIs1_fall_s1_0_p1.png"),
        ("s1/harbour_s2_1.png", "s2/harbour_s1_1.png"),
    ],
)
def test_a_pair_whose_names_say_the_other_sensor_than_its_folders_is_refused(tmp_path, sar, optical):
    touch(tmp_path, sar, optical)
    with pytest.raises(
        InputError, match=rf"{optical} is in a folder of optical images, but its name says s1"
    ):
        find_pairs(tmp_path)


def test_partners_of_equal_names_that_say_one_sensor_are_read(tmp_path):
    touch(tmp_path, "s1/harbour_s2_1.png", "s2/harbour_s2_1.png")
    assert len(find_pairs(tmp_path).pairs) == 1


def test_an_image_in_the_folder_of_the_other_sensor_is_refused_in_osdataset(tmp_path):
    touch(tmp_path, "val/opt/sar3.png", "val/sar/opt3.png")
    with pytest.raises(
        InputError, match="is named (sar|opt), but its folder is (opt|sar); rename or move it"
    ):
        find_pairs(tmp_path)


def test_partners_may_spell_an_accent_in_either_form_of_unicode(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    touch(tmp_path, f"s1/{decomposed}_1.png", f"s2/{composed}_1.png", "s1/bar_1.png", "s2/bar_1.png")
    touch(tmp_path, "s1/inn_1.png", "s2/inn_1.png")
    scenes = [pair.scene for pair in find_pairs(tmp_path).pairs]
    assert scenes == ["bar", composed, "inn"]
    split = SplitConfig(train_scenes=(decomposed,), test_scenes=("bar", "inn"))
    assert split_scenes(scenes, split) == ((composed,), ("bar", "inn"))
    pairs = find_pairs(tmp_path, scene_pattern=f"({decomposed}|bar|inn)_.").pairs
    assert [pair.scene for pair in pairs] == scenes


def test_a_name_in_both_forms_of_unicode_is_refused_with_the_reason_why_the_paths_look_alike(tmp_path):
    touch(tmp_path, "s1/caf\u00e9_1.png", "s1/cafe\u0301_1.png", "s2/caf\u00e9_1.png")
    with pytest.raises(
        InputError, match=r"have the same name in two forms of Unicode \(NFC and NFD\); rename"
    ):
        find_pairs(tmp_path)


def test_folders_of_osdataset_may_hold_a_folder_for_each_sensor(tmp_path):
    touch(tmp_path, "test/sar/sar3.png", "test/opt/opt3.png", "val/sar_4.png", "val/opt_4.png")
    assert [pair.name for pair in find_pairs(tmp_path).pairs] == ["test_3", "val_4"]


def test_a_number_that_two_files_of_osdataset_have_is_refused(tmp_path):
    touch(tmp_path, "test/sar3.png", "test/sar/sar3.png", "test/opt3.png")
    with pytest.raises(InputError, match="have the same name; rename or remove one"):
        find_pairs(tmp_path)


def test_parts_of_osdataset_are_kept_apart_by_patterns_of_scenes(tmp_path):
    for part, numbers in (("train", "12"), ("val", "1"), ("test", "123")):
        touch(tmp_path, *[f"{part}/{sensor}{number}.png" for sensor in ("opt", "sar") for number in numbers])
    scenes = [pair.scene for pair in find_pairs(tmp_path).pairs]
    assert scenes == ["test_1", "test_2", "test_3", "train_1", "train_2", "val_1"]


def test_neighbouring_numbers_of_qxs_saropt_are_one_scene(tmp_path):
    numbers = (1, 999, 1000, 19_999)
    touch(tmp_path, *[f"{s}_256_oc_0.2/{number}.png" for s in ("opt", "sar") for number in numbers])
    assert [(pair.scene, pair.name) for pair in find_pairs(tmp_path).pairs] == [
        ("block_00", "1"), ("block_00", "999"), ("block_01", "1000"), ("block_19", "19999"),
    ]  # fmt: skip


def test_a_name_that_is_no_number_is_refused_in_qxs_saropt(tmp_path):
    touch(tmp_path, *TREES["qxslab_saropt"], "opt_256_oc_0.2/copy of 1.png")
    with pytest.raises(InputError, match=r"copy of 1\.png is not named by a number as in QXS-SAROPT"):
        find_pairs(tmp_path)


def test_a_pattern_names_the_scenes_and_pairs_of_one_scene_stand_together(tmp_path):
    names = ("a1", "b1", "a2", "b2")
    touch(tmp_path, *[f"{sensor}/{name}.png" for sensor in ("s1", "s2") for name in names])
    pairs = find_pairs(tmp_path, scene_pattern=r"(\w)\d").pairs
    assert [(pair.scene, pair.name) for pair in pairs] == [("a", "a1"), ("a", "a2"), ("b", "b1"), ("b", "b2")]


@pytest.mark.parametrize("pattern", [r"(a)\d", r"(?:(a)|b)\d", r"(.)"])
def test_a_pattern_that_leaves_a_pair_without_a_scene_is_refused_with_its_name(tmp_path, pattern):
    touch(tmp_path, *[f"{sensor}/{name}.png" for sensor in ("s1", "s2") for name in ("a1", "b1")])
    with pytest.raises(InputError, match=r"scene_pattern .* does not match '[ab]1', the name of a pair"):
        find_pairs(tmp_path, scene_pattern=pattern)


def test_a_scene_pattern_that_takes_exponential_time_is_stopped_and_changes_no_signal(monkeypatch):
    monkeypatch.setattr(scene_pattern, "_MOST_CPU_S", 0.05)
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(
        InputError, match=r'scene_pattern "\(a\+\)\+\$" takes more than 0.05 s .* put no repeat inside'
    ):
        scene_pattern.ScenePattern("(a+)+$").scene_of("a" * 60 + "_1")
    assert scene_pattern.ScenePattern(r"(.+)_\d+").scene_of("port_1") == "port"
    assert signal.getsignal(signal.SIGVTALRM) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


@pytest.mark.parametrize(
    "pattern", ["", ".+", "(a)(b)", "(", "*", "(?P<a>", "(" * 1000, "a{99999999999999999999}"]
)
def test_a_pattern_without_exactly_one_group_is_refused(pattern):
    with pytest.raises(
        InputError, match="scene_pattern is .*; it must be a regular expression with"
    ) as reported:
        SplitConfig(scene_pattern=pattern)
    assert len(str(reported.value)) < 200


@pytest.mark.parametrize("pattern", ["(" + "a" * 999 + ")", "(" * 200_000])
def test_a_pattern_of_more_than_a_thousand_characters_is_refused(pattern):
    SplitConfig(scene_pattern="(" + "a" * 998 + ")")
    with pytest.raises(InputError, match="it must be at most 1000 characters long") as reported:
        SplitConfig(scene_pattern=pattern)
    assert len(str(reported.value)) < 200


@pytest.mark.parametrize("digit", ["²", "٣", "१२"])
def test_digits_of_any_script_in_names_are_sorted(tmp_path, digit):
    touch(tmp_path, *[f"{sensor}/{name}.png" for sensor in ("s1", "s2") for name in (digit, f"a_{digit}")])
    assert len(find_pairs(tmp_path).pairs) == 2


@pytest.mark.parametrize(
    "pattern, scenes",
    [
        (r"(.+)_\d+_\d+", {"port_3_12": "port", "old_port_3_12": "old_port"}),
        (r"(\d*?)\d{1,2}", {"7": "", "99": "", "100": "1", "1999": "19"}),
    ],
)
def test_the_patterns_of_the_documentation_name_these_scenes(tmp_path, pattern, scenes):
    assert f"`{pattern}`" in DOCUMENTATION
    touch(tmp_path, *[f"{sensor}/{name}.png" for sensor in ("s1", "s2") for name in scenes])
    pairs = find_pairs(tmp_path, scene_pattern=pattern).pairs
    assert {pair.name: pair.scene for pair in pairs} == scenes


@pytest.mark.parametrize("layout", [layout for layout in get_args(Layout) if layout != "auto"])
def test_every_layout_is_documented(layout):
    assert f"| `{layout}`" in DOCUMENTATION
