"""`sdnet-orchestrate demo`: runs all stages with synthetic pairs on this machine."""

from typing import Annotated

import typer

from orchestrator.cli.commands.launch import launch_and_show
from orchestrator.cli.options import console
from orchestrator.job.run_directory import RunDirectory


def demo(storage: Annotated[str, typer.Option(help="Where the run is kept.")] = "./runs") -> None:
    """Make synthetic pairs, train SDNet on two ranks of this machine, and compare with raw pixels."""
    from orchestrator.job.demo import demo_spec, raw_pixel_rate

    spec = demo_spec(storage)
    summary = launch_and_show(spec)
    raw = raw_pixel_rate(RunDirectory.of(spec.storage, spec.name))
    console.print(
        f"FPR95 of raw-pixel distance on the same pairs: {raw:.4f}; of SDNet: {summary['fpr95']:.4f}"
    )
