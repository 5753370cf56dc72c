"""Rehearses failures: runs a job once without and once with deliberate faults, and compares the results."""
