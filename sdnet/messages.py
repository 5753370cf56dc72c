"""What a run prints: the lines that users of the published scripts look for."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # both import MindSpore, which takes seconds
    from sdnet.export import Exported
    from sdnet.published import LoadedModel


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


def origin_line(model: "LoadedModel") -> str:
    """Which weights a result belongs to, so that it can be compared with somebody else's."""
    note = f"; {model.note}" if model.note else ""
    return f"weights SHA-256 {model.weights_sha256}, of {model.file} with SHA-256 {model.file_sha256}{note}"


def exported_line(out: Path, exported: "Exported") -> str:
    """What an export wrote, how exact it is, and which weights it holds."""
    return (
        f"wrote {out} (SHA-256 {exported.sha256}); its outputs differ from the checkpoint's by at most "
        f"{exported.difference:.1e}\n{origin_line(exported.model)}"
    )
