"""`sdnet train`: training on one device, with its checkpoints in a folder."""

import contextlib
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from sdnet.cli.messages import accuracy_line, epoch_line
from sdnet.config import Recipe
from sdnet.data.augment import check_patches
from sdnet.data.sampler import steps_per_epoch
from sdnet.data.store import PatchFile
from sdnet.errors import InputError, one_line
from sdnet.files import alone_in, made_folder, read_json
from sdnet.parameters.checkpoint import CorruptCheckpoint, read, read_state
from sdnet.parameters.newest import NAME, STATE, newest_checkpoint
from sdnet.parameters.published import write_published
from sdnet.parameters.weights import State
from sdnet.preparation.copies import notes_on_useless_pairs, useless_pairs
from sdnet.training.loop import EpochReport, train_epochs
from sdnet.training.trainer import Trainer

# `sdnet-orchestrate status` calls an owner silent after the same time.
_SILENT_AFTER_S, _LOOK_EVERY_S = 6.0, 0.2


def train_in_folder(
    out: Path,
    recipe: Recipe,
    train: PatchFile,
    test: PatchFile,
    *,
    data: Mapping[str, str],
    evaluate_batch: int,
) -> None:
    """Train to the end of the recipe, and resume from the newest checkpoint of an earlier call.

    Each epoch writes `checkpoints/step_<step>/`, as a training group does, and `checkpoint_SDNet_<epoch>.ckpt`
    in the published format.
    data: see `Trainer`.
    Raises InputError, NonFiniteLoss, OSError.
    """
    _refuse_checkpoints(out)
    if not out.exists():  # a refusal must leave no empty folder
        steps_per_epoch(len(train), recipe.batch)
        check_patches(recipe, train)
    with made_folder(out / "checkpoints"), alone_in(out / "checkpoints"):
        # A launch takes its lease before it looks for our lock, so of two that begin together one sees the other.
        _refuse_run_of_a_launch(out)
        newest = newest_checkpoint(out)
        if newest is None:
            _refuse_lost(out)
        else:
            _refuse_renamed(newest)
        trainer = Trainer(recipe, train, data=data)
        rates = {} if newest is None else _resume(trainer, newest)
        if newest is not None:
            _publish_missing(out, trainer, newest)
        try:
            if trainer.progress.step == trainer.total_steps:
                print(f"all {recipe.epochs} epochs are done; nothing is left to train")
            else:  # the last refusal, then the notes: a refusal prints one line only
                for note in notes_on_useless_pairs(useless_pairs(train, test), len(test)):
                    print(f"note: {note}", file=sys.stderr)
            train_epochs(trainer, test, FolderHooks(out), evaluate_batch=evaluate_batch, rates=rates)
        finally:
            trainer.close()


def _refuse_checkpoints(out: Path) -> None:
    """Raise InputError for a checkpoint, or a folder of checkpoints, instead of the folder of a run.

    Training there would begin at step 1.
    """
    checkpoints = out.absolute().parent if (out / STATE).exists() else out.absolute()
    if any(NAME.fullmatch(path.parent.name) for path in checkpoints.glob(f"*/{STATE}")):
        raise InputError(
            f"{out} is inside the checkpoints of a run; give --out {checkpoints.parent} to resume that run"
        )


def _refuse_run_of_a_launch(out: Path) -> None:
    """Raise InputError while `sdnet-orchestrate launch` works in this folder, on any host.

    It renews `lease/<number>.heartbeat` every 2 s until it ends. A killed launch renews it no more.
    """
    leases = [path for path in (out / "lease").glob("*") if path.name.isdecimal()]
    if not leases:
        return
    lease = max(leases, key=lambda path: int(path.name))
    heartbeat = lease.with_name(f"{lease.name}.heartbeat")
    before, deadline = _content(heartbeat), time.monotonic() + _SILENT_AFTER_S
    while before.get("ended") is False and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)  # a file on a network file system sends no event
        now = _content(heartbeat)
        if now and now != before:
            owner = _content(lease)
            raise InputError(
                f"{out} is being run by a launch (process {owner.get('pid')} on {owner.get('host')}); "
                "stop it first, or give another --out"
            )


def _content(path: Path) -> dict[str, object]:
    """A JSON object of a file; empty if there is none."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _resume(trainer: Trainer, newest: Path) -> dict[str, float]:
    """Restore a checkpoint; returns its metrics."""
    try:
        rates = trainer.restore(newest).metrics
    except CorruptCheckpoint as error:
        problem = str(error).rpartition("; ")[0]
        raise InputError(f"{problem}; move {newest} away to resume from the checkpoint before it") from None
    print(f"resumed from {one_line(str(newest))}")
    return rates


def _publish_missing(out: Path, trainer: Trainer, newest: Path) -> None:
    """Write the published file of a checkpoint at the end of an epoch, if a killed process did not get so far."""
    progress = trainer.progress
    if progress.epoch and progress.step == progress.epoch * trainer.steps_per_epoch:
        published = _published(out, progress.epoch)
        if not published.exists():
            _publish(published, read(newest).model)


def _published(out: Path, epoch: int) -> Path:
    return out / f"checkpoint_SDNet_{epoch}.ckpt"


def _publish(published: Path, model: State) -> None:
    sha256 = write_published(published, model)
    print(f"wrote {one_line(str(published))} (SHA-256 {sha256})", flush=True)


def _refuse_lost(out: Path) -> None:
    """Raise InputError when an earlier run left files here, but no checkpoint to resume from."""
    left = sorted([*out.glob("checkpoint_SDNet_*.ckpt"), *(out / "checkpoints").glob("step_*/corrupt")])
    if left:
        raise InputError(
            f"{left[-1]} is of an earlier run, and there is no checkpoint left to resume from; "
            "put one back, or give another --out to train from step 1"
        )


def _refuse_renamed(newest: Path) -> None:
    """Raise InputError when a checkpoint is the newest one by its name alone."""
    named = NAME.fullmatch(newest.name)
    try:
        step = read_state(newest).step
    except CorruptCheckpoint:
        return  # `_resume` says what is wrong
    if named and int(named[1]) != step:
        raise InputError(f"{newest} holds step {step}; rename it back, or move it away")


class FolderHooks:
    """Prints the lines of the published code, and saves each epoch in a folder."""

    def __init__(self, out: Path):
        self._out = out

    def stepped(self, trainer: Trainer) -> None:
        """See `sdnet.training.loop.Hooks`."""

    def evaluating(self, epoch: int) -> AbstractContextManager[None]:
        """See `sdnet.training.loop.Hooks`."""
        return contextlib.nullcontext()

    def epoch_finished(self, trainer: Trainer, report: EpochReport) -> None:
        """See `sdnet.training.loop.Hooks`."""
        total = report.losses["total"]
        print(epoch_line(report.epoch, trainer.recipe.epochs, report.seconds, report.steps, total, report.lr))
        print(accuracy_line(report.rates["fpr95"], report.rates["accuracy"]), flush=True)
        snapshot = trainer.snapshot(report.rates)
        snapshot.write(self._out / "checkpoints" / f"step_{report.step:08d}")
        _publish(_published(self._out, report.epoch), snapshot.model)
