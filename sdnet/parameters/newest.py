"""The checkpoints in the folder of a run, of `sdnet train` or of a training group."""

import re
from contextlib import suppress
from pathlib import Path

STATE = "state.json"
NAME = re.compile(r"step_(\d{8,})(?:\.(\d+))?")
_EPOCH = re.compile(r"epoch_\d+")


def newest_checkpoint(out: Path) -> Path | None:
    """The newest checkpoint of this run; None when there is none.

    out: the `--out` of `sdnet train`, or the folder of a training group's run.
    Ignores other names, such as those of copies, checkpoints that a group has marked with a file `corrupt`, and
    folders without `state.json`, which a killed process left.
    """
    found = newest_in(out / "checkpoints")
    if found is not None:
        return found
    # Earlier versions named the folders after epochs.
    epochs = {int(path.name[6:]): path for path in out.glob("epoch_*") if _EPOCH.fullmatch(path.name)}
    return epochs[max(epochs)] if epochs else None


def newest_anywhere_in(folder: Path) -> Path | None:
    """The newest checkpoint of this run, or directly in this folder, for a message; None if none can be listed."""
    with suppress(OSError):
        return newest_checkpoint(folder) or newest_in(folder)
    return None


def newest_in(checkpoints: Path) -> Path | None:
    """The newest checkpoint directly in this folder, which need not exist; see `newest_checkpoint`.

    Raises OSError for a folder that cannot be listed.
    """
    if not checkpoints.is_dir():
        return None
    found = {
        (int(match[1]), int(match[2] or 1)): path
        for path in checkpoints.iterdir()
        if (match := NAME.fullmatch(path.name))
        and (path / STATE).exists()
        and not (path / "corrupt").exists()
    }
    return found[max(found)] if found else None
