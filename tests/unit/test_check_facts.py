"""The facts that a host reports to `check`: its versions, ports, devices and storage."""

import contextlib
import dataclasses
import socket
from pathlib import Path

import pytest

from orchestrator.ascend.inventory.host_tools import ROOT_VARIABLE, AscendHostTools
from orchestrator.check.facts import HCCL_BASE_PORT, HCCL_PORTS, Questions, gather, version_of_cann
from tests.ascend_fakes.host import describe, install


def test_a_port_that_something_listens_on_is_seen(tmp_path):
    with listener_among(range(HCCL_BASE_PORT, HCCL_BASE_PORT + HCCL_PORTS)) as listener:
        port = listener.getsockname()[1]
        assert gather("10.0.0.1", questions(tmp_path, ascend=True)).busy_ports[port] == "LISTEN"


def listener_among(ports):
    """Another program's connection may use any one of these."""
    for port in ports:
        with contextlib.suppress(OSError):
            return socket.create_server(("127.0.0.1", port))
    raise AssertionError(f"all of {ports} are taken")


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("usr/local/Ascend/cann/version.cfg", "[CANN]\nversion=8.5.0\n"),
        ("usr/local/Ascend/cann/version.info", "Version=8.5.0\nversion_dir=cann-8.5.0\n"),
        (
            "usr/local/Ascend/cann/aarch64-linux/ascend_toolkit_install.info",
            "package_name=t\nversion=8.5.0\n",
        ),
        ("usr/local/Ascend/cann/compiler/version.info", "Version=8.5.0\n"),
        ("usr/local/Ascend/ascend-toolkit/latest/version.info", "Version=8.5.0\n"),
        ("usr/local/Ascend/version.info", "Version=8.5.0\n"),
        ("home/user/Ascend/cann/version.cfg", "version=8.5.0\n"),
        ("home/user/Ascend/ascend-toolkit/latest/version.cfg", "version=8.5.0\n"),
    ],
)
def test_cann_is_found_where_its_releases_install_it(tmp_path, monkeypatch, place, text):
    no_cann_variables(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path / "home/user"))
    write(tmp_path / place, text)
    assert version_of_cann(AscendHostTools(tmp_path)) == "8.5.0"


def test_the_cann_of_set_env_comes_before_the_installed_ones(tmp_path, monkeypatch):
    no_cann_variables(monkeypatch)
    tools = AscendHostTools(tmp_path / "root")
    write(tools.root / "usr/local/Ascend/ascend-toolkit/latest/version.cfg", "version=8.0\n")
    write(tools.root / "usr/local/Ascend/cann/version.cfg", "version=8.5\n")
    assert version_of_cann(tools) == "8.5"
    for variable, version in (("ASCEND_TOOLKIT_HOME", "9.0"), ("ASCEND_HOME_PATH", "9.1")):
        write(tmp_path / variable / "version.cfg", f"version={version}\n")
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert version_of_cann(tools) == version
    monkeypatch.setenv("ASCEND_HOME_PATH", "not/absolute")
    assert version_of_cann(tools) == "9.0"


def test_a_variable_of_cann_that_leads_to_no_cann_is_reported(tmp_path, monkeypatch):
    no_cann_variables(monkeypatch)
    tools = AscendHostTools(tmp_path)
    assert tools.stale_cann_variables() == ()
    write(tmp_path / "cann/version.cfg", "version=9.0\n")
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(tmp_path / "cann"))
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path / "moved"))
    assert tools.stale_cann_variables() == (f"$ASCEND_HOME_PATH={tmp_path}/moved",)


def test_a_home_outside_of_another_root_holds_no_cann_of_that_host(tmp_path, monkeypatch):
    no_cann_variables(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "Ascend/cann/version.cfg", "version=8.5\n")
    assert version_of_cann(AscendHostTools(tmp_path / "root")) is None


def write(path, text):
    path.parent.mkdir(parents=True)
    path.write_text(text)


def no_cann_variables(monkeypatch):
    for variable in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        monkeypatch.delenv(variable, raising=False)


def questions(probe, **change):
    asked = Questions(probe=probe, token="t", data=None, ascend=False, stated={}, clean=False)
    return dataclasses.replace(asked, **change)


def test_a_host_reports_what_it_sees_and_leaves_the_storage_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("t")
    root = install(tmp_path / "root", describe(1, devices=[0]))
    for name, text in {
        "usr/local/Ascend/driver/version.info": "Version=24.1.rc3\nascendhal_version=7.35\n",
        "usr/local/Ascend/ascend-toolkit/latest/version.cfg": "runtime_running_version=[8.0.0:CANN-8.0]\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    no_cann_variables(monkeypatch)
    facts = gather("10.0.0.1", questions(tmp_path, ascend=True, data=tmp_path / "none"))
    assert (facts.versions["driver"], facts.versions["cann"]) == ("24.1.rc3", "8.0.0")
    assert facts.storage.error == ""
    assert min(facts.storage.write_mb_s, facts.storage.read_mb_s) > 0
    assert facts.inventory is not None
    assert (facts.data_present, len(facts.inventory.devices)) == (False, 1)
    assert facts.clock[0] <= facts.clock[1]
    assert {path.name for path in tmp_path.iterdir()} == {"token", "root"}


@pytest.mark.parametrize(
    ("token", "reported"), [("other", "is another directory here"), (None, "No such file")]
)
def test_storage_that_is_not_the_launchers_is_noticed(tmp_path, token, reported):
    if token:
        (tmp_path / "token").write_text(token)
    assert reported in gather("10.0.0.1", questions(Path(tmp_path))).storage.error
