"""`check` against a real Ray, on this machine as it is, and with a fake Ascend host."""

import json

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.ascend.inventory.host_tools import ROOT_VARIABLE
from orchestrator.cli.commands.check import check
from tests.ascend_fakes.host import describe, install

pytestmark = pytest.mark.integration
EVERY_HOST = {
    "versions",
    "clock",
    "storage",
    "storage contract",
    "disk",
    "shared memory",
    "memory",
    "data",
    "left-over processes",
}
JOB = """
name: c
storage: {storage}
cluster: {{address: local, device: {device}, workers: 1}}
train: {{recipe: demo}}
"""


def run(tmp_path, device, *options):
    job = tmp_path / "cluster.yaml"
    job.write_text(JOB.format(storage=tmp_path / "storage", device=device))
    app = typer.Typer()
    app.command()(check)
    reported = CliRunner().invoke(app, [str(job), "--json", *options], catch_exceptions=False)
    report = json.loads(reported.output)
    assert report["ok"] == (reported.exit_code == 0)
    assert list((tmp_path / "storage").iterdir()) == []
    return {finding["check"]: finding for finding in report["findings"]}


def test_check_covers_every_topic_on_this_machine(tmp_path):
    reported = run(tmp_path, "cpu")
    assert set(reported) == {*EVERY_HOST, "Ray"}
    assert reported["storage"]["state"] in ("ok", "warn")
    assert reported["storage contract"]["state"] == "ok"
    assert ": one creator of a name, no other host to compare with" in reported["storage contract"]["seen"]
    assert reported["Ray"]["state"] == "ok"


def test_a_fake_ascend_host_shows_its_devices_links_ports_and_group(tmp_path, monkeypatch):
    host = describe(1, devices=[0, 1])
    host["devices"][1] |= {"health": "Alarm", "codes": ["40F84E00"]}
    monkeypatch.setenv(ROOT_VARIABLE, str(install(tmp_path / "root", host)))
    for variable in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        monkeypatch.delenv(variable, raising=False)
    reported = run(tmp_path, "ascend", "--ping")
    assert set(reported) == {*EVERY_HOST, "devices", "links", "ports", "NPU 1", "Ray", "group"}
    assert reported["devices"]["seen"] == "1 of 2 well: 2 x 910B4"
    assert reported["group"]["seen"] == "1 ranks on 1 host(s)"
    assert reported["versions"]["remedy"].startswith("install cann, or source CANN's set_env.sh")
