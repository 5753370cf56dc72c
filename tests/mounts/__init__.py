"""Tests on real network mounts: two sshfs mounts of one directory, through a private server."""
