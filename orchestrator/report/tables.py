"""Tables for people: a plan, a run's status, a summary."""

from rich.console import Console
from rich.table import Table

from orchestrator.job.plan import Plan

_RANKS_SHOWN = 16


def print_summary(console: Console, summary: dict[str, object]) -> None:
    """The summary of a run: one row for each figure."""
    table = Table(title=f"{summary['name']}: {summary['status']}", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a checksum that is cut off cannot be compared
    for key, value in summary.items():
        if key not in ("name", "status", "versions"):
            table.add_row(key, _text(value))
    console.print(table)


def print_status(console: Console, status: dict[str, object]) -> None:
    """The state of a run: one row for each figure."""
    table = Table(title=f"{status['name']}: {status['state']}", show_header=False)
    for key, value in status.items():
        if key not in ("name", "state"):
            table.add_row(key.replace("_", " "), _text(value))
    console.print(table)


def print_plan(console: Console, plan: Plan) -> None:
    """Stages, ranks by host, one rank's environment, shards, and what the job will need."""
    stages = Table("stage", "what it does", title=f"{plan.name} in {plan.run_directory}")
    for stage in plan.stages:
        stages.add_row(stage.name, stage.work)
    console.print(stages)
    ranks = Table("rank", "host", "local rank", "device", title=f"{len(plan.ranks)} rank(s)")
    for rank in plan.ranks[:_RANKS_SHOWN]:
        ranks.add_row(str(rank.rank), rank.host, str(rank.local_rank), rank.device)
    if len(plan.ranks) > _RANKS_SHOWN:
        ranks.add_row("...", f"{len(plan.ranks) - _RANKS_SHOWN} more; --json has all", "", "")
    console.print(ranks)
    environment = Table("variable", "value", title="environment of rank 0")
    for name, value in plan.ranks[0].environment.items():
        environment.add_row(name, value)
    console.print(environment)
    needs = Table("need", "amount", title="needs, estimated")
    for name, amount in plan.needs.items():
        needs.add_row(name.replace("_", " "), _text(amount))
    console.print(needs)
    for note in plan.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    if plan.problem:
        console.print(f"launch would refuse this: {plan.problem}", markup=False, highlight=False)
    if plan.warning:
        console.print(f"warning: {plan.warning}", markup=False, highlight=False)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else str(value)
