"""Files of a run that were removed, replaced or locked: one line with the remedy, and no hang."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from orchestrator.engine.checkpoints import CheckpointsLost
from orchestrator.job.launch import launch
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec, spec_from_dict
from orchestrator.job.stages.train import finished
from orchestrator.report.lines import line_of
from orchestrator.report.summary import build_summary, read_summary
from orchestrator.report.tables import print_summary
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import (
    CheckpointSaved,
    FailureDetected,
    GroupRestarting,
    GroupStarted,
    Progress,
    Resumed,
)
from orchestrator.telemetry.record import EventReader
from orchestrator.telemetry.state import RunState, write_state
from sdnet.data.sampler import steps_per_epoch
from sdnet.data.store import write_patches
from sdnet.errors import InputError
from sdnet.files import sha256_of
from sdnet.parameters.checkpoint import read_origin
from tests.unit.histories import epoch, recorded
from tests.unit.sdnet_checkpoints import save
from tests.unprivileged import as_nobody, let_anybody_write

Change = Callable[[Path], object]
FILES = ("job.yaml", "events.jsonl", "summary.json", "data/manifest.json")
FOLDERS = ("data", "checkpoints", "logs", "plan", "events", "lease", "state")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.fixture(autouse=True)
def storage_without_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that another process reported is here at once or never, so nobody waits for it."""
    monkeypatch.setattr("orchestrator.engine.checkpoints.newest.RETRY_AFTER_S", ())


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    job = {"name": "j", "storage": str(tmp_path), "train": {"recipe": "demo", "batch": 8}}
    return spec_from_dict(job, "job")


@pytest.fixture
def run(spec: JobSpec) -> RunDirectory:
    made = RunDirectory.of(spec.storage, spec.name)
    made.create()
    return made


def refusal(spec: JobSpec) -> str:
    with pytest.raises(InputError) as caught:
        launch(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, link_to_itself], ids=["folder", "pipe", "link"])
@pytest.mark.parametrize("name", FILES)
def test_a_wrong_object_in_the_place_of_a_file_is_reported_before_anything_starts(
    spec, run, name, make
) -> None:
    make(run.root / name)
    said = refusal(spec)
    assert f"{run.root / name} cannot be read (" in said and "move it away" in said
    assert said.endswith("(`launch --restart` does)") != name.startswith("data/")  # a restart keeps the data


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
@pytest.mark.parametrize("name", ["report.html", "logs/rank_0.log", "data/train.npz", "lease/000001"])
def test_a_wrong_object_in_the_place_of_a_file_that_is_only_written_is_reported_too(
    spec, run, name, make
) -> None:
    make(run.root / name)
    assert f"{run.root / name} is not a regular file; make it yours" in refusal(spec)


def test_a_link_to_a_folder_that_is_not_mounted_is_named_with_its_target(spec, run, tmp_path) -> None:
    (run.root / "checkpoints").rmdir()
    (run.root / "checkpoints").symlink_to(tmp_path / "scratch")
    assert f"cannot be written (it is a link to {tmp_path / 'scratch'}, which is not there); " in refusal(
        spec
    )


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, link_to_itself], ids=["file", "pipe", "link"])
@pytest.mark.parametrize("name", FOLDERS)
def test_a_wrong_object_in_the_place_of_a_folder_is_reported(spec, run, name, make) -> None:
    (run.root / name).rmdir()
    make(run.root / name)
    said = refusal(spec)
    assert f"{run.root / name} cannot be written (" in said
    # A restart keeps the data and the leases.
    assert said.endswith("(`launch --restart` does)") != (name in ("data", "lease"))


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_what_an_ordinary_user_may_not_read_is_named(tmp_path, name) -> None:
    let_anybody_write(tmp_path)

    def locked_out() -> str:
        run = RunDirectory(tmp_path / "run")
        run.create()
        path = run.root / name
        if name in FILES:
            path.touch()
        path.chmod(0)
        try:
            run.create()
        except InputError as error:
            return str(error)
        finally:
            path.chmod(0o700)
        return ""

    said = as_nobody(locked_out)
    assert f"{tmp_path / 'run' / name} cannot be " in said and "(Permission denied); make it yours" in said


