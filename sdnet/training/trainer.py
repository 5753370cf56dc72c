"""The training of one rank: steps, progress, snapshots; and where an interrupted run resumes.

Communication among ranks (`mindspore.communication.init`) is set up by the caller before a
Trainer with world_size above 1 is made; with one rank there is none.
"""

import statistics
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sdnet.config import Recipe, changed_setting
from sdnet.data.augment import VIEW, Views, Where, changes_patches, check_patches
from sdnet.data.checksums import data_mismatch
from sdnet.data.pipeline import Prefetcher
from sdnet.data.sampler import epoch_order, in_scene_runs, slice_indices, slices_of_rank, steps_per_epoch
from sdnet.data.store import PatchFile
from sdnet.errors import InputError, NonFiniteLoss
from sdnet.evaluation.evaluate import Evaluation, gather
from sdnet.evaluation.statistics import Weights, of_pairs
from sdnet.network.model import SDNet
from sdnet.parameters import checkpoint, weights
from sdnet.parameters.checkpoint import CheckpointState, Snapshot
from sdnet.training.schedule import learning_rate
from sdnet.training.train_step import TrainStep

__all__ = ["Progress", "Snapshot", "Trainer"]

# Own work is measured only at every n-th step, because the device must be idle before and after.
_MEASURE_EVERY = 8
_ELSEWHERE = "begin another run (sdnet train: another --out; launch: another `name`)"
_FEWEST_MEASURED, _MOST_MEASURED = 3, 5


@dataclass(frozen=True, slots=True)
class Progress:
    """What is done: whole epochs, global steps, and samples seen in them (wrapped ones count)."""

    epoch: int
    step: int
    samples: int


