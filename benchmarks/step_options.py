"""The options of the programs that measure a training step."""

import argparse


def read_options(description: str | None, rounds: str) -> argparse.Namespace:
    """The options batch, rounds and json. rounds: the help of `--rounds`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=100, help="pairs per step")
    parser.add_argument("--rounds", type=int, default=5, help=rounds)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser.parse_args()
