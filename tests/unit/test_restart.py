"""`launch --restart` moves the earlier run, deletes nothing, and remembers ranks that may still run."""

import sys
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.job.checkpoints import holds_checkpoints
from orchestrator.job.restart import begin_again
from orchestrator.job.run_directory import RunDirectory
from orchestrator.storage import RunIsOwned, owned
from orchestrator.telemetry.events import RunRestarted
from orchestrator.telemetry.record import EventReader
from orchestrator.telemetry.state import Process, RunState, read_state, write_state
from sdnet.errors import InputError
from tests.unit.sdnet_checkpoints import save
from tests.unprivileged import as_nobody, let_anybody_write

RANK = Process(host="a", pid=22, started=7)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that was killed in its second generation: a checkpoint, patches and graphs."""
    made = RunDirectory(tmp_path / "j")
    made.create()
    save(made.checkpoints, 3)
    (made.data / "train.npz").write_bytes(b"patches")
    made.compiled.mkdir()
    made.job.write_text("name: j\n")
    write_state(made.storage, RunState(generation=2, ranks={"0": RANK}, saved="step_00000003", trained_s=9.0))
    return made


def below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_everything_but_patches_and_graphs_is_moved_and_nothing_is_lost(run: RunDirectory) -> None:
    before = below(run.root) - {"data/train.npz"}
    aside = begin_again(run)
    assert aside == run.root / "before_restart.1"
    assert before <= below(aside)
    left = below(run.root) - {f"before_restart.1/{name}" for name in before}
    assert {name for name in left if not name.startswith("events/")} == {
        "data/train.npz", "lease/000001", "lease/000001.heartbeat", "state/000001.json",
    }  # fmt: skip
    run.create()
    assert not holds_checkpoints(run) and run.compiled.is_dir()


def test_the_ranks_of_the_last_group_are_still_known_to_the_fence(run: RunDirectory) -> None:
    begin_again(run)
    [moved] = EventReader(run.storage).read()
    assert moved.event == RunRestarted(moved_to="before_restart.1")
    # Everything else is of the run that was moved.
    assert read_state(run.storage) == RunState(lease=1, generation=2, ranks={"0": RANK})
    begin_again(run)
    assert read_state(run.storage).ranks == {"0": RANK}


def test_each_restart_has_its_own_folder(run: RunDirectory) -> None:
    moved = [begin_again(run) for _ in range(3)]
    assert [folder and folder.name for folder in moved] == [
        f"before_restart.{number}" for number in (1, 2, 3)
    ]
    assert (run.root / "before_restart.1" / "checkpoints" / "step_00000003").is_dir()


def test_a_new_run_has_nothing_to_move(tmp_path: Path) -> None:
    assert begin_again(RunDirectory(tmp_path / "new")) is None
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["lease"]


def test_what_cannot_be_used_can_be_moved(run: RunDirectory) -> None:
    run.events.mkdir()
    run.summary.symlink_to("summary.json")
    state = run.states / "000000.json"
    state.unlink()
    state.mkdir()
    assert begin_again(run) is not None
    run.create()


def test_a_run_that_is_being_run_is_not_moved(run: RunDirectory) -> None:
    with owned(run.storage), pytest.raises(RunIsOwned, match="is being run by process"):
        begin_again(run)
    assert holds_checkpoints(run)


def test_the_command_line_says_where_the_earlier_run_is(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = run.root.parent / "job.yaml"
    job.write_text(f"name: j\nstorage: {run.root.parent}\ntrain: {{recipe: demo, batch: 5000}}\n")
    monkeypatch.setattr(sys, "argv", ["sdnet-orchestrate", "launch", str(job), "--restart"])
    with pytest.raises(SystemExit, match="2"):  # the batch is refused, and by then the run was moved
        main()
    printed = capsys.readouterr()
    assert f"moved the earlier run to {run.root / 'before_restart.1'}" in printed.out.replace("\n", "")


def test_a_restart_that_cannot_move_everything_moves_nothing(tmp_path: Path) -> None:
    let_anybody_write(tmp_path)

    def refused() -> str:
        run = RunDirectory(tmp_path / "j")
        run.create()
        run.job.write_text("name: j\n")
        run.plan.chmod(0o555)  # a folder that may not be written cannot go to another folder
        before = {path.name for path in run.root.iterdir()}
        with pytest.raises(InputError) as caught:
            begin_again(run)
        assert {path.name for path in run.root.iterdir()} == before
        return str(caught.value)

    plan = tmp_path / "j" / "plan"
    assert as_nobody(refused).startswith(f"{plan} cannot be moved to {plan.parent / 'before_restart.1'} (")
