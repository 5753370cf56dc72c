"""The command line `sdnet-orchestrate`: `program.py` combines the commands, `commands/` has a file for each."""

from sdnet.cli.interruption import end_at_once_on_signals, hold_signals


def main() -> None:
    """Run the command line. A signal during an import would print a traceback, so signals wait for all imports."""
    hold_signals()
    from orchestrator.cli.program import main as run

    try:
        run()
    finally:
        end_at_once_on_signals()
