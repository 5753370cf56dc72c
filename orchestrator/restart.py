"""`launch --restart`: begin a run again, with all that the earlier launches left moved aside, not deleted."""

from pathlib import Path

from orchestrator.events import EventLog
from orchestrator.run_directory import RunDirectory
from orchestrator.run_lock import locked
from sdnet.errors import InputError

# Patches and compiled graphs stay: both are checked by fingerprint and checksum before they are used.
_STAYS = frozenset({"launch.lock", "data", "compiled"})
_ASIDE = "before_restart."


def begin_again(run: RunDirectory) -> Path | None:
    """Move what earlier launches left into `<run>/before_restart.<n>/`; returns it, or None for a new run.

    The ranks of the last group are noted in the new events: a group of a launch that was killed may
    still run, and must be ended before the next one starts. Raises InputError when something cannot
    be moved, or while a launch works here.
    """
    run.make_root()
    with locked(run):
        left = sorted(
            path for path in run.root.iterdir()
            if path.name not in _STAYS and not path.name.startswith(_ASIDE)
        )  # fmt: skip
        if not left:
            return None
        ranks = _ranks_of_last_group(run)
        aside = _next_folder(run.root)
        try:
            aside.mkdir()
            for path in left:
                path.rename(aside / path.name)
        except OSError as error:
            raise InputError(
                f"{error.filename} cannot be moved to {aside} ({error.strerror}); move it away yourself, "
                "or give the job another `name`"
            ) from None
        events = EventLog(run.events)
        events.emit("run_restarted", moved_to=aside.name)
        for rank in ranks:
            events.emit(
                "rank_joined", **{key: value for key, value in rank.items() if key not in ("t", "event")}
            )
    return aside


def _ranks_of_last_group(run: RunDirectory) -> list[dict]:
    try:
        history = EventLog(run.events).read()
    except InputError:
        return []  # unreadable events are one reason to begin again
    begins = [at for at, event in enumerate(history) if event["event"] == "group_starting"]
    last = history[begins[-1] :] if begins else history
    return [event for event in last if event["event"] == "rank_joined"]


def _next_folder(root: Path) -> Path:
    taken = {path.name for path in root.glob(f"{_ASIDE}*")}
    number = next(number for number in range(1, len(taken) + 2) if f"{_ASIDE}{number}" not in taken)
    return root / f"{_ASIDE}{number}"
