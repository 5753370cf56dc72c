"""`sdnet-orchestrate status`: the state of a job."""

import json

from orchestrator.cli.options import AsJson, RunPath, console
from orchestrator.report import tables
from orchestrator.report.reading import existing_run, reading


def status(run: RunPath, as_json: AsJson = False) -> None:
    """Show the state of a running or finished job."""
    from orchestrator.report.status import read_status

    directory = existing_run(run)
    with reading(directory):
        found = read_status(directory)
    if as_json:
        print(json.dumps(found))
    else:
        tables.print_status(console, found)
