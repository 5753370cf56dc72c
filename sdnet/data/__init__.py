"""From image pairs to batches: finds pairs, cuts patches, stores them, and gathers batches."""
