"""`sdnet-orchestrate register`: many pairs, each as `sdnet register` does one."""

import json
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, ClusterAddress, cluster_of
from sdnet.cli.command_line import AdaptOption, MeasureOption, ModelOption, NetworkOption, SearchOption
from sdnet.cli.path_option import path_option
from sdnet.errors import one_line


def register(
    pairs: Annotated[
        Path,
        typer.Argument(
            help="A folder of pairs, or a CSV file with the columns optical and sar.", callback=path_option
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Gets a folder for each pair, and register.csv.", callback=path_option
        ),
    ],
    checkpoint: NetworkOption = None,
    model: ModelOption = "affine",
    search: SearchOption = "near",
    measure: MeasureOption = "cfog_mind",
    adapt: AdaptOption = False,
    workers: Annotated[int, typer.Option(min=1, help="How many workers a local Ray starts.")] = 1,
    address: ClusterAddress = "local",
    as_json: AsJson = False,
) -> None:
    """Register many pairs of images, each as `sdnet register` does, on the workers of a cluster."""
    from orchestrator.register.on_workers import TABLE, register_pairs, summary_of
    from sdnet.registration.command import config_of

    cluster = cluster_of("register", address, workers)
    config = config_of(model, search, measure, checkpoint is not None, adapt)
    counts = summary_of(register_pairs(pairs, out, config, checkpoint, cluster))
    if as_json:
        print(json.dumps(counts))
    else:
        said = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items())
        print(f"{said}; see {one_line(str(out / TABLE))}")
    if counts["not_trusted"] or counts["unusable"]:
        raise typer.Exit(3)
