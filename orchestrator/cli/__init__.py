"""The command line `sdnet-orchestrate`: `program.py` combines the commands, `commands/` has a file for each."""

from orchestrator.cli.program import app, main

__all__ = ["app", "main"]
