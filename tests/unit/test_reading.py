"""`status` and `logs` read any run, and report an invalid or unreadable one in one line with the remedy."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

from orchestrator.job.run_directory import RunDirectory
from orchestrator.report.reading import existing_run
from orchestrator.storage import DirectoryStorage, StorageUnavailable
from orchestrator.telemetry.events import FailureDetected, RunStarted, StageStarted
from orchestrator.telemetry.state import RunState, write_state
from sdnet.errors import InputError
from tests.unit.conftest import Cli
from tests.unit.histories import epoch, put_old_run, record
from tests.unprivileged import as_nobody, let_anybody_write


def test_a_run_below_a_folder_that_this_user_may_not_enter_is_named(tmp_path: Path) -> None:
    let_anybody_write(tmp_path)
    (tmp_path / "private").mkdir(mode=0)

    def refusal() -> str:
        with pytest.raises(InputError) as caught:
            existing_run(tmp_path / "private" / "r")
        return str(caught.value)

    assert as_nobody(refusal) == (
        f"{tmp_path}/private/r cannot be read (Permission denied); give a readable directory"
    )


def test_a_run_named_by_a_dot_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path / "r")
    run.logs.mkdir(parents=True)
    put_old_run(run.storage)
    for inside, given in ((run.root, "."), (run.logs, "..")):
        monkeypatch.chdir(inside)
        assert existing_run(Path(given)).root.name == "r"


def test_status_and_logs_read_a_run_and_refuse_what_is_none(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("status", str(tmp_path))
    assert code == 2 and f"{tmp_path} is not a run directory (it has no events); give <storage>/<name>" in err
    code, _, err = cli("status", str(tmp_path / "away"))
    assert code == 2 and f"{tmp_path}/away is not there; give <storage>/<name>, and mount the storage" in err
    run = RunDirectory(tmp_path / "r")
    run.create()
    record(
        run.storage,
        RunStarted(run="r", host=socket.gethostname(), pid=os.getpid()),
        StageStarted(stage="train"),
        epoch(1, 6, fpr95=0.25, accuracy=0.9),
        FailureDetected(kind="rank_crashed", rank=1, host="h", detail="gone", step=7),
    )
    code, out, _ = cli("status", str(run.root), "--json")
    found = json.loads(out)
    assert code == 0 and found["state"] == "running" and found["stage"] == "train"
    assert (found["epoch"], found["fpr95"], found["failures"]) == (1, 0.25, 1)
    assert 0 <= found["last_event_s_ago"] < time.time()
    code, out, _ = cli("logs", str(run.root))
    assert code == 0 and "epoch 1: loss 0.5000" in out and "failure: rank_crashed rank 1 on h: gone" in out
    (run.logs / "rank_0.log").write_bytes(b"one\r\ntwo \xc3\xbc\n\xff")
    assert cli("logs", str(run.root), "--rank", "0")[:2] == (0, "one\ntwo \u00fc\n\ufffd")
    code, _, err = cli("logs", str(run.root), "--rank", "3")
    assert code == 2 and f"rank 3 has no log in {run.logs}; there are: rank_0\n" in err


@pytest.mark.parametrize("command", ["status", "logs"])
def test_a_run_of_version_1_and_one_that_was_just_taken_can_be_read(
    cli: Cli, tmp_path: Path, command: str
) -> None:
    put_old_run(DirectoryStorage(tmp_path))
    code, out, _ = cli(command, str(tmp_path))
    assert code == 0 and ("epochs" in out or "epoch 1: loss 0.5000" in out)
    (tmp_path / "events.jsonl").unlink()
    write_state(DirectoryStorage(tmp_path), RunState())
    assert cli(command, str(tmp_path))[0] == 0
    (tmp_path / "state" / "000000.json").unlink()
    DirectoryStorage(tmp_path).put("lease/000001", b"{}")
    assert cli(command, str(tmp_path))[0] == 0


@pytest.mark.parametrize("command", ["status", "logs"])
def test_a_folder_of_another_program_that_keeps_states_and_events_is_no_run(
    cli: Cli, tmp_path: Path, command: str
) -> None:
    for name in ("state/settings.json", "events/events.out.tfevents.1"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text("{}")
    code, out, err = cli(command, str(tmp_path))
    assert (code, out) == (2, "") and "is not a run directory (it has no events)" in err


@pytest.mark.parametrize("command", ["status", "logs"])
def test_events_that_cannot_be_read_are_one_line_with_the_remedy(
    cli: Cli, tmp_path: Path, command: str
) -> None:
    (tmp_path / "events.jsonl").mkdir()
    code, out, err = cli(command, str(tmp_path))
    assert (code, out) == (2, "")
    assert err == (
        f"sdnet-orchestrate: {tmp_path}/events.jsonl cannot be used (Is a directory); "
        "correct its type or its permissions\n"
    )


def test_a_folder_with_the_name_of_a_log_is_named_with_a_remedy_that_helps(cli: Cli, tmp_path: Path) -> None:
    put_old_run(DirectoryStorage(tmp_path))
    log = tmp_path / "logs" / "rank_0.log"
    log.mkdir(parents=True)
    code, out, err = cli("logs", str(tmp_path), "--rank", "0")
    assert (code, out) == (2, "")
    assert err == (
        f"sdnet-orchestrate: {log} cannot be read (Is a directory); correct its type or its permissions\n"
    )


@pytest.mark.parametrize(("command", "folder"), [("status", "lease"), ("logs", "events")])
def test_unavailable_storage_is_one_line_with_the_remedy(
    cli: Cli, tmp_path: Path, command: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_old_run(DirectoryStorage(tmp_path))

    def away(storage: DirectoryStorage, prefix: str) -> list[str]:
        raise StorageUnavailable(prefix, "Stale file handle")

    monkeypatch.setattr(DirectoryStorage, "list", away)
    code, out, err = cli(command, str(tmp_path))
    assert (code, out) == (1, "")
    assert err == (
        f"sdnet-orchestrate: {tmp_path}/{folder}/ cannot be reached or written (Stale file handle); "
        "mount or free the storage\n"
    )


def test_a_state_that_is_damaged_is_one_line_with_the_remedy(cli: Cli, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "j")
    run.create()
    state = run.states / "000000.json"
    state.write_text("{")
    code, out, _ = cli("status", str(run.root), "--json")
    assert (code, json.loads(out)["state"]) == (0, "not started")
    (tmp_path / "job.yaml").write_text(f"name: j\nstorage: {tmp_path}\n")
    code, _, err = cli("launch", str(tmp_path / "job.yaml"))
    assert code == 1 and err.count("\n") == 1
    assert err.startswith(f"sdnet-orchestrate: {state} is corrupt (not a run state: ")
    assert err.endswith("; remove the file to resume from checkpoints\n")
