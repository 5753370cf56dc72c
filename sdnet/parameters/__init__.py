"""The parameters of a network: as arrays, in checkpoints, and in files of other programs."""
