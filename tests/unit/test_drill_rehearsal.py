"""A whole drill with a fake `launch` that needs no Ray: target, fault, recovery, report."""

import json
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from orchestrator.drill.faults import Fault
from orchestrator.drill.hosts import ThisHost
from orchestrator.drill.launched import launched
from orchestrator.drill.rehearsal import CleanRunFailed, Rehearsal, run_directories
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec, spec_from_dict
from orchestrator.storage import owned
from orchestrator.storage.lease import RunIsOwned
from orchestrator.telemetry.event import UnknownEvent
from orchestrator.telemetry.events import FaultInjected, Progress, RunStarted, StageStarted
from orchestrator.telemetry.record import EventReader, EventWriter
from sdnet.errors import InputError

FAULTS = (Fault.KILL_RANK, Fault.FREEZE, Fault.CORRUPT_CHECKPOINT)


def use_for_launch(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str) -> None:
    """Let drills run a shell program, with the arguments of Python in `$@`, instead of `python -m ...`."""
    script = folder / "python"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    monkeypatch.setattr("orchestrator.drill.launched.PYTHON", str(script))


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    job = {"name": "j", "storage": str(tmp_path), "train": {"recipe": "demo", "epochs": 120}}
    return spec_from_dict(job, "job")


def test_every_fault_of_one_host_is_made_found_and_survived_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: JobSpec
) -> None:
    stand_in = Path(__file__).with_name("launch_stand_in.py")
    use_for_launch(monkeypatch, tmp_path, f'STAND_IN_FAILURES=3 exec "{sys.executable}" "{stand_in}" "$@"')
    report = Rehearsal(spec, ThisHost(), lambda storage: nullcontext()).run(FAULTS, 3, seed=7)
    assert (report["injected"], report["status"], report["same_bytes"]) == (3, "succeeded", True)
    assert {fault["fault"]: fault["named"] for fault in report["faults"]} == {
        "kill-rank": "rank_crashed", "freeze": "hang", "corrupt-checkpoint": "rank_crashed",
    }  # fmt: skip
    assert all(fault["fired"] and fault["host"] == "here" for fault in report["faults"])
    assert None not in [fault["seconds_lost"] for fault in report["faults"]]
    assert report["goodput"] > 0
    run = RunDirectory(tmp_path / "j-drill")
    assert json.loads((run.root / "drill.json").read_text()) == report
    merged = [json.loads(line) for line in run.events.read_text().splitlines()]
    assert [line["number"] for line in merged if line["event"] == FaultInjected.name] == [1, 2, 3]
    assert not [r for r in EventReader(run.storage).read() if isinstance(r.event, UnknownEvent)]


def test_a_job_that_fails_without_a_fault_ends_the_drill_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: JobSpec
) -> None:
    use_for_launch(monkeypatch, tmp_path, "echo the loss is not finite; exit 1")
    with pytest.raises(CleanRunFailed, match="j-drill-clean did not succeed: the loss is not finite"):
        Rehearsal(spec, ThisHost(), lambda storage: nullcontext()).run(FAULTS, 3, seed=7)


def test_a_job_that_launch_refuses_is_wrong_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: JobSpec
) -> None:
    use_for_launch(monkeypatch, tmp_path, "echo sdnet-orchestrate: train.lr is 7; exit 2")
    with pytest.raises(InputError, match="^train.lr is 7$"):
        Rehearsal(spec, ThisHost(), lambda storage: nullcontext()).run(FAULTS, 3, seed=7)


def test_a_run_too_short_for_its_faults_is_stopped_as_soon_as_it_reports_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: JobSpec
) -> None:
    clean = RunDirectory(tmp_path / "j-drill-clean")
    clean.create()
    with EventWriter(clean.storage) as earlier:  # a shorter job, which was corrected
        earlier.record(RunStarted(run="j", host="here", pid=1))
        earlier.record(Progress(step=1, steps=3))
    reports = (
        "import os, signal, sys\n"
        "from orchestrator.job.run_directory import RunDirectory\n"
        "from orchestrator.telemetry.events import Progress, RunStarted\n"
        "from orchestrator.telemetry.record import EventWriter\n"
        f"with EventWriter(RunDirectory.of({str(tmp_path)!r}, 'j-drill-clean').storage) as events:\n"
        "    events.record(RunStarted(run='j', host='here', pid=os.getpid()))\n"
        "    events.record(Progress(step=1, steps=7))\n"
        "signal.pause()\n"
    )
    (tmp_path / "reports.py").write_text(reports)
    use_for_launch(monkeypatch, tmp_path, f'exec "{sys.executable}" "{tmp_path}/reports.py"')
    with pytest.raises(InputError, match="the job has 7 steps, and 3 faults need 8; raise train.epochs"):
        Rehearsal(spec, ThisHost(), lambda storage: nullcontext()).run(FAULTS, 3, seed=7)
    assert not (tmp_path / "j-drill").exists()


def test_a_killed_launch_is_no_clean_run_although_an_earlier_one_succeeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: JobSpec
) -> None:
    clean = RunDirectory(tmp_path / "j-drill-clean")
    clean.make_root()
    clean.summary.write_text(json.dumps({"name": "j-drill-clean", "status": "succeeded", "steps": 120}))
    use_for_launch(monkeypatch, tmp_path, "echo step 7; kill -9 $$")
    with pytest.raises(CleanRunFailed, match="j-drill-clean did not succeed: step 7"):
        Rehearsal(spec, ThisHost(), lambda storage: nullcontext()).run(FAULTS, 3, seed=7)
    assert not (tmp_path / "j-drill").exists()


@pytest.mark.parametrize("of", ["j-drill-clean", "j-drill"])
def test_a_drill_that_still_runs_is_neither_changed_nor_to_be_deleted(
    tmp_path: Path, spec: JobSpec, of: str
) -> None:
    run = RunDirectory(tmp_path / of)
    run.create()
    with owned(run.storage), EventWriter(run.storage) as events:
        events.record(StageStarted(stage="train"))
        with pytest.raises(RunIsOwned, match=f"{of} is being run by process .*; wait for it, stop it"):
            Rehearsal(spec, ThisHost(), lambda storage: nullcontext())


def test_a_name_to_which_a_drill_can_add_nothing_is_refused_before_it_starts(spec: JobSpec) -> None:
    fits, too_long = (spec.model_copy(update={"name": "n" * length}) for length in (88, 89))
    assert [run.root.name for run in run_directories(fits)] == [
        "n" * 88 + "-drill-clean",
        "n" * 88 + "-drill",
    ]
    with pytest.raises(
        InputError, match="and a drill adds -drill-clean; use up to 88 characters: --set name="
    ):
        run_directories(too_long)


def test_a_launch_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_for_launch(monkeypatch, tmp_path, "trap '' TERM; echo ready; while true; do sleep 0.05; done")
    run = RunDirectory(tmp_path / "j")
    run.create()
    with launched(tmp_path / "j.yaml", run, ends_within_s=0.2) as launch:
        assert launch.until(lambda: launch.last_line == "ready")
    assert launch.process.returncode == -signal.SIGKILL
