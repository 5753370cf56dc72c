"""From the text of a job file to a checked `JobSpec`: reads YAML strictly and names every fault by its path."""
