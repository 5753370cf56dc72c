"""How a command reaches a Ray cluster: starts one on this host, or joins a running one, with token authentication."""
