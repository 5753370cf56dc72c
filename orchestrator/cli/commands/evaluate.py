"""`sdnet-orchestrate evaluate`: measure a checkpoint on a test set."""

import json
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, CheckpointPath, ClusterAddress, cluster_of
from sdnet.cli.command_line import AdaptOption
from sdnet.cli.path_option import path_option
from sdnet.config import MOST_BATCH
from sdnet.files import refuse_replaced_input


def evaluate(
    checkpoint: CheckpointPath,
    data: Annotated[
        Path, typer.Option(help="A test.npz with matches and non-matches.", callback=path_option)
    ],
    workers: Annotated[int, typer.Option(min=1, help="Ranks that share the work.")] = 1,
    address: ClusterAddress = "local",
    batch: Annotated[
        int, typer.Option(min=1, max=MOST_BATCH, help="Pairs that go through the network at once.")
    ] = 600,
    distances: Annotated[
        Path | None,
        typer.Option(help="Write one distance a pair, in the file's order (.npy).", callback=path_option),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(help="A train.npz, from which the threshold of a match is taken.", callback=path_option),
    ] = None,
    adapt: AdaptOption = False,
    as_json: AsJson = False,
) -> None:
    """Measure a checkpoint, also scene by scene; the same to the last bit for any number of workers."""
    from orchestrator.job.stages.evaluate import evaluate_checkpoint
    from sdnet.cli.messages import assessment_lines

    if distances is not None:
        refuse_replaced_input(distances, checkpoint, data, *(() if train is None else (train,)))
    cluster = cluster_of("evaluate", address, workers)
    found = evaluate_checkpoint(
        checkpoint, data, cluster=cluster, batch=batch, distances_path=distances, train=train, adapt=adapt
    )
    if as_json:
        print(json.dumps(found))
    else:
        print("\n".join(assessment_lines(found)))
        print(f"weights SHA-256 {found['weights_sha256']}\nfile SHA-256    {found['checkpoint_sha256']}")
        if found["note"]:
            print(f"note: {found['note']}")
