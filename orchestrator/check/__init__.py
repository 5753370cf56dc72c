"""Collects facts about every host of a job, and reports problems before the job starts."""
