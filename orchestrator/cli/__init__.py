"""The command line `sdnet-orchestrate`: `program.py` combines the commands, `commands/` has a file for each."""

from sdnet.interruption import hold_signals


def main() -> None:
    """Run the command line. An interrupted import is a traceback, so signals wait until all modules are there."""
    hold_signals()
    from orchestrator.cli.program import main as run

    run()
