"""The stages of a job: preprocess, train, evaluate. Each can run again, and skips what is already done."""
