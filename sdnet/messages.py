"""What a run prints: the lines that users of the published scripts look for."""


def epoch_line(epoch: int, epochs: int, seconds: float, steps: int, loss: float, learning_rate: float) -> str:
    """One finished epoch, counted from 1: seconds of wall time, steps done in it, mean total loss."""
    per_step_ms = 1000 * seconds / max(steps, 1)
    return (
        f"epoch: [{epoch:3d}/{epochs:3d}], epoch time: {seconds:.3f} s, steps: {steps:5d}, "
        f"per step time: {per_step_ms:.3f} ms, avg loss: {loss:.6f}, lr:[{learning_rate:.8f}]"
    )


def accuracy_line(fpr95: float, accuracy: float) -> str:
    """The rates of one evaluation, each from 0 to 1."""
    return f"Accuracy(FPR95): {fpr95:.8f}  Acc:{accuracy:.8f}"
