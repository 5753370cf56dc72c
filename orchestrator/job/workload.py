"""SDNet as a user of the engine: its training function, and how its state becomes a checkpoint."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.engine.checkpoints import Encoded
from orchestrator.engine.control.failures import TrainingDiverged
from orchestrator.engine.function import compile_key, sources_of_package
from orchestrator.engine.session import Session, get_session
from orchestrator.engine.state_format import State
from orchestrator.errors import CorruptData, InputError
from orchestrator.storage import StorageUnavailable
from orchestrator.storage.host_cache import HostCache
from orchestrator.telemetry.events import Epoch, Evaluated, Evaluating
from sdnet.cli.messages import accuracy_line, epoch_line
from sdnet.config import Recipe
from sdnet.data.checksums import refuse_other_sample
from sdnet.data.store import PatchFile, open_patches, open_training_patches
from sdnet.errors import InputError as SdnetInputError
from sdnet.errors import NonFiniteLoss
from sdnet.parameters.checkpoint import CheckpointState, Snapshot
from sdnet.training.loop import EpochReport, train_epochs
from sdnet.training.trainer import Trainer

logger = logging.getLogger(__name__)

_MODEL, _OPTIMIZER, _TRAINING = "model/", "optimizer/", "training"


@dataclass(frozen=True, slots=True, kw_only=True)
class SdnetJob:
    """The part of the job that a rank needs.

    train, test: files of patches. cache: where a host keeps copies of them if they are on a network file system.
    data: SHA-256 of each file by name, stored in every checkpoint. data_sample: see `sample_checksum`; a rank that
    sees other data refuses them. slices: ranks of the full group; in a smaller group, ranks compute several slices.
    """

    recipe: Recipe
    train: Path
    test: Path
    cache: HostCache
    data: Mapping[str, str]
    data_sample: str
    slices: int
    evaluate_every: int
    evaluate_batch: int

    def compile_key(self) -> str:
        """A hash of everything that compiled graphs depend on. Evaluation's graph depends on the number of pairs."""
        return compile_key(
            sources_of_package("sdnet"),
            asdict(self.recipe),
            self.slices,
            self.evaluate_batch,
            dict(self.data),
        )


def train_sdnet(job: SdnetJob) -> dict[str, object]:
    """Train this rank to the end of the recipe; returns the same on every rank."""
    session = get_session()
    with _errors_of_the_engine(), opened_data(job, session.busy) as (train, test):
        trainer = Trainer(
            job.recipe,
            train,
            rank=session.rank,
            world_size=session.world_size,
            slices=job.slices,
            data=job.data,
        )
        session.total_steps = trainer.total_steps
        session.restore(lambda state: _load(trainer, state))
        hooks = GroupHooks(session, job.evaluate_every)
        try:
            rates = train_epochs(
                trainer,
                test,
                hooks,
                evaluate_every=job.evaluate_every,
                evaluate_batch=job.evaluate_batch,
                rates=dict(session.last_metrics),
            )
        finally:
            trainer.close()
    return {**rates, "epochs": trainer.progress.epoch, "steps": trainer.progress.step}


