"""The command `sdnet`: its arguments, its output, and the signals that end it."""
