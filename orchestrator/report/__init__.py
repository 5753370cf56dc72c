"""What the run directory tells people: summary, status, plots and html."""
