"""The files of a registration: reads images and georeferences, and writes the results."""
