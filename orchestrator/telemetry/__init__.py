"""What happened in a run (typed events), and the current state of the run."""
