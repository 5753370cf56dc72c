"""Runs `rank-table`, on this host or on a fake Ascend host."""

from typer.testing import CliRunner

from orchestrator.ascend.inventory.host_tools import ROOT_VARIABLE
from orchestrator.cli.commands.rank_table import rank_table_app
from tests.ascend_fakes.host import describe, install


def run(*arguments):
    return CliRunner().invoke(
        rank_table_app, [str(argument) for argument in arguments], catch_exceptions=False
    )


def this_host(tmp_path, monkeypatch, number=1, **description):
    monkeypatch.setenv(
        ROOT_VARIABLE, str(install(tmp_path / f"host{number}", describe(number, **description)))
    )
