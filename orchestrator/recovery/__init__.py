"""What failed, and what to do about it."""
