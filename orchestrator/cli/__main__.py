"""`python -m orchestrator.cli` is `sdnet-orchestrate`."""

from orchestrator.cli.program import main

main()
