"""`sdnet-orchestrate`: combines the commands, and ends each with an exit code.

Heavy modules (Ray, MindSpore) are imported inside the commands that need them, so that `plan`, `status` and `--help`
answer at once.
"""

import sys

import typer

from orchestrator.cli.commands.check import check
from orchestrator.cli.commands.demo import demo
from orchestrator.cli.commands.drill import drill
from orchestrator.cli.commands.evaluate import evaluate
from orchestrator.cli.commands.export import export
from orchestrator.cli.commands.launch import launch
from orchestrator.cli.commands.logs import logs
from orchestrator.cli.commands.plan import plan
from orchestrator.cli.commands.preprocess import preprocess
from orchestrator.cli.commands.rank_table import rank_table_app
from orchestrator.cli.commands.register import register
from orchestrator.cli.commands.status import status
from orchestrator.cli.endings import EXIT_CODES, Commands, run_to_exit_code
from orchestrator.ray_cluster.environment import prepare_environment
from sdnet.cli.command_line import ignore_unusable_width, print_any_text

app = typer.Typer(
    name="sdnet-orchestrate",
    cls=Commands,
    help="Train SDNet on a cluster, through whatever fails, from one file and one command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=EXIT_CODES,
)
CHECKPOINT = "--checkpoint runs/demo/checkpoints/step_00000060"
REGISTER_EPILOG = (
    "Example: sdnet-orchestrate register pairs.csv -o registered --workers 4. "
    "Exit code 3: at least one pair could not be used, or its match cannot be trusted."
)

# In the order of `--help`.
app.command(epilog="Example: sdnet-orchestrate check cluster_configs/ascend-1x8.yaml")(check)
app.command(
    epilog="Example: sdnet-orchestrate drill cluster.yaml --faults kill-rank,freeze --seed 7 --count 4"
)(drill)
app.command(epilog=REGISTER_EPILOG)(register)
app.command(epilog="Example: sdnet-orchestrate launch cluster.yaml --set train.epochs=5")(launch)
app.command(epilog="Example: sdnet-orchestrate demo --storage /tmp/runs")(demo)
app.command(epilog="Example: sdnet-orchestrate plan cluster_configs/ascend-4x8.yaml --json")(plan)
app.command(epilog="Example: sdnet-orchestrate preprocess cluster.yaml")(preprocess)
app.command(epilog=f"Example: sdnet-orchestrate evaluate {CHECKPOINT} --data runs/demo/data/test.npz")(
    evaluate
)
app.command(epilog=f"Example: sdnet-orchestrate export {CHECKPOINT} --out sdnet.mindir")(export)
app.command(epilog="Example: sdnet-orchestrate status runs/s1s2")(status)
app.command(epilog="Example: sdnet-orchestrate logs runs/s1s2 --rank 1")(logs)
app.add_typer(rank_table_app, name="rank-table")


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2, never a traceback."""
    prepare_environment()
    print_any_text(sys.stdout, sys.stderr)
    ignore_unusable_width()
    sys.exit(run_to_exit_code(app))
