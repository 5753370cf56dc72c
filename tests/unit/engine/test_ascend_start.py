"""Before a generation starts on a host: leftover processes are ended, and the start waits for their devices."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from orchestrator.ascend.inventory.host_tools import ROOT_VARIABLE
from orchestrator.engine.host.left_over import RUN_VARIABLE
from orchestrator.engine.start import ascend as ascend_start
from orchestrator.engine.start.ascend import clear_host, physical_id
from orchestrator.errors import InputError
from tests.ascend_fakes.host import change, describe, install

MARK = "/runs/this-one"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    return install(tmp_path, describe(1, devices=[0, 1]))


@pytest.fixture
def left_over() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, RUN_VARIABLE: MARK}
    ) as process:
        yield process
        process.kill()


def busy(device: int) -> dict:
    host = describe(1, devices=[0, 1])
    host["devices"][device]["processes"] = [[4711, "python", 617]]
    return host


def test_leftover_processes_of_the_run_are_ended_and_reported(
    root: Path, left_over: subprocess.Popen[bytes]
) -> None:
    other = clear_host("10.0.0.1", [0], {}, "/runs/another", False)
    assert other.ended == () and left_over.poll() is None
    cleared = clear_host("10.0.0.1", [0], {}, MARK, False)
    assert [item.pid for item in cleared.ended] == [left_over.pid]
    # Its parent, which is this process, may not have reaped it yet.
    assert not psutil.pid_exists(left_over.pid) or psutil.Process(left_over.pid).status() == "zombie"


def test_the_start_waits_for_a_device_that_a_dying_process_still_uses(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(root, busy(1))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        change(root, describe(1, devices=[0, 1]))

    monkeypatch.setattr(ascend_start, "time", SimpleNamespace(monotonic=time.monotonic, sleep=wait))
    cleared = clear_host("10.0.0.1", [1], {}, MARK, True)
    assert len(waits) == 1 and cleared.inventory.devices[1].processes == ()


def test_the_start_waits_for_an_npu_smi_that_fails_for_a_moment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(
        root, describe(1, devices=[0, 1]) | {"garbled_info": "dcmi model initialized failed. ret is -8020\n"}
    )
    wait = lambda seconds: change(root, describe(1, devices=[0, 1]))  # noqa: E731
    monkeypatch.setattr(ascend_start, "time", SimpleNamespace(monotonic=time.monotonic, sleep=wait))
    assert clear_host("10.0.0.1", [1], {}, MARK, True).inventory.physical_id(1) == 1


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({}, "`npu-smi info` failed: not on PATH"),
        ({"10.0.0.1": {6: ""}}, "the job names NPU 6, but the host has none"),
    ],
    ids=["no npu-smi", "devices of another host"],
)
def test_a_host_without_a_known_device_says_why(
    root: Path, monkeypatch: pytest.MonkeyPatch, stated: dict[str, dict[int, str]], reason: str
) -> None:
    if not stated:
        (root / "usr/local/bin/npu-smi").unlink()
    monkeypatch.setattr(ascend_start, "_PATIENCE_S", 0.0)
    inventory = clear_host("10.0.0.1", [0], stated, MARK, False).inventory
    with pytest.raises(InputError, match=rf"NPU 0 of 10\.0\.0\.1, but no NPU .* is known there \({reason}"):
        physical_id(inventory, 0)


def test_a_busy_device_is_reported_with_the_number_that_ray_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = describe(1, devices=[4, 5])
    seen["devices"][1]["processes"] = [[4711, "python", 617]]
    monkeypatch.setenv(ROOT_VARIABLE, str(install(tmp_path / "container", seen)))
    monkeypatch.setattr(ascend_start, "_PATIENCE_S", 0.0)
    # Ray's 1 is the host's 5, which is busy.
    inventory = clear_host("10.0.0.1", [1], {}, MARK, False).inventory
    assert inventory.physical_id(1) == 5
    monkeypatch.setattr(ascend_start, "time", SimpleNamespace(monotonic=time.monotonic))
    monkeypatch.setattr(ascend_start, "_PATIENCE_S", 30.0)
    # Without a `sleep` to call, waiting for the other one would raise.
    assert clear_host("10.0.0.1", [0], {}, MARK, False).ended == ()


def test_the_start_does_not_wait_for_a_device_of_other_users(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(root, busy(1))
    monkeypatch.setattr(ascend_start, "time", SimpleNamespace(monotonic=time.monotonic))
    assert clear_host("10.0.0.1", [0], {}, MARK, True).inventory.address == "10.0.0.1"


def test_the_wait_is_bounded_and_the_inventory_reports_the_problem(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(root, busy(0))
    monkeypatch.setattr(ascend_start, "_PATIENCE_S", 0.0)
    inventory = clear_host("10.0.0.1", [0], {}, MARK, False).inventory
    assert inventory.devices[0].unusable(needs_network=False) == "busy: process 4711 python"
