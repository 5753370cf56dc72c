"""One file per command of `sdnet-orchestrate`. Options that several commands share are in `cli/options.py`."""
