"""Rehearses failure: a job run twice, once undisturbed and once with faults made on purpose."""
