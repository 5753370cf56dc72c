"""Storage fails during a launch: the launch succeeds when it returns, and ends in one line otherwise."""

import json
import resource
import threading
from pathlib import Path

import pytest

from orchestrator.job import launch as module
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec
from orchestrator.report.status import read_status
from orchestrator.storage import DirectoryStorage, StorageUnavailable
from orchestrator.telemetry import record as record_module
from orchestrator.telemetry.events import Progress, RunFinished
from sdnet.files import alone_in
from tests.failing_files import failing_files
from tests.launching import events_of
from tests.unit.conftest import Cli
from tests.unit.sdnet_checkpoints import save


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record_module, "_RETRY_AT_CLOSE_S", (0.0,))
    path = tmp_path / "job.yaml"
    path.write_text(
        f"name: j\nstorage: {tmp_path / 'mount'}\ntrain: {{recipe: demo, batch: 8}}\n"
        "recovery: {storage_timeout_s: 2}\n"
    )
    return path


@pytest.mark.parametrize("returns", ["at once", "later", "never"])
def test_a_launch_survives_a_server_outage_or_ends_in_one_line(
    returns: str, job: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path / "mount" / "j")
    with failing_files(tmp_path / "mount") as files:

        def stages(spec: object, run: object, events: record_module.EventWriter, *others: object) -> None:
            files.away = True
            events.record(Progress(step=7))
            assert not events.flush()
            files.away = returns != "at once"
            if returns == "later":
                threading.Timer(0.5, lambda: setattr(files, "away", False)).start()

        monkeypatch.setattr(module, "_run_stages", stages)
        code, _, err = cli("launch", str(job))
        files.away = False
    assert "Traceback" not in err
    if returns != "never":
        assert code == 0
        assert json.loads(run.summary.read_text())["status"] == "succeeded"
        assert read_status(run)["state"] == "succeeded"
        assert events_of(run, Progress) == [Progress(step=7)]
    else:
        assert code == 1 and err.splitlines()[-1] == (
            f"sdnet-orchestrate: storage {run.root} could not be written (the last events were refused); "
            "free or mount it, and launch again to resume"
        )
        assert not run.summary.exists() and not events_of(run, RunFinished)


def test_a_server_that_never_returns_at_the_end_is_one_line_with_the_cause_of_the_failure(
    job: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing_files(tmp_path / "mount") as files:

        def stages(*arguments: object) -> None:
            files.away = True
            raise module.OrchestratorError("training stopped: storage did not come back within 60 s")

        monkeypatch.setattr(module, "_run_stages", stages)
        code, _, err = cli("launch", str(job))
    assert code == 1 and "Traceback" not in err
    assert err.splitlines()[-1].startswith(
        "sdnet-orchestrate: training stopped: storage did not come back within 60 s; also, storage "
    )


def test_a_launch_takes_no_lock_of_the_file_system(
    job: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuse(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, refuse)
    monkeypatch.setattr(module, "_run_stages", lambda *arguments: None)
    assert cli("launch", str(job))[0] == 0
    assert not (tmp_path / "mount" / "j" / "launch.lock").exists()


def test_a_launch_is_refused_where_its_ranks_would_get_too_few_addresses(
    job: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4900 << 20, 4900 << 20))
    code, _, err = cli("launch", str(job))
    assert code == 2 and "limits a process to 4900 MiB of addresses" in err and "need 5000; raise" in err


@pytest.mark.parametrize("restart", [(), ("--restart",)])
def test_a_launch_does_not_join_a_run_in_which_sdnet_train_works(
    restart: tuple[str, ...], job: Path, cli: Cli, tmp_path: Path
) -> None:
    checkpoints = tmp_path / "mount/j/checkpoints"
    checkpoints.mkdir(parents=True)
    with alone_in(checkpoints):
        code, _, err = cli("launch", str(job), *restart)
    assert code == 2 and f"another process is working in {checkpoints}; wait until it ends" in err
    assert checkpoints.is_dir()


def test_a_server_that_is_lost_as_a_launch_begins_is_no_mistake_of_the_user_and_names_the_run(
    job: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path / "mount" / "j")
    run.create()
    save(run.checkpoints, 3)
    read = DirectoryStorage.get

    def lost(storage: DirectoryStorage, name: str) -> bytes:
        if name == "job.yaml":
            raise StorageUnavailable(name, "Transport endpoint is not connected")
        return read(storage, name)

    monkeypatch.setattr(DirectoryStorage, "get", lost)
    code, _, err = cli("launch", str(job))
    assert code == 1 and err.splitlines()[-1] == (
        f"sdnet-orchestrate: {run.job} cannot be reached or written (Transport endpoint is not connected); "
        "mount or free the storage"
    )


def test_a_launch_that_lost_the_run_while_it_looked_at_its_inputs_leaves_the_job_of_the_other_one(
    job: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path / "mount" / "j")
    check_inputs = module.check_inputs

    def taken_meanwhile(spec: JobSpec) -> object:
        run.storage.put("lease/000002", b"")
        run.job.write_text("the other launch's")
        return check_inputs(spec)

    monkeypatch.setattr(module, "check_inputs", taken_meanwhile)
    code, _, err = cli("launch", str(job))
    assert code == 4 and f"lost the run {run.root} to another launch" in err
    assert run.job.read_text() == "the other launch's"
