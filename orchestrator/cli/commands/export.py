"""`sdnet-orchestrate export`: write a checkpoint's network for use without this program."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.interruption import in_a_child
from orchestrator.cli.options import CheckpointPath
from sdnet.cli.command_line import refuse_what_mindspore_fails_on
from sdnet.cli.path_option import path_option


def export(
    checkpoint: CheckpointPath,
    out: Annotated[Path, typer.Option(help="The file to write.", callback=path_option)],
    format_: Annotated[str, typer.Option("--format", help="mindir, or air (on an Ascend host).")] = "mindir",
) -> None:
    """Write the network as MindIR and prove that the file computes the same."""

    def work() -> str:
        from sdnet.cli.messages import exported_line
        from sdnet.export import export_checkpoint

        return exported_line(out, export_checkpoint(checkpoint, out, format_))

    refuse_what_mindspore_fails_on()
    print(in_a_child(work))
