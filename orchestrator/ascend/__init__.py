"""What is particular to Ascend hosts: devices, rank tables, environment, placement. Needs neither Ray nor MindSpore.

`inventory/` asks a host what it has, `placement.py` chooses the devices, `rank_table/` writes and judges HCCL rank
tables, `environment.py` builds the variables of a rank, and `group.py` puts these together.
"""
