"""The learning rate over a run."""


def learning_rate(base: float, step: int, total_steps: int) -> float:
    """Linear decay from `base` at step 0 to 0 at `total_steps`; 0 after that.

    Source: the published recipe, `lr * (1 - samples seen / (samples * epochs))`. Our epochs
    are a whole number of global batches, so the fraction is step / total_steps.
    """
    return base * max(0.0, 1.0 - step / total_steps)
