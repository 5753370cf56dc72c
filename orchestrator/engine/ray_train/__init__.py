"""The only door to Ray's private modules. `docs/ray_internals.md` lists each private name and why it is needed."""
