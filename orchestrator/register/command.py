"""`sdnet-orchestrate register`: many pairs, each as `sdnet register` does one."""

import json
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.register.pairs import list_pairs
from orchestrator.spec import spec_from_dict
from sdnet.paths import path_option

EPILOG = (
    "Example: sdnet-orchestrate register pairs.csv -o registered --workers 4. "
    "Exit code 3: at least one pair could not be used, or its match cannot be trusted."
)


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
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A network that helps; left out, hand-made templates do it alone.", callback=path_option
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Of the transform: translation, affine, homography or piecewise.")
    ] = "affine",
    search: Annotated[
        str, typer.Option(help="near: shifts to 72 px; wide: shifts to 200 px and any rotation.")
    ] = "near",
    measure: Annotated[
        str, typer.Option(help="Of the templates: cfog_mind, cfog, mind, log_gabor or phase_congruency.")
    ] = "cfog_mind",
    workers: Annotated[int, typer.Option(min=1, help="How many workers a local Ray starts.")] = 1,
    address: Annotated[str, typer.Option(help="local, auto or host:port, as cluster.address.")] = "local",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Register many pairs of images, each as `sdnet register` does, on the workers of a cluster."""
    from orchestrator.stages.register import TABLE, register_pairs, summary_of
    from sdnet.registration.command import config_of

    cluster = spec_from_dict(
        {"name": "register", "cluster": {"address": address, "workers": workers}}, "register"
    ).cluster
    config = config_of(model, search, measure, checkpoint is not None)
    counts = summary_of(register_pairs(list_pairs(pairs), out, config, checkpoint, cluster))
    if as_json:
        print(json.dumps(counts))
    else:
        said = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items())
        print(f"{said}; see {out / TABLE}")
    if counts["not_trusted"] or counts["unusable"]:
        raise typer.Exit(3)
