"""Code for Ascend hosts only: devices, rank tables, environment, placement. Uses neither Ray nor MindSpore.

`inventory/` reads the devices of a host, `placement.py` chooses devices for ranks, `rank_table/` writes and validates
HCCL rank tables, `environment.py` builds the variables of a rank, and `group.py` combines these.
"""
