"""The command line: wrong input is one line with the thing, its value and the remedy; exit code 2."""

import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

import sdnet.cli.program
from orchestrator.cli.program import app
from orchestrator.job.run_directory import RunDirectory
from orchestrator.telemetry.segments import has_events
from sdnet.data.sampler import steps_per_epoch
from sdnet.recipes import RECIPES
from tests.disk import fill, small_disk
from tests.unit.conftest import Cli


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(f"name: j\nstorage: {tmp_path / 'runs'}\ntrain: {{recipe: demo, batch: 8}}\n")
    return path


def tree(root: Path, scenes: int) -> Path:
    image = np.zeros((128, 128), np.uint8)
    for scene in range(scenes):
        for sensor in ("s1", "s2"):
            folder = root / "ROIs1_fall" / f"{sensor}_{scene}"
            folder.mkdir(parents=True)
            cv2.imwrite(str(folder / f"ROIs1_fall_{sensor}_{scene}_p1.png"), image)
    return root


def prepared(folder: Path, **arrays: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    images = {"arr_0": np.tile(np.arange(128, dtype=np.uint8), (20, 64, 1))}
    for name, labels in (("train.npz", np.ones(20, np.int64)), ("test.npz", np.arange(20) % 2)):
        np.savez(folder / name, **{**images, "arr_1": labels, **arrays})
    return folder


def refused(cli: Cli, job: Path, *options: str) -> str:
    """The one line that a launch is refused with; nothing was started or left for a later run to trust."""
    code, out, err = cli("launch", str(job), *options)
    assert code == 2 and err.startswith("sdnet-orchestrate: ") and err.count("\n") == 1
    assert "Traceback" not in out + err
    run = RunDirectory(job.parent / "runs" / "j")
    assert not (run.root.exists() and has_events(run.storage))
    assert not list(run.root.glob("data/*.npz")) and not run.summary.exists()
    if "data" in " ".join(options):
        assert not run.root.exists()
    return err


def test_a_missing_job_file_is_named(cli: Cli, tmp_path: Path) -> None:
    assert "none.yaml cannot be read" in refused(cli, tmp_path / "none.yaml")


def test_an_unknown_key_is_named_with_its_value(cli: Cli, job: Path) -> None:
    assert "train.speed is not a key of a job (value 3)" in refused(cli, job, "--set", "train.speed=3")


def test_images_that_are_not_there_and_trees_without_pairs_are_named(
    cli: Cli, job: Path, tmp_path: Path
) -> None:
    assert "nowhere is not a folder" in refused(cli, job, "--set", f"data.images={tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    assert "holds no pair (0 optical, 0 SAR" in refused(
        cli, job, "--set", f"data.images={tmp_path / 'empty'}"
    )


def test_one_scene_cannot_be_split(cli: Cli, job: Path, tmp_path: Path) -> None:
    assert "at least 3" in refused(cli, job, "--set", f"data.images={tree(tmp_path / 'one', 1)}")
    assert '"ROIs1_*" matches none of the 12 scenes' in refused(
        cli, job, "--set", "data.split={train_scenes: ['ROIs1_*'], test_scenes: ['*']}"
    )


def test_a_batch_above_the_data_is_known_before_anything_starts(cli: Cli, job: Path) -> None:
    said = refused(cli, job, "--set", "train.batch=5000")
    assert "train.batch is 5000" in said and "gives at most 480" in said and "lower train.batch" in said


def test_a_job_with_only_a_name_is_refused_with_a_recipe_that_its_synthetic_pairs_suffice_for(
    cli: Cli, tmp_path: Path
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(f"name: only\nstorage: {tmp_path}\n")
    said = refused(cli, job)
    assert "gives at most 480; lower train.batch, use train.recipe demo, or give data.images" in said
    assert cli("plan", str(job), "--set", "train.recipe=demo")[0] == 0


def test_storage_that_cannot_be_written_is_named(cli: Cli, job: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/demo").symlink_to(tmp_path / "nowhere")
    for storage in ("file", "file/below", "runs"):
        override = ("--set", f"storage={tmp_path / storage}", "--set", "name=demo")
        code, _, err = cli("launch", str(job), *override)
        assert code == 2 and "cannot be written" in err and "writable directory" in err
        assert cli("plan", str(job), *override) == (2, "", err)


def test_a_full_disk_is_named_before_anything_starts(cli: Cli, job: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        fill(disk)
        code, _, err = cli("launch", str(job), "--set", f"storage={disk}")
    assert code == 2 and err.count("\n") == 1 and "cannot be written (No space left on device)" in err


def test_prepared_files_of_another_shape_kind_or_length_are_named(
    cli: Cli, job: Path, tmp_path: Path
) -> None:
    wrong: dict[str, dict[str, np.ndarray]] = {
        "it must be uint8 [N, 64, 128]": {"arr_0": np.zeros((20, 32, 64), np.uint8)},
        "must be uint8": {"arr_0": np.zeros((20, 64, 128), np.float32)},
        "one label per patch": {"arr_1": np.zeros(19, np.int64)},
        "matches and non-matches": {"arr_1": np.ones(20, np.int64)},
    }
    for number, (said, arrays) in enumerate(wrong.items()):
        folder = prepared(tmp_path / f"p{number}", **arrays)
        assert said in refused(cli, job, "--set", f"data.prepared={folder}")


def test_a_truncated_npz_and_one_with_pickled_objects_are_refused(
    cli: Cli, job: Path, tmp_path: Path
) -> None:
    folder = prepared(tmp_path / "cut")
    whole = (folder / "train.npz").read_bytes()
    (folder / "train.npz").write_bytes(whole[: len(whole) // 2])
    assert "train.npz is not a whole .npz" in refused(cli, job, "--set", f"data.prepared={folder}")
    folder = prepared(tmp_path / "pickled", arr_1=np.array([object()] * 20, dtype=object))
    assert "pickled objects" in refused(cli, job, "--set", f"data.prepared={folder}")


def test_launch_needs_a_job_or_a_rank_table_with_data(cli: Cli) -> None:
    code, _, err = cli("launch", "--rank-table", "x.json")
    assert code == 2 and "together" in err


def test_a_checkpoint_of_another_network_is_refused_before_ray_starts(cli: Cli, tmp_path: Path) -> None:
    import mindspore as ms

    data = prepared(tmp_path / "data")
    other = tmp_path / "other.ckpt"
    ms.save_checkpoint([{"name": "conv.weight", "data": ms.Tensor(np.zeros(3, np.float32))}], str(other))
    code, _, err = cli("evaluate", "--checkpoint", str(other), "--data", str(data / "test.npz"))
    assert code == 2 and "other.ckpt holds no model." in err and "give a checkpoint of SDNet" in err
    code, _, err = cli("export", "--checkpoint", str(other), "--out", str(tmp_path / "x.mindir"))
    assert code == 2 and not (tmp_path / "x.mindir").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--distances", "{tmp}/no/d.npy"), "no/d.npy cannot be written (No such file or directory)"),
        (("--distances", "{tmp}"), "cannot be written (Is a directory)"),
        (("--distances", "{tmp}/data/test.npz"), "test.npz is an input, and the result would replace it"),
        (("--address", "somewhere"), 'cluster.address is "somewhere"; use local, auto or host:port'),
        (
            ("--data", "{tmp}/data/train.npz"),
            "of 20 pairs 20 are matches; FPR95 needs matches and non-matches",
        ),
        (("--data", "{tmp}/black.npz"), "black.npz: the two halves of all 2 pairs are equal; put optical"),
    ],
)
def test_evaluate_refuses_what_it_cannot_use_before_it_reads_the_checkpoint(
    cli: Cli, tmp_path: Path, options: tuple[str, str], said: str
) -> None:
    data = prepared(tmp_path / "data")
    np.savez(data / "train.npz", np.zeros((20, 64, 128), np.uint8), np.ones(20, np.int64))
    np.savez(tmp_path / "black.npz", np.zeros((2, 64, 128), np.uint8), np.arange(2))
    given = {"--checkpoint": "any.ckpt", "--data": str(data / "test.npz")}
    given[options[0]] = options[1].format(tmp=tmp_path)
    code, out, err = cli("evaluate", *(word for option in given.items() for word in option))
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1


def test_air_says_plainly_that_it_needs_an_ascend_host(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli(
        "export", "--checkpoint", "any.ckpt", "--format", "air", "--out", str(tmp_path / "x.air")
    )
    assert code == 2 and "needs an Ascend host" in err


def test_a_plan_touches_nothing_and_names_every_rank(cli: Cli, job: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = cli("plan", str(job), "--set", "cluster.workers=3", "--json")
    plan = json.loads(out)
    assert code == 0 and sorted(tmp_path.rglob("*")) == before
    assert [rank["rank"] for rank in plan["ranks"]] == [0, 1, 2]
    assert {rank["environment"]["RANK_ID"] for rank in plan["ranks"]} == {"0", "1", "2"}
    assert plan["pairs"] == 240 and plan["shards"] == 30 and plan["needs"]["disk_bytes"] > 0


def test_a_plan_of_prepared_patches_counts_them_and_makes_none(cli: Cli, job: Path, tmp_path: Path) -> None:
    folder = prepared(tmp_path / "patches")
    code, out, _ = cli("plan", str(job), "--set", f"data.prepared={folder}", "--json")
    plan = json.loads(out)
    assert code == 0 and (plan["pairs"], plan["shards"], plan["needs"]["patches_at_most"]) == (0, 0, 40)
    assert plan["stages"][0]["work"].startswith("nothing: 20 training and 20 test patches")


def test_a_plan_refuses_the_data_that_launch_would_refuse_and_reports_a_batch_or_a_group_that_does_not_fit(
    cli: Cli, job: Path, tmp_path: Path
) -> None:
    code, out, err = cli("plan", str(job), "--set", f"data.prepared={tmp_path / 'nowhere'}")
    assert (code, out) == (2, "") and "nowhere/test.npz is not there" in err
    code, out, _ = cli("plan", str(job), "--set", "train.batch=5000")
    assert code == 0 and "launch would refuse this: train.batch is 5000" in " ".join(out.split())
    code, out, _ = cli("plan", str(job), "--set", "cluster={workers: 3, workers_per_host: 2}", "--json")
    assert code == 0 and "1 CPU(s) at 2 a host; lower workers, or add hosts" in json.loads(out)["problem"]


def test_a_plan_warns_of_more_memory_than_this_host_or_container_has(cli: Cli, job: Path) -> None:
    many = ("--set", "cluster.workers=2000")
    code, out, _ = cli("plan", str(job), *many, "--json")
    assert code == 0 and json.loads(out)["warning"].startswith("2000 rank(s) need about ")
    code, out, _ = cli("plan", str(job), *many)
    assert code == 0 and "warning: 2000 rank(s) need about" in out
    assert json.loads(cli("plan", str(job), "--json")[1])["warning"] == ""


@pytest.mark.parametrize("command", ["launch", "preprocess", "drill"])
def test_inside_a_submitted_job_a_relative_storage_is_refused_and_nothing_is_made(
    cli: Cli, job: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.chdir(job.parent)
    code, _, err = cli(command, str(job), "--set", "storage=runs")
    assert code == 2 and err.count("\n") == 1 and "storage is 'runs', which in a submitted job is" in err
    assert list(job.parent.iterdir()) == [job]


def test_a_plan_in_words_shows_stages_ranks_and_needs(cli: Cli, job: Path) -> None:
    code, out, _ = cli("plan", str(job), "--set", "cluster.workers=2")
    assert code == 0
    for word in ("preprocess", "train", "evaluate", "RANK_SIZE", "disk bytes"):
        assert word in out


def test_help_examples_name_checkpoints_that_the_examples_before_them_leave() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    ours = " ".join(str(command.epilog) for command in app.registered_commands)
    (step,) = set(re.findall(r"step_\d+", ours))
    assert re.search(rf"checkpoint +│ {step} ", readme)  # the transcript of `make demo`
    theirs = " ".join(str(command.epilog) for command in sdnet.cli.program.app.registered_commands)
    # `sdnet prepare` makes 480 training patches when it is given no images.
    steps = steps_per_epoch(480, RECIPES["demo"].batch) * RECIPES["demo"].epochs
    assert set(re.findall(r"step_\d+", theirs)) == {f"step_{steps:08d}"}


def test_a_home_directory_is_found_in_options_and_in_the_job(
    cli: Cli, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tree(tmp_path / "images", 3)
    options = ("--set", "data.images=~/images", "--set", "storage=~/runs", "--set", "train.batch=2", "--json")
    code, out, _ = cli("plan", f"~/{job.name}", *options)
    assert code == 0
    plan = json.loads(out)
    assert plan["pairs"] == 3 and plan["run_directory"] == str(tmp_path / "runs" / "j")


def test_a_folder_whose_name_is_not_utf8_can_be_planned(cli: Cli, job: Path, tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xd6\xd0")
    tree(tmp_path / "images", 3).rename(folder)
    code, out, _ = cli("plan", str(job), "--set", f"data.images={folder}", "--set", "train.batch=2", "--json")
    assert code == 0 and json.loads(out)["pairs"] == 3
    assert f"3 pairs of {tmp_path}/\\xd6\\xd0 in 2 shards" in json.loads(out)["stages"][0]["work"]
