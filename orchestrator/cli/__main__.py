"""`python -m orchestrator.cli` is `sdnet-orchestrate`."""

from orchestrator.cli import main

main()
