"""What failed, what to do about it, and rehearsing it on purpose."""
