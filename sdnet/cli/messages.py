"""Formats the output of a run, with the lines that users of the published scripts know."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdnet.errors import one_line

if TYPE_CHECKING:  # both import MindSpore, which takes seconds
    from sdnet.export import Exported
    from sdnet.parameters.published import LoadedModel

_COLUMNS = (("fpr95", 6), ("accuracy", 8), ("recall_at_1", 11))  # and their widths


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
    """The checksums of a result's weights, so that results can be compared."""
    note = f"; {model.note}" if model.note else ""
    file = one_line(str(model.file))
    return f"weights SHA-256 {model.weights_sha256}, of {file} with SHA-256 {model.file_sha256}{note}"


def exported_line(out: Path, exported: "Exported") -> str:
    """What an export wrote, how exact it is, and which weights it holds."""
    return (
        f"wrote {one_line(str(out))} (SHA-256 {exported.sha256}); its outputs differ from the checkpoint's by at most "
        f"{exported.difference:.1e}\n{origin_line(exported.model)}"
    )


def assessment_lines(found: dict[str, Any]) -> list[str]:
    """What `assessment.assess` found, as text: rates, then a table of seasons and scenes."""
    interval = "  interval {:.4f} to {:.4f}".format(*found["fpr95_interval"]) if "scenes" in found else ""
    lines = [
        f"FPR95 {found['fpr95']:.8f}  accuracy {found['accuracy']:.8f}  pairs {found['pairs']}{interval}"
    ]
    if found.get("statistics") == "images":
        lines.append("BatchNorm statistics are those of these images, not of the checkpoint")
    if "threshold" in found:
        lines.append(
            f"accuracy {found['accuracy_at_threshold']:.4f} when distances up to {found['threshold']:.4f}, "
            "the best of the training pairs, are called matches"
        )
    if "scenes" not in found:
        return lines
    lines.append(
        f"within a scene: recall at 1 {found['recall_at_1']:.4f}, mean average precision "
        f"{found['mean_average_precision']:.4f}"
    )
    hard = found["hard_negatives"]
    if hard is not None:
        rates = f"FPR95 {hard['fpr95']:.4f}, accuracy {hard['accuracy']:.4f}"
        lines.append(f"non-matches of the same scene: {rates}")
    named = (*found["seasons"].items(), *found["scenes"].items())
    rows = [(one_line(name), row) for name, row in named]  # of folders, which may have any name
    wide = max(len("season or scene"), *(len(name) for name, _ in rows))
    lines.append(f"{'season or scene':{wide}}  matches   FPR95  accuracy  recall at 1")
    for name, row in rows:
        rates = "  ".join(_cell(row[key], width) for key, width in _COLUMNS)
        lines.append(f"{name:{wide}}  {row['matches']:7d}  {rates}")
    return lines


def _cell(rate: float | None, width: int) -> str:
    return f"{'-' if rate is None else format(rate, '.4f'):>{width}}"
