"""A whole drill with a fake `launch` that needs no Ray: target, fault, recovery, report."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from orchestrator.drill.faults import Fault
from orchestrator.drill.hosts import ThisHost
from orchestrator.drill.rehearsal import CleanRunFailed, Rehearsal
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec, spec_from_dict
from orchestrator.telemetry.event import UnknownEvent
from orchestrator.telemetry.events import FaultInjected
from orchestrator.telemetry.record import EventReader
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
