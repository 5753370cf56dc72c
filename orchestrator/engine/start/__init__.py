"""How started workers become a group: rendezvous, environment, rank table. Runs in the controller."""