NO_SUMMARY = [b"", b"[]", b"null", b"{}", b'{"name": 1, "status": "succeeded"}', b"\xff\xfe", b"[" * 100_000]


@pytest.mark.parametrize("content", NO_SUMMARY)
def test_an_invalid_summary_counts_as_missing_with_a_warning(run, caplog, content) -> None:
    run.summary.write_bytes(content)
    assert read_summary(run) is None
    [warning] = caplog.messages
    assert f"{run.summary} is not a summary" in warning


@pytest.mark.parametrize("content", [b"", b"[]", b'{"patches": 3, "skipped": 7}', b"\xff", b"[" * 100_000])
def test_with_an_invalid_manifest_a_summary_lacks_only_its_figures(spec, run, content) -> None:
    run.manifest.write_bytes(content)
    summary = build_summary(spec, run, [], "failed")
    assert summary["patches"] == {"train": None, "test": None} and summary["skipped_images"] == 0


NO_JOB = [
    b"",
    b"[1]",
    b"\xff\xfe\x00",
    b"data: {}\n",
    b"a: [",
    b"cluster: {workers: []}\ndata: {}",
    b"cluster: {workers: 1, threads: 1}\ndata: {}",
    b"cluster: {workers: 1, threads: 1}\ndata: {split: 5}",
    b"[" * 1500,  # deeper than Python calls itself
]


@pytest.mark.parametrize("content", NO_JOB)
def test_checkpoints_beside_a_job_that_cannot_be_read_are_not_trained_on(spec, run, content) -> None:
    save(run.checkpoints, 3)
    run.job.write_bytes(content)
    said = refusal(spec)
    assert f"{run.job} cannot be read (it is not a job)" in said and "launch with --restart" in said


def lose(run: RunDirectory, how: str) -> None:
    """Remove the checkpoints of a run that saved two of them."""
    for step in (3, 5):
        directory = save(run.checkpoints, step)
        write_state(run.storage, RunState(saved=directory.name))
        if how == "corrupt":
            os.truncate(directory / "model.ckpt", 7)
        elif how == "gone":
            for file in directory.iterdir():
                file.unlink()
            directory.rmdir()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("gone", "(all are gone)"),
        ("corrupt", "(corrupt: step_00000003, step_00000005)"),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_a_run_that_lost_all_its_checkpoints_says_so_and_does_not_begin_again(
    spec, run, how, reason, finished
) -> None:
    lose(run, how)
    if finished:
        run.summary.write_text(
            json.dumps({"name": "j", "status": "succeeded", "checkpoint": "step_00000005"})
        )
    for _ in range(2):  # what was marked the first time is still lost the second time
        said = refusal(spec)
        assert said.startswith("the run has finished, but " if finished else str(run.checkpoints))
        assert "although the run saved step_00000005" in said and reason in said
        assert said.endswith("put one back, or launch with --restart to train from step 1")


def test_each_corrupt_checkpoint_is_reported_once_with_its_reason(spec, run, caplog) -> None:
    lose(run, "corrupt")
    for _ in range(2):
        refusal(spec)
    reason = "model.ckpt has 7 bytes with another checksum than was written"
    found = [r.event for r in EventReader(run.storage).read()]
    assert [line for event in found if (line := line_of(event)) and "corrupt" in line] == [
        f"checkpoint step_0000000{step} is corrupt: {reason}" for step in (5, 3)
    ]
    assert not caplog.messages  # launch prints the events


def test_a_finished_run_without_checkpoints_and_events_is_lost_too(spec, run) -> None:
    run.summary.write_text(json.dumps({"name": "j", "status": "succeeded", "checkpoint": "step_00000005"}))
    assert "the run has finished, but " in refusal(spec)


