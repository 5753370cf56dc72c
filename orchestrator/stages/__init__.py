"""The stages of a job, in order: each is idempotent and skips what is done."""
