"""`sdnet-orchestrate logs`: the events of a run, or the output of one rank."""

import sys
from typing import Annotated

import typer

from orchestrator.cli.options import RunPath
from orchestrator.report.reading import event_lines, existing_run, output_of


def logs(
    run: RunPath,
    rank: Annotated[
        int | None, typer.Option(min=0, help="Print this rank's output instead of the events.")
    ] = None,
) -> None:
    """Print a run's events as lines, or one rank's output."""
    directory = existing_run(run)
    sys.stdout.writelines(event_lines(directory) if rank is None else output_of(directory, rank))