def test_a_finished_run_with_its_last_checkpoint_needs_nothing_and_says_which_data_are_gone(
    spec, run, caplog
) -> None:
    run.train_npz.touch()
    run.test_npz.symlink_to("nowhere")
    save(run.checkpoints, 5)
    summary = {"name": "j", "status": "succeeded", "checkpoint": "step_00000005"}
    run.summary.write_text(json.dumps(summary))
    outcome = launch(spec)
    assert outcome.already_done and outcome.summary == summary
    assert caplog.messages == [
        f"missing from the finished run {run.root}: test.npz; `preprocess` makes the data again"
    ]


def test_a_checkpoint_beyond_the_end_of_the_recipe_is_refused(spec, run) -> None:
    for path in (run.train_npz, run.test_npz):
        write_patches(path, 20, [np.zeros((20, 64, 128), np.uint8)], np.arange(20) % 2)
    steps = steps_per_epoch(20, spec.global_batch) * spec.train.epochs
    save(run.checkpoints, steps)
    events: list[Event] = []
    assert finished(spec, run, events.append) is not None
    save(run.checkpoints, steps + 1)
    with pytest.raises(InputError, match=f"step {steps + 1}, but the recipe ends at step {steps}; move"):
        finished(spec, run, events.append)


def test_a_summary_names_the_bytes_of_the_last_checkpoint(spec, run) -> None:
    directory = save(run.checkpoints, 5)
    saved = CheckpointSaved(step=5, checkpoint=directory.name, stall_s=0.1, save_s=0.2)
    summary = build_summary(spec, run, recorded((1.0, saved)), "succeeded")
    assert summary["checkpoint_sha256"] == sha256_of(directory / "model.ckpt")
    assert summary["weights_sha256"] == read_origin(directory)["weights_sha256"] is not None
    (directory / "state.json").unlink()
    assert build_summary(spec, run, recorded((1.0, saved)), "succeeded")["weights_sha256"] is None


def test_a_summary_has_the_figures_of_the_newest_events(spec, run) -> None:
    history = recorded(
        (1.0, GroupStarted(generation=1, world_size=4, hosts=("a",))),
        (2.0, epoch(1, 3, loss=0.9, fpr95=0.3, accuracy=0.8)),
        (3.0, Progress(step=5)),
        (4.0, FailureDetected(kind="hang", step=6)),
        (5.0, GroupRestarting(reason="")),
        (6.0, GroupStarted(generation=2, world_size=2, hosts=("a",))),
        (7.0, Resumed(checkpoint="step_00000003", step=3)),
        (8.0, epoch(2, 6, loss=0.5)),
    )
    summary = build_summary(spec, run, history, "stopped")
    expected = {
        "name": "j", "status": "stopped", "fpr95": 0.3, "accuracy": 0.8, "loss": 0.5, "epochs": 2, "steps": 6,
        "world_size": 2, "restarts": 1, "lost_steps": 3, "checkpoint": None,
    }  # fmt: skip
    assert {key: summary[key] for key in expected} == expected
    never = build_summary(spec, run, [], "failed")
    assert never.keys() == summary.keys() and (never["loss"], never["steps"]) == (None, 0)


def test_lost_checkpoints_are_an_input_error_that_crosses_processes(tmp_path) -> None:
    import pickle

    error = CheckpointsLost("/runs/j/checkpoints", "step_00000009", ("a", "b", "c", "d"))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - ours, as Ray does it
    assert "(corrupt: a, b, c, ...)" in str(error)


def test_a_printed_summary_shows_every_digit_of_a_checksum_on_a_narrow_terminal() -> None:
    page = Console(width=60, record=True, file=io.StringIO())
    print_summary(page, {"name": "j", "status": "succeeded", "weights_sha256": "0123456789abcdef" * 4})
    digits = "".join(character for character in page.export_text() if character in "0123456789abcdef")
    assert digits.count("0123456789abcdef") == 4