class Trainer:
    """Trains SDNet on one of `world_size` ranks that all do the same at the same time.

    A global step takes `slices` slices of recipe.batch samples; `slices` is the job's full
    number of ranks and stays when fewer are left. With recipe.slice_batch, each is cut into smaller
    slices of so many samples. Samples, views, dropout and schedule depend on the global step alone,
    so any number of ranks trains the same model, up to rounding, and the same number of
    ranks gives the same bytes.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: PatchFile,
        *,
        rank: int = 0,
        world_size: int = 1,
        slices: int | None = None,
        data: Mapping[str, str] | None = None,
    ):
        """data: SHA-256 of the files of the data by name; each checkpoint keeps them and goes with them.

        Raises InputError when one global batch is above the data.
        """
        self.recipe, self.world_size = recipe, world_size
        self.slices = slices if slices is not None else world_size
        if not 0 <= rank < world_size <= self.slices:
            raise InputError(
                f"rank {rank} of {world_size} cannot train {self.slices} slices; use fewer ranks"
            )
        self._train, self._rank, self._data = train, rank, dict(data or {})
        self._part = recipe.slice_batch or recipe.batch
        self._parts = self.slices * (recipe.batch // self._part)
        self.steps_per_epoch = steps_per_epoch(len(train), recipe.batch * self.slices)
        self.total_steps = self.steps_per_epoch * recipe.epochs
        self._mine = slices_of_rank(rank, world_size, self._parts)
        net = SDNet(recipe, training=True)
        weights.load(net, weights.initial(net, recipe.seed))
        self._step = TrainStep(net, recipe, self._part, self._parts, world_size)
        check_patches(recipe, train)
        self._views: Views | None = None
        if changes_patches(recipe) or train.images.shape[1] != VIEW:
            self._views = Views(recipe, train)
        self._evaluation: Evaluation | None = None
        self._statistics: weights.State = {}
        self._done = 0
        # Each process synchronises the ranks once, also after a restore, so that every process of a run
        # compiles the same graphs in the same order. MindSpore finds cached graphs by their number.
        self._level = False
        self._measured_s: deque[float] = deque(maxlen=_MOST_MEASURED)
        self._feed: tuple[Prefetcher, Iterator[np.ndarray]] | None = None

    @property
    def progress(self) -> Progress:
        """How far training is."""
        samples = self._done * self.recipe.batch * self.slices
        return Progress(self._done // self.steps_per_epoch, self._done, samples)

    @property
    def learning_rate(self) -> float:
        """The rate of the last step done; before the first, that of the first."""
        return learning_rate(self.recipe.lr, max(self._done - 1, 0), self.total_steps)

    @property
    def work_s(self) -> float | None:
        """Seconds that this rank lately needed for a slice, its batch included, and not the other ranks.

        A median, so that one hiccup does not count; None until there are enough to tell.
        """
        return statistics.median(self._measured_s) if len(self._measured_s) >= _FEWEST_MEASURED else None

    def step(self) -> None:
        """Do one global step, together with all other ranks; returns before the device is done with it.

        Raises InputError when the training file was changed in place: no rank then finishes the step.
        """
        assert self._done < self.total_steps, "training is over"
        if not self._level and self.world_size > 1:
            weights.take_from_rank_zero(self._step.net)
        self._level = True
        if self._feed is None:
            self._feed = self._start_feed()
        if self._done % self.steps_per_epoch == 0:
            self._step.set_losses(np.zeros(len(self._step.loss_names), np.float32))
        self._add_slices(self._feed[1])
        self._train.refuse_changed(self._data.get("train.npz"))
        self._step.apply(self._done, learning_rate(self.recipe.lr, self._done, self.total_steps))
        self._done += 1
        if self._done == self.total_steps:
            self.close()

    def wait(self) -> None:
        """Return when the device is done with every step so far."""
        self._step.first_bad_step()

    def finish_epoch(self) -> dict[str, float]:
        """Mean of each named loss over the epoch that just ended, or over the current one so far.

        Equal on all ranks. Raises NonFiniteLoss, which names the first bad step.
        """
        self._check_finite()
        steps = (self._done - 1) % self.steps_per_epoch + 1
        sums = self._step.losses().astype(np.float64)
        return dict(zip(self._step.loss_names, (sums / steps).tolist(), strict=True))

    def snapshot(self, metrics: dict[str, float] | None = None) -> Snapshot:
        """Copy the state to the host; `metrics` are kept in its `state.json`.

        Raises NonFiniteLoss: weights that are not finite are never saved.
        """
        self._check_finite()
        progress = self.progress
        state = CheckpointState(
            epoch=progress.epoch,
            step=progress.step,
            samples=progress.samples,
            seed=self.recipe.seed,
            slices=self.slices,
            world_size=self.world_size,
            num_samples=len(self._train),
            recipe=asdict(self.recipe),
            losses=tuple(self._step.losses().tolist()),
            metrics=dict(metrics or {}),
            data=self._data,
        )
        return Snapshot(self._model(), self._step.optimizer_state(), state)

    def restore(self, directory: Path) -> CheckpointState:
        """Resume exactly where a checkpoint was taken, also in the middle of an epoch.

        Raises CorruptCheckpoint, or InputError when it belongs to another recipe, data or batch.
        """
        snapshot = checkpoint.read(directory)
        self.resume(snapshot, str(directory))
        return snapshot.state

    def resume(self, snapshot: Snapshot, place: str) -> None:
        """Resume exactly where a snapshot was taken. place: of its checkpoint, for messages.

        Raises InputError when it belongs to another recipe, data or batch.
        """
        state = snapshot.state
        self._check_same_run(place, state)
        if {name: value.shape for name, value in snapshot.model.items()} != weights.shapes(self._step.net):
            raise InputError(f"{place} holds the weights of another network; use another checkpoint")
        self._step.resume(snapshot.model, snapshot.optimizer)
        self._statistics = {}
        self._step.forget_bad_step()
        self._step.set_losses(np.array(state.losses, np.float32))
        self._done = state.step
        self.close()

    def distances(self, patches: PatchFile, batch: int) -> np.ndarray:
        """Distance of every pair of the file, float64 [N], the same bits on any number of ranks.

        Each rank embeds its share and one gather merges them: every rank must call it. Raises InputError when the
        file is the data's test.npz and was changed in place.
        """
        if self._evaluation is None:
            self._evaluation = Evaluation(self.recipe)
        self._evaluation.load(self._model())
        distances = gather(self._evaluation, patches, batch, self._rank, self.world_size)
        patches.refuse_changed(self._data.get("test.npz"))
        return distances

    def close(self) -> None:
        """Stop the thread that gathers batches; a later step starts another."""
        if self._feed is not None:
            self._feed[0].close()
            self._feed = None

    def _start_feed(self) -> tuple[Prefetcher, Iterator[np.ndarray]]:
        begin, views = self._done, self._views
        if views is None:
            prefetcher = Prefetcher(self._train.images, self._batches(begin))
            return prefetcher, iter(prefetcher)

        def fill(number: int, indices: np.ndarray, out: np.ndarray) -> None:
            step, slice_ = divmod(number, len(self._mine))
            views.fill(Where(begin + step, self._mine[slice_] * self._part), indices, out)

        shape = (VIEW, 2 * VIEW)
        prefetcher = Prefetcher(self._train.images, self._batches(begin), fill, shape)
        return prefetcher, iter(prefetcher)

    def _add_slices(self, batches: Iterator[np.ndarray]) -> None:
        """This rank's part of a step; at some steps measure the work that does not wait for other ranks."""
        measured = self._done % _MEASURE_EVERY == _MEASURE_EVERY - 1
        if self._step.needs_gather:
            # Copies, because a batch's memory is used again once the next one is asked for.
            pairs = {slice_: next(batches).copy() for slice_ in self._mine}
            self._step.gather(pairs, self._done)
            batches = iter(pairs.values())
        if measured:
            self.wait()
        began = time.perf_counter()
        for slice_ in self._mine:
            losses = self._step.add_slice(next(batches), self._done, slice_)
        if measured:
            losses.asnumpy()  # waits for the last slice
            self._measured_s.append((time.perf_counter() - began) / len(self._mine))

    def _batches(self, begin: int) -> Iterator[np.ndarray]:
        """Indices of this rank's slices, from global step `begin` to the end."""
        for done in range(begin, self.total_steps):
            epoch, step = divmod(done, self.steps_per_epoch)
            if step == 0 or done == begin:
                order = self._order(epoch)
            for slice_ in self._mine:
                yield slice_indices(
                    order,
                    batch=self._part,
                    slices=self._parts,
                    step=step,
                    slice_=slice_,
                )

    def _model(self) -> weights.State:
        """The weights of a checkpoint; at the end of training with statistics that are measured again."""
        model = self._step.model()
        if not self.recipe.measured_statistics or self._done < self.total_steps:
            return model
        if not self._statistics:
            self._statistics = of_pairs(Weights(self.recipe, model), self._train)
        return model | self._statistics

    def _order(self, epoch: int) -> np.ndarray:
        """The samples in the order of an epoch."""
        recipe, ground = self.recipe, self._train.ground
        if recipe.scene_run == 1:
            return epoch_order(len(self._train), recipe.seed, epoch)
        assert ground is not None, "check_patches refuses a file without it"
        return in_scene_runs(ground, recipe.scene_run, recipe.seed, epoch)

    def _check_finite(self) -> None:
        bad = self._step.first_bad_step()
        if bad is not None:
            raise NonFiniteLoss(bad)

    def _check_same_run(self, place: str, state: CheckpointState) -> None:
        # Data first: other files usually have another number of samples, and their names say more.
        mismatch = data_mismatch(state.data, self._data)
        if mismatch:
            raise InputError(
                f"{place} was trained with another {mismatch}; put the data back, or {_ELSEWHERE}"
            )
        changed = changed_setting(
            {**state.recipe, "slices": state.slices, "num_samples": state.num_samples},
            {**asdict(self.recipe), "slices": self.slices, "num_samples": len(self._train)},
        )
        if changed:
            raise InputError(f"{place} was trained with {changed}; use the same, or {_ELSEWHERE}")
