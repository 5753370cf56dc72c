"""From patches on disk to batches: reads `.npz` files in place, draws samples, and gathers them."""
