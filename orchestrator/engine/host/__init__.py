"""What concerns one host: its processes, its logs, ending ranks there, and calling a function on every host."""
