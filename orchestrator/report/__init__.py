"""What people read about a run: live view, lines, status, summary, report."""
