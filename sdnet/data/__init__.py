"""From image pairs to batches: finds pairs, cuts and stores patches, and gathers batches."""
