"""Runs a training function in a rank: opens its session, and classifies the error that ends it.

The error is classified here, in the rank's own process, because only here its type is known.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ray.cloudpickle
import ray.train
import ray.train.collective

from orchestrator.engine.control.failures import FailureKind, RankFailed, TrainingDiverged
from orchestrator.engine.host.rank_output import output_in_log
from orchestrator.engine.host.scratch import scratch_folder
from orchestrator.engine.rank.compile_cache import CompileCache
from orchestrator.engine.rank.leave import Leaving
from orchestrator.engine.rank.link import RankLink, current_link
from orchestrator.engine.rank.restore import choose_and_read
from orchestrator.engine.rank.saver import CheckpointNotSaved, Saver, SaveTimes
from orchestrator.engine.session import HostIsDrained, LaunchEnds, Session, set_session
from orchestrator.engine.state_format import StateFormat
from orchestrator.errors import InputError, headline
from orchestrator.storage import Lease, RunLost, Storage, StorageError, StorageMisused
from orchestrator.storage.host_cache import HostCache
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.record import EventWriter

logger = logging.getLogger(__name__)

# The first type that matches decides.
_KINDS: tuple[tuple[type[BaseException], FailureKind], ...] = (
    (RunLost, FailureKind.RUN_LOST),
    (HostIsDrained, FailureKind.PREEMPTED),
    (TrainingDiverged, FailureKind.LOSS_NOT_FINITE),
    (InputError, FailureKind.REFUSED),
    (StorageMisused, FailureKind.PATH_BLOCKED),
    (CheckpointNotSaved, FailureKind.STORAGE),
    (StorageError, FailureKind.STORAGE),
    (MemoryError, FailureKind.OUT_OF_MEMORY),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSettings:
    """What every rank of a run receives from the launcher.

    lease: of the launch. every_s: seconds between checkpoints, None for the optimum. keep, best: see `prune`.
    logs: folder for the ranks' output. compiled: folder of the compile cache, None to compile at every start.
    compile_key: a hash of everything that compiled graphs depend on, except the number of ranks. cache: the local
    folder of each host, for logs and graphs if the run's storage is a network file system. storage_timeout_s: see
    `RecoveryConfig`.
    """

    storage: Storage
    lease: Lease
    state_format: StateFormat
    every_s: float | None
    keep: int
    best: str | None
    logs: Path
    compiled: Path | None
    compile_key: str
    cache: HostCache
    storage_timeout_s: float


def run_rank(train_fn: Callable[[], object], settings: RankSettings) -> object:
    """Run the training function in this rank and return its value; None if the launch ended before it.

    Raises RankFailed with the kind of the error.
    """
    link = current_link()
    try:
        with (
            scratch_folder(settings.cache, settings.logs.parent) as scratch,
            output_in_log(settings.storage, settings.logs, link.rank, scratch),
        ):
            writer = _event_writer(settings) if link.rank == 0 else None
            try:
                return _run(train_fn, settings, link, scratch, writer.record if writer else _ignore)
            finally:
                if writer is not None:
                    writer.close()
    except (StorageError, InputError) as error:  # of the folder or the log: `_run` classifies its own errors
        raise _classified(error, link.rank, 0) from error


def _run(
    train_fn: Callable[[], object],
    settings: RankSettings,
    link: RankLink,
    scratch: Path | None,
    record: Callable[[Event], None],
) -> object:
    session: Session | None = None
    try:
        session = _open_session(settings, link, scratch, record)
        set_session(session)
        value = train_fn()
        session.finish()
        _check_value(value)
        return value
    except LaunchEnds as end:
        logger.info("%s", end)
        return None
    except RankFailed:
        raise
    except BaseException as error:  # also SystemExit: a function that calls sys.exit() has not ended
        logger.exception("rank %s failed", link.rank)
        raise _classified(error, link.rank, session.last_step if session else 0) from error
    finally:
        if session is not None:
            session.close()


def _check_value(value: object) -> None:
    """Refuse a value that cannot be sent to the launcher."""
    try:
        ray.cloudpickle.dumps(value)
    except Exception as error:
        raise InputError(
            f"the training function returned a {type(value).__name__}, which cannot be sent to the launcher "
            f"({error}); training is complete and saved: return numbers, texts or arrays, and call fit() again"
        ) from error


def _open_session(
    settings: RankSettings, link: RankLink, scratch: Path | None, record: Callable[[Event], None]
) -> Session:
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    cache, cached = _compile_cache(settings, scratch, rank, world_size)
    restored = choose_and_read(
        settings.storage,
        settings.state_format,
        rank=rank,
        avoid=link.info.avoid,
        saved=link.info.saved,
        broadcast=ray.train.collective.broadcast_from_rank_zero,
        record=record,
    )
    return Session(
        rank=rank,
        world_size=world_size,
        local_rank=context.get_local_rank(),
        link=link,
        restored=restored,
        saver=_saver(settings, link, restored is not None, record) if rank == 0 else None,
        leaving=Leaving(rank, lambda: link.notice, ray.train.collective.broadcast_from_rank_zero),
        barrier=ray.train.collective.barrier,
        record=record,
        cache=cache,
        cached=cached,
    )


def _saver(
    settings: RankSettings, link: RankLink, has_earlier: bool, record: Callable[[Event], None]
) -> Saver:
    return Saver(
        settings.storage,
        settings.state_format,
        keep=settings.keep,
        best=settings.best,
        times=SaveTimes(settings.every_s, link.info.failures, link.info.trained_s),
        record=record,
        on_saved=link.saved,
        has_earlier=has_earlier,
        storage_timeout_s=settings.storage_timeout_s,
        check_owner=settings.lease.check,
    )


def _compile_cache(
    settings: RankSettings, scratch: Path | None, rank: int, world_size: int
) -> tuple[CompileCache | None, bool]:
    if settings.compiled is None:
        return None, False
    key = f"{settings.compile_key}-{world_size}"
    if scratch is None:
        cache = CompileCache(settings.compiled, key, rank)
    else:
        cache = CompileCache(scratch / settings.compiled.name, key, rank, settings.storage)
    try:
        return cache, cache.open()
    except OSError as error:
        logger.warning("compiled graphs are not cached: %s", error)
        return None, False


def _classified(error: BaseException, rank: int, step: int) -> RankFailed:
    """The error with its kind. An error of an unknown type comes from the training function."""
    kind = next((kind for known, kind in _KINDS if isinstance(error, known)), FailureKind.STEP_FAILED)
    about = error.rank if isinstance(error, HostIsDrained) else rank
    text = headline(error)
    named = kind is FailureKind.STEP_FAILED and text
    detail = f"{type(error).__name__}: {text}" if named else text or type(error).__name__
    return RankFailed(kind, detail[:300], step, about)


def _event_writer(settings: RankSettings) -> EventWriter:
    lease = settings.lease
    return EventWriter(settings.storage, guard=lease.check, lease=lease.number)


def _ignore(event: Event) -> None:
    """Drop the event: all ranks would record the same, so only rank 0 does."""
