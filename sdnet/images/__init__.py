"""Reads image files: what a header announces, and the same 8-bit grey pixels on every host."""
