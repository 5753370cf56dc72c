"""A refused launch of a new run leaves no run directory, and never removes one with work in it."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sdnet.errors import InputError
from sdnet.files import is_run
from tests.unit.conftest import Cli
from tests.unprivileged import as_nobody, let_anybody_write


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(f"name: j\nstorage: {tmp_path / 'runs'}\ntrain: {{recipe: demo, batch: 8}}\n")
    return path


@pytest.mark.parametrize("command", ["launch", "preprocess"])
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:8265", "RAY_ADDRESS is"),
        ("127.0.0.1:637g", "RAY_ADDRESS is"),
        ("127.0.0.1:1", "no Ray cluster answers there"),
    ],
)
def test_an_address_that_cannot_be_joined_leaves_no_folder_of_a_new_run_and_an_older_one_as_it_is(
    cli: Cli, job: Path, monkeypatch: pytest.MonkeyPatch, command: str, address: str, said: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    root = job.parent / "runs" / "j"
    code, _, err = cli(command, str(job), "--set", "cluster.address=auto")
    assert code == 2 and said in err and err.count("\n") == 1 and not root.exists()
    root.mkdir(parents=True)
    assert cli(command, str(job), "--set", "cluster.address=auto")[0] == 2
    assert (root / "lease" / "000001").exists()


@pytest.mark.parametrize("options", [(), ("--restart",)])
def test_a_cluster_that_refuses_late_leaves_no_folder_of_a_new_run_unless_there_is_work_in_it(
    cli: Cli, job: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    root = job.parent / "runs" / "j"
    work: list[Path] = []

    def refuse(cluster: object) -> None:
        assert (root / "lease" / "000001").exists()
        for path in work:
            path.write_text("")
        raise InputError("the cluster is too small")

    monkeypatch.setattr("orchestrator.job.launch.ray_session", refuse)
    for _ in range(2):
        code, _, err = cli("launch", str(job), *options)
        assert code == 2 and "the cluster is too small" in err and not root.exists()
    for name in ("data/train.npz", "state/notes.txt"):
        work[:] = [root / name]
        assert cli("launch", str(job), *options)[0] == 2
        assert work[0].exists() and (root / "summary.json").exists()
        assert json.loads(sorted(root.glob("lease/*.heartbeat"))[-1].read_text())["ended"] is True
        shutil.rmtree(root)


def test_a_refused_launch_also_removes_the_empty_folders_above_the_run_that_it_made(
    cli: Cli, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = job.parent / "made" / "runs"

    def refuse(cluster: object) -> None:
        assert (storage / "j" / "lease" / "000001").exists()
        raise InputError("the cluster is too small")

    monkeypatch.setattr("orchestrator.job.launch.ray_session", refuse)
    launch = ("launch", str(job), "--set", f"storage={storage}")
    assert cli(*launch)[0] == 2 and not (job.parent / "made").exists()
    storage.mkdir(parents=True)
    assert cli(*launch)[0] == 2 and storage.exists()  # it was there before
    storage.rmdir()
    monkeypatch.setattr("orchestrator.job.new_run._remove", lambda run: (storage / "other run").mkdir())
    assert cli(*launch)[0] == 2 and (storage / "other run").exists()


def _old_run(storage: Path, name: str = "j") -> Path:
    """A run directory of an earlier launch, whose storage was given as a relative path."""
    root = storage / name
    (root / "lease").mkdir(parents=True)
    (root / "job.yaml").write_text(f"name: {name}\nstorage: runs\ntrain: {{recipe: demo, batch: 8}}\n")
    return root


@pytest.mark.parametrize("command", ["plan", "launch", "preprocess", "drill"])
def test_the_job_of_a_run_that_is_elsewhere_now_is_not_begun_anew(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    root = _old_run(tmp_path / "moved", "j").rename(tmp_path / "moved" / "k")
    monkeypatch.chdir(root)
    code, _, err = cli(command, "job.yaml")
    assert code == 2 and err.count("\n") == 1
    assert f"job.yaml describes the run {root}/runs/j, and is in {root}; to go on with the run there, " in err
    assert (
        f"rename that folder to j, and add --set storage={tmp_path}/moved\n" in err
        and not (root / "runs").exists()
    )


@pytest.mark.parametrize("command", ["plan", "launch", "preprocess", "drill"])
def test_a_new_run_inside_another_one_is_refused(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    root = _old_run(tmp_path / "runs")
    monkeypatch.chdir(root)
    code, _, err = cli(command, "job.yaml", "--set", "name=k")
    assert code == 2 and not (root / "runs").exists()
    assert f"storage is {root}/runs, inside the run {root}; give a folder outside, such as " in err


def test_the_job_of_a_run_goes_on_with_that_run_from_any_directory(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _old_run(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert json.loads(cli("plan", "runs/j/job.yaml", "--json")[1])["run_directory"] == str(root)
    monkeypatch.chdir(root)
    out = cli("plan", "job.yaml", "--set", f"storage={tmp_path}/runs", "--json")[1]
    assert json.loads(out)["run_directory"] == str(root)
    monkeypatch.chdir(tmp_path)
    root.rename(tmp_path / "on another disk")
    root.symlink_to(tmp_path / "on another disk")
    assert json.loads(cli("plan", "runs/j/job.yaml", "--json")[1])["run_directory"] == str(root)


def test_the_remedy_for_a_moved_run_can_be_pasted_into_a_shell(cli: Cli, tmp_path: Path) -> None:
    for storage, said in (
        ("m/s #2", f"""--set 'storage="{tmp_path}/m/s #2"'"""),
        ("m/2", f"--set storage={tmp_path}/m/2"),
    ):
        root = _old_run(tmp_path / storage)
        err = cli("plan", str(root / "job.yaml"))[2]
        assert err.endswith(f"add {said}\n")
        again = shlex.split(said)
        assert json.loads(cli("plan", str(root / "job.yaml"), *again, "--json")[1])["run_directory"] == str(
            root
        )


@pytest.mark.parametrize("inside", ["", "data"])
def test_prepare_and_register_put_nothing_into_a_run(tmp_path: Path, cli: Cli, inside: str) -> None:
    root = _old_run(tmp_path / "runs")
    out = root / inside if inside else root
    said = f"--out is {out}, which belongs to the run {root}; give a folder of its own"
    before = sorted(root.rglob("*"))
    for command in (["prepare", "--out", str(out)], ["register", "a.png", "b.png", "-o", str(out)]):
        done = subprocess.run([sys.executable, "-m", "sdnet", *command], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (2, f"error: {said}\n")
    assert said in cli("register", str(tmp_path), "-o", str(out))[2] and sorted(root.rglob("*")) == before
    (root / "data").mkdir(exist_ok=True)
    (tmp_path / "link").symlink_to(root / "data")
    assert (
        f"/link/new, which belongs to the run {root}"
        in cli("register", "x", "-o", str(tmp_path / "link/new"))[2]
    )


def test_a_folder_of_another_user_is_no_run(tmp_path: Path) -> None:
    let_anybody_write(tmp_path)
    (tmp_path / "private").mkdir(mode=0)
    assert as_nobody(lambda: str(is_run(tmp_path / "private" / "x"))) == "False"


def test_a_rank_table_given_as_the_job_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "hccl.json").write_text('{"status": "completed", "server_list": []}')
    code, _, err = cli("launch", str(tmp_path / "hccl.json"))
    assert code == 2 and "hccl.json is a rank table and no job; use `launch --rank-table" in err
