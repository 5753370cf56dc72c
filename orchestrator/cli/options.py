"""Arguments and options that several commands share, and the console that they print to."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.terminal import plain_console
from orchestrator.job.spec.job_spec import ClusterSpec, spec_from_dict
from sdnet.cli.path_option import path_option

console = plain_console()

JobFile = Annotated[
    Path,
    typer.Argument(
        metavar="CLUSTER_YAML", help="The job: see cluster_configs/ for examples.", callback=path_option
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key; the value is read as YAML. May be repeated."
    ),
]
RunPath = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run directory, <storage>/<name>.", callback=path_option)
]
CheckpointPath = Annotated[
    Path,
    typer.Option(help="A checkpoint directory, or a .ckpt file (published ones too).", callback=path_option),
]
ClusterAddress = Annotated[str, typer.Option(help="local, auto or host:port, as cluster.address.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def cluster_of(command: str, address: str, workers: int) -> ClusterSpec:
    """The cluster of a command without a job file. Raises InputError for values that a job file may not have."""
    return spec_from_dict(
        {"name": command, "cluster": {"address": address, "workers": workers}}, command
    ).cluster
