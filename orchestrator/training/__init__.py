"""MindSpore under Ray Train: the backend, its scheduler process, and the loop of one rank."""
