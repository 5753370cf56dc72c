"""The processes and logs of one host, the end of ranks there, and calls of a function on every host."""
