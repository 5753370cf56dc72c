"""The controller's decisions about one group of ranks. Plain objects with an injected clock; no Ray, no MindSpore."""
