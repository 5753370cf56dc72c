"""Rehearses failures: runs a job twice, once undisturbed and once with deliberate faults, and compares the results."""
