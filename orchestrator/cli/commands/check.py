"""`sdnet-orchestrate check`: look at every host, and print one table of findings."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.check.judge import Finding
from orchestrator.check.run import run_check
from orchestrator.cli.options import AsJson, JobFile, Overrides
from orchestrator.cli.terminal import wide_console
from orchestrator.job.spec.job_spec import load_spec

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def check(
    job: JobFile,
    set_: Overrides = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="End processes that earlier runs of ours left over; no others.")
    ] = False,
    ping: Annotated[
        bool, typer.Option("--ping", help="Let each device ping its neighbour on the next host.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at every host for what would stop the job; exit code 1 when something would."""
    findings = run_check(load_spec(job, tuple(set_ or ())), clean=clean, ping=ping)
    failed = any(finding.state == "fail" for finding in findings)
    if as_json:
        print(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}))
    else:
        print_findings(wide_console(), findings)
    if failed:
        raise typer.Exit(1)


def print_findings(console: Console, findings: tuple[Finding, ...]) -> None:
    """Print one table, with a remedy in each row that needs one."""
    table = Table("host", "check", "", "seen", "what to do")
    for finding in findings:
        state = Text(finding.state, style=_COLOURS[finding.state])
        table.add_row(finding.host, finding.check, state, finding.seen, finding.remedy)
    console.print(table)
