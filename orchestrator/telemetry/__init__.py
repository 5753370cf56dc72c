"""What happened in a run (typed events), and where the run stands (its state)."""
