"""The entry of `sdnet` and of `python -m sdnet`."""

from sdnet.cli.interruption import end_at_once_on_signals, hold_signals


def main() -> None:
    """Run the command line. An interrupted import is a traceback, so signals wait until all modules are there."""
    hold_signals()
    from sdnet.cli.program import main as run

    try:
        run()
    finally:
        end_at_once_on_signals()


if __name__ == "__main__":
    main()
