"""`sdnet-orchestrate launch`: run a job to its end, and show what happens."""

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.ascend.rank_table.table import read_rank_table
from orchestrator.cli.endings import tell
from orchestrator.cli.options import Overrides, console
from orchestrator.job.new_run import check_new_run, no_folder_if_refused, read_job
from orchestrator.job.restart import begin_again
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec, spec_from_dict
from orchestrator.job.spec.published import job_of_rank_table
from orchestrator.ray_cluster.session import refuse_storage_of_ray
from orchestrator.report import tables
from orchestrator.report.live import live_view
from sdnet.cli.interruption import exit_code_of
from sdnet.cli.path_option import path_option
from sdnet.errors import InputError


def launch(
    job: Annotated[
        Path | None, typer.Argument(metavar="[CLUSTER_YAML]", help="The job.", callback=path_option)
    ] = None,
    set_: Overrides = None,
    rank_table: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a job: a rank table, as the published run_train.sh took.", callback=path_option
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="With --rank-table: the folder of the data.", callback=path_option)
    ] = None,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="Begin again at step 1; what earlier launches left is moved to RUN/before_restart.<n>.",
        ),
    ] = False,
) -> None:
    """Run the job to its end. Launched again, resume where it stopped."""
    if job is not None and rank_table is None and data is None:
        launch_and_show(read_job(job, tuple(set_ or ())), restart)
    elif job is None and rank_table is not None and data is not None:
        raw = job_of_rank_table(read_rank_table(rank_table), data)
        launch_and_show(spec_from_dict(raw, str(rank_table), tuple(set_ or ())), restart)
    else:
        raise InputError("launch takes a cluster.yaml, or --rank-table FILE and --data FOLDER together")


def launch_and_show(spec: JobSpec, restart: bool = False) -> dict[str, Any]:
    """Run a job with a live view, print its summary, and return it. An interruption ends the command in one line."""
    from orchestrator.job.launch import launch as run_job

    refuse_storage_of_ray(spec.storage)
    check_new_run(spec)
    run = RunDirectory.of(spec.storage, spec.name)
    try:
        with no_folder_if_refused(run):
            if restart:
                moved_to = begin_again(run)
                console.print(
                    f"moved the earlier run to {moved_to}" if moved_to else "there is no earlier run"
                )
            run.create()
            with live_view(run.storage, console):
                result = run_job(spec)
    except KeyboardInterrupt as interruption:
        tell("interrupted; launch again to resume from the last checkpoint")
        raise typer.Exit(exit_code_of(interruption)) from None
    if result.already_done:
        console.print(f"{run.root} is finished; nothing to do")
    tables.print_summary(console, result.summary)
    return result.summary
