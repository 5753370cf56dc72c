"""Fits a transform to tie points or correlation surfaces, and decides whether to trust it."""
