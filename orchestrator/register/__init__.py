"""Registers many pairs of images: the list of pairs, and the work on the workers of a cluster."""
