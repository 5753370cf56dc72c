"""`sdnet-orchestrate drill`: rehearse failures with the user's own job, and report their cost."""

import json
import sys
from contextlib import nullcontext
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from orchestrator.cli.options import AsJson, JobFile, Overrides
from orchestrator.cli.terminal import plain_console, wide_console
from orchestrator.drill.faults import Fault, parse_faults, reasons_against
from orchestrator.drill.hosts import hosts_of
from orchestrator.drill.rehearsal import Rehearsal, run_directories
from orchestrator.job.new_run import read_job, refuse_misplaced
from orchestrator.job.spec.job_spec import JobSpec
from orchestrator.ray_cluster.session import refuse_storage_of_ray
from orchestrator.report.live import live_view
from sdnet.cli.interruption import exit_code_of
from sdnet.errors import InputError

# Each fault takes seconds to minutes, so a larger number is a typing error.
_MOST_FAULTS = 1000


def drill(
    job: JobFile,
    faults: Annotated[
        str | None,
        typer.Option(
            help=f"Of {', '.join(Fault)}, separated by commas. Default: all that the cluster can show."
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="How many faults to make.")] = 10,
    seed: Annotated[
        int, typer.Option(help="Decides the order of faults, the ranks, and how files are damaged.")
    ] = 0,
    set_: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run the job twice, the second time with deliberate faults, and compare the results.

    The runs are <storage>/<name>-drill-clean and <name>-drill; drill.json in the second one is
    the report. Exit code 0 when every fault happened, the run ended with the same bytes, and every
    host is back in the cluster.
    """
    if not 1 <= count <= _MOST_FAULTS:
        raise InputError(f"--count is {count}; give a number from 1 to {_MOST_FAULTS}")
    wanted = None if faults is None else parse_faults(faults)
    spec = read_job(job, tuple(set_ or ()))
    refuse_storage_of_ray(spec.storage)
    for run in run_directories(spec):  # an earlier drill is refused before anything starts
        refuse_misplaced(spec, run)
    console = plain_console(stderr=True)
    show = (lambda storage: nullcontext()) if as_json else partial(live_view, console=console)
    try:
        with hosts_of(spec.cluster) as hosts:
            rehearsal = Rehearsal(spec, hosts, show)
            result = rehearsal.run(_possible(wanted, spec, rehearsal.spare_hosts), count, seed)
    except KeyboardInterrupt as interruption:
        print("sdnet-orchestrate: the drill was interrupted and its run stopped", file=sys.stderr)
        raise typer.Exit(exit_code_of(interruption)) from None
    if as_json:
        print(json.dumps(result))
    else:
        print_drill(wide_console(), result)
    survived = result["status"] == "succeeded" and result["same_bytes"] and result["injected"] == count
    if not survived or result["missing_hosts"]:
        raise typer.Exit(1)


def print_drill(console: Console, result: dict[str, Any]) -> None:
    """Print a row for each fault, and the result."""
    same = "the same bytes" if result["same_bytes"] else "OTHER bytes"
    title = f"{result['name']}: {result['status']}, {same}, goodput {result['goodput']}"
    table = Table("", "fault", "rank", "host", "step", "named", "seconds lost", "proof", title=title)
    for fault in result["faults"]:
        shown = ("number", "fault", "rank", "host", "step", "named", "seconds_lost", "proof")
        table.add_row(*("-" if fault[key] is None else str(fault[key]) for key in shown))
    console.print(table)
    if result["missing_hosts"]:
        hosts = ", ".join(result["missing_hosts"])
        console.print(f"not in the Ray cluster any more: {hosts}; read raylet.out in Ray's logs on each")


def _possible(
    wanted: tuple[Fault, ...] | None, spec: JobSpec, spare_hosts: dict[str, str]
) -> tuple[Fault, ...]:
    """The wanted faults that this cluster can show. Prints one line about the others."""
    reasons = reasons_against(
        local=spec.cluster.address == "local", keep=spec.checkpoint.keep, spare_hosts=spare_hosts
    )
    asked = tuple(Fault) if wanted is None else wanted
    left_out = "; ".join(f"{fault}: {reasons[fault]}" for fault in asked if fault in reasons)
    possible = tuple(fault for fault in asked if fault not in reasons)
    if not possible:
        raise InputError(f"none of the faults can be shown here ({left_out}); name others in --faults")
    if left_out and wanted is not None:
        print(f"sdnet-orchestrate: left out: {left_out}", file=sys.stderr)
    return possible
