"""The command line `sdnet-orchestrate`: `program.py` combines the commands, `commands/` has a file for each."""

from sdnet.cli.imports import leave_if_pythonpath_may_be_wrong, let_warnings_raise_nothing
from sdnet.cli.interruption import end_at_once_on_signals, hold_signals


def main() -> None:
    """Run the command line. A signal during an import would print a traceback, so signals wait for all imports."""
    hold_signals()
    let_warnings_raise_nothing()
    try:
        from orchestrator.cli.program import main as run

        run()
    except ImportError as error:
        leave_if_pythonpath_may_be_wrong("sdnet-orchestrate", error)
        raise
    finally:
        end_at_once_on_signals()
