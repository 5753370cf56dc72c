"""What runs once on a host, for all ranks there."""
