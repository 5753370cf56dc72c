"""Runs any MindSpore training function and recovers from failures of ranks, devices, hosts and storage.

`trainer.py` is the entry. `control/` makes the decisions. `ray_train/` is the only code that uses Ray Train's
internals. `rank/` runs in each rank's process, `host/` once on each host. Nothing here knows SDNet or its job.
"""