class GroupHooks:
    """Reports the loop to the session, and the epochs to the rank's log in the words of the published code."""

    def __init__(self, session: Session, evaluate_every: int):
        self._session, self._evaluate_every = session, evaluate_every
        self._first = True

    def stepped(self, trainer: Trainer) -> None:
        """See `sdnet.training.loop.Hooks`."""
        self._report(trainer, {}, save=False)

    @contextlib.contextmanager
    def evaluating(self, epoch: int) -> Iterator[None]:
        """See `sdnet.training.loop.Hooks`."""
        self._session.record(Evaluating(epoch=epoch, step=self._session.last_step))
        with self._session.phase("evaluating"):
            yield

    def epoch_finished(self, trainer: Trainer, report: EpochReport) -> None:
        """See `sdnet.training.loop.Hooks`."""
        total, rates = report.losses["total"], report.rates
        epochs = trainer.recipe.epochs
        logger.info(epoch_line(report.epoch, epochs, report.seconds, report.steps, total, report.lr))
        evaluated = rates if report.evaluate_s is not None else {}
        if evaluated:
            logger.info(accuracy_line(rates["fpr95"], rates["accuracy"]))
            self._session.record(Evaluated(epoch=report.epoch, step=report.step, **rates))
        self._session.record(
            Epoch(
                epoch=report.epoch,
                epochs=epochs,
                step=report.step,
                total_steps=trainer.total_steps,
                loss=total,
                losses=report.losses,
                lr=report.lr,
                steps=report.steps,
                seconds=round(report.seconds, 3),
                evaluate_s=None if report.evaluate_s is None else round(report.evaluate_s, 3),
                fpr95=evaluated.get("fpr95"),
                accuracy=evaluated.get("accuracy"),
            )
        )
        self._report(trainer, rates, save=True)

    def _report(self, trainer: Trainer, metrics: Mapping[str, float], *, save: bool) -> None:
        if self._first:
            trainer.wait()  # the first step compiles; later ones are only handed to the device
            self._first = False
        self._session.step(
            trainer.progress.step,
            state=lambda: state_of(trainer.snapshot(dict(metrics))),
            metrics=metrics or None,
            save=save,
            work_s=trainer.work_s,
        )


class SdnetFormat:
    """Checkpoints as `sdnet train` writes them: `model.ckpt` in published names, `optimizer.ckpt`, `state.json`."""

    def encode(self, state: State, step: int, metrics: Mapping[str, float]) -> Encoded:
        """See `engine.state_format.StateFormat`."""
        snapshot = snapshot_of(state)
        try:
            return Encoded(snapshot.files(), snapshot.fields())
        except NonFiniteLoss as error:
            raise TrainingDiverged(error.step, "the weights are not finite") from error

    def decode(self, encoded: Encoded) -> State:
        """See `engine.state_format.StateFormat`."""
        try:
            return state_of(Snapshot.parse(encoded.files, encoded.fields, Path("checkpoint")))
        except SdnetInputError as error:
            raise CorruptData("checkpoint", str(error), "an earlier checkpoint is used") from error


def state_of(snapshot: Snapshot) -> State:
    """A snapshot as one flat dictionary."""
    return {
        **{_MODEL + name: value for name, value in snapshot.model.items()},
        **{_OPTIMIZER + name: value for name, value in snapshot.optimizer.items()},
        _TRAINING: asdict(snapshot.state),
    }


def snapshot_of(state: State) -> Snapshot:
    """The snapshot that became this flat dictionary."""
    fields = dict(state[_TRAINING])
    fields["losses"] = tuple(fields["losses"])
    return Snapshot(_part(state, _MODEL), _part(state, _OPTIMIZER), CheckpointState(**fields))


def _part(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


@contextlib.contextmanager
def opened_data(job: SdnetJob, alive: Callable[[], None]) -> Iterator[tuple[PatchFile, PatchFile]]:
    """Open the data where this host may map them; alive: see `HostCache.using`.

    The launcher has read them, so here a missing file is a failure of storage, and not a mistake of the user.
    """
    with contextlib.ExitStack() as copies:
        local = [
            copies.enter_context(job.cache.using(path, job.data[name], alive))
            for path, name in ((job.train, "train.npz"), (job.test, "test.npz"))
        ]
        try:
            for path in local:
                if not path.exists():
                    raise StorageUnavailable(str(path), "it is not there on this host")
            train, test = open_training_patches(local[0]), open_patches(local[1])
            refuse_other_sample(job.data_sample, train, test)
        except OSError as error:
            raise StorageUnavailable(
                error.filename or str(job.train), error.strerror or str(error)
            ) from error
        yield train, test


def _load(trainer: Trainer, state: State) -> None:
    trainer.resume(snapshot_of(state), "the checkpoint")
    logger.info("resumed at step %s", trainer.progress.step)


@contextlib.contextmanager
def _errors_of_the_engine() -> Iterator[None]:
    """Turn SDNet's errors into the types that the engine handles."""
    try:
        yield
    except NonFiniteLoss as error:
        raise TrainingDiverged(error.step) from error
    except SdnetInputError as error:
        raise InputError(str(error)) from error
