"""Makes any MindSpore training function survive: ranks, devices, hosts and storage may fail.

`trainer.py` is the entry. `control/` decides, `ray_train/` is the door to Ray Train, `rank/` runs inside a rank's
process, `host/` runs once on a host. Nothing here knows SDNet or its job.
"""
