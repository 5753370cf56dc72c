"""The entry of `sdnet` and of `python -m sdnet`."""

from sdnet.cli.imports import leave_if_pythonpath_may_be_wrong, let_warnings_raise_nothing
from sdnet.cli.interruption import end_at_once_on_signals, hold_signals


def main() -> None:
    """Run the command line. An interrupted import is a traceback, so signals wait until all modules are there."""
    hold_signals()
    let_warnings_raise_nothing()
    try:
        from sdnet.cli.program import main as run

        run()
    except ImportError as error:
        leave_if_pythonpath_may_be_wrong("sdnet", error)
        raise
    finally:
        end_at_once_on_signals()


if __name__ == "__main__":
    main()
