"""Asks every host what a job needs to know about it, and reports what would stop the job before it starts."""
