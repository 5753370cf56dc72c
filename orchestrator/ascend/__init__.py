"""What is particular to Ascend hosts: their devices, rank tables, environment and placement."""
