"""Training: losses, one step, the epochs of one rank, and the learning rate."""
