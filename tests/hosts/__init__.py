"""Hosts that are network namespaces, and the tests that need more than one host."""
