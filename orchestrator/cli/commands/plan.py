"""`sdnet-orchestrate plan`: print what a launch would do."""

import json

from orchestrator.cli.options import AsJson, JobFile, Overrides, console
from orchestrator.job.new_run import read_job
from orchestrator.report import tables


def plan(job: JobFile, set_: Overrides = None, as_json: AsJson = False) -> None:
    """Print what `launch` would do, to the last environment variable, and touch nothing."""
    from orchestrator.job.plan import build_plan, plan_as_dict

    made = build_plan(read_job(job, tuple(set_ or ())))
    if as_json:
        print(json.dumps(plan_as_dict(made), indent=2))
    else:
        tables.print_plan(console, made)
