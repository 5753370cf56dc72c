"""Registering many pairs of images: the command, and the list of pairs."""
