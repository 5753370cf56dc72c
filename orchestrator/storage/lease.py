"""Who owns a run: `lease/<generation>`, made by create-if-absent, and the owner's heartbeat beside it.

The owner renews its heartbeat every few seconds. A second launch refuses while it changes. When it has not changed
for a time-out, measured by the second launch's own clock, that launch takes the next generation. So no two clocks are
compared, and no lock of the file system is needed. The generation is part of both names, so nothing that an earlier
owner writes late is taken for the present owner's.

Before the owner writes an object whose name does not contain the generation, it calls `Lease.check`.
"""

import functools
import json
import logging
import math
import os
import re
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum

from orchestrator.errors import InputError, OrchestratorError
from orchestrator.process_identity import is_alive, process_mark
from orchestrator.storage.protocol import ObjectMissing, Storage, StorageUnavailable
from orchestrator.storage.retry import retried

logger = logging.getLogger(__name__)

FOLDER = "lease/"
_NAME = re.compile(r"lease/(\d{6,})")
_LOOK_EVERY_S = 0.5
# Mounts cache the size of a file and cut a longer one off, so a heartbeat never changes its size.
_HEARTBEAT_BYTES = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """renew_every_s: between heartbeats. timeout_s: silence after which another launch may take the run.

    A mount may cache a heartbeat for half of the time-out (sshfs: 20 s) without two launches owning a run.
    """

    renew_every_s: float = 2.0
    timeout_s: float = 60.0

    @property
    def trusted_s(self) -> float:
        """Seconds after a heartbeat during which no other launch can own the run: half of the time-out."""
        return self.timeout_s / 2


def seconds_since_boot() -> float:
    """The same for all processes of this host. It includes the time asleep, in which `time.monotonic` stops."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of one launch, and its only way to wait."""

    now: Callable[[], float] = seconds_since_boot
    wait: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A launch. id: unique. mark: see `process_identity.process_mark`. since: unix seconds, for messages."""

    id: str
    host: str
    pid: int
    mark: str
    since: float

    @classmethod
    def this_process(cls) -> "Owner":
        """A new owner, which is this process."""
        return cls(
            id=uuid.uuid4().hex,
            host=socket.gethostname(),
            pid=os.getpid(),
            mark=process_mark(os.getpid()),
            since=round(time.time(), 3),
        )

    def __str__(self) -> str:
        since = time.strftime("%F %T", time.localtime(self.since))
        return f"process {self.pid} on {self.host} since {since}"


class RunIsOwned(InputError):
    """Another launch works on the run. Example: the same job was launched on two hosts."""

    def __init__(self, run: str, owner: str):
        super().__init__(run, owner)
        self.run, self.owner = run, owner

    def __str__(self) -> str:
        return (
            f"{self.run} is being run by {self.owner}; wait for it, stop it, or give this job another `name`"
        )


class RunLost(OrchestratorError):
    """Another launch took the run from this one. Example: this host slept for longer than the time-out."""

    def __init__(self, run: str, owner: str):
        super().__init__(run, owner)
        self.run, self.owner = run, owner

    def __str__(self) -> str:
        return (
            f"lost the run {self.run} to {self.owner}: this launch gave no sign of life for too long; "
            "it ends and writes nothing more, and the other one continues"
        )


class Life(StrEnum):
    """What is known of an owner.

    ended: it released the run. killed: its process no longer exists; only its own host can see this.
    alive: its heartbeat changes. silent: its heartbeat did not change during the check.
    """

    ENDED = "ended"
    KILLED = "killed"
    ALIVE = "alive"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Lease:
    """A generation of ownership that was taken. It can be sent to the processes that work for the owner."""

    storage: Storage
    number: int
    owner: Owner

    def check(self) -> None:
        """Raise RunLost when another launch owns the run. Raises StorageError when that cannot be known."""
        newer = newest_lease(self.storage, at_least=self.number)
        if newer > self.number:
            raise RunLost(self.storage.describe(), owner_of(self.storage, newer))

    def renew(self, count: int, now: float, ended: bool = False) -> None:
        """Write the heartbeat. now: this host's `Clock.now`. Raises StorageError."""
        # Not rounded: a heartbeat that seems to come from the future is no sign of life.
        text = json.dumps({"count": count, "at": now, "ended": ended})
        self.storage.put(_heartbeat_name(self.number), text.ljust(_HEARTBEAT_BYTES).encode())


def take(
    storage: Storage, owner: Owner, times: LeaseTimes | None = None, clock: Clock | None = None
) -> Lease:
    """Become the owner of the run: at once if no launch owns it, after a time-out if its owner is silent.

    Raises RunIsOwned while another owner lives, and StorageError.
    """
    times, clock = times or LeaseTimes(), clock or Clock()
    number = newest_lease(storage)
    while True:
        if number and _lives(storage, number, times, clock):
            raise RunIsOwned(storage.describe(), owner_of(storage, number))
        lease = Lease(storage, number + 1, owner)
        if _created(lease, clock):
            retried(functools.partial(lease.renew, 0, clock.now()), StorageUnavailable, clock.wait)
            return lease
        # Another launch was faster. Its name may not be visible here yet, but its number is known.
        number = newest_lease(storage, at_least=number + 1)


def _created(lease: Lease, clock: Clock) -> bool:
    """Whether this launch made the lease. After a lost reply it is there with our id, and `create` recognises it.

    Raises StorageUnavailable also when the name was made and the disk had no room for its content.
    """
    name, content = _name(lease.number), json.dumps(asdict(lease.owner)).encode()
    failures: list[StorageUnavailable] = []

    def create() -> bool:
        try:
            return lease.storage.create(name, content)
        except StorageUnavailable as error:
            failures.append(error)
            raise

    if retried(create, StorageUnavailable, clock.wait):
        return True
    if failures and read_owner(lease.storage, lease.number) is None:
        raise failures[-1]
    return False


def _lives(storage: Storage, number: int, times: LeaseTimes, clock: Clock) -> bool:
    life = life_of(storage, number, times, clock)
    if life is Life.SILENT:
        owner = owner_of(storage, number)
        message = "%s belongs to %s; it is taken over if that launch gives no sign of life for %.0f s"
        logger.warning(message, storage.describe(), owner, times.timeout_s)
        life = life_of(storage, number, times, clock, times.timeout_s)
    return life is Life.ALIVE


def newest_lease(storage: Storage, at_least: int = 0) -> int:
    """The highest generation of ownership, 0 for none. at_least: one that is known. Raises StorageError.

    The listing may lag, so the names that follow are also tried one by one: generations have no gaps.
    """
    found = (int(match[1]) for name in storage.list(FOLDER) if (match := _NAME.fullmatch(name)))
    number = max(found, default=0)
    number = max(number, at_least)
    while _exists(storage, _name(number + 1)):
        number += 1
    return number


def read_owner(storage: Storage, number: int) -> Owner | None:
    """The owner of a generation; None when its lease cannot be understood. Raises StorageError.

    A launch that was killed between making the name and writing the content leaves an empty lease.
    """
    try:
        owner = Owner(**json.loads(storage.get(_name(number))))
        str(owner)  # raises for a time outside of the calendar, which no launch writes
    except (ObjectMissing, ValueError, TypeError, OSError, OverflowError, RecursionError):
        return None
    return owner if isinstance(owner.mark, str) else None


def owner_of(storage: Storage, number: int) -> str:
    """The owner of a generation, in words."""
    return str(read_owner(storage, number) or "another launch")


def life_of(
    storage: Storage, number: int, times: LeaseTimes, clock: Clock | None = None, patience_s: float = 0.0
) -> Life:
    """Whether the owner of a generation lives, seen within `patience_s`. Raises StorageError.

    On the owner's host, the process table and the common clock answer at once. Elsewhere only a change of the
    heartbeat is a sign of life. An existing process is not enough: it may be stopped, or hang.
    """
    clock = clock or Clock()
    owner, first = read_owner(storage, number), _heartbeat(storage, number)
    at, ended = _parsed(first)
    if ended:
        return Life.ENDED
    alive = is_alive(owner.mark) if owner else None
    if alive is False:
        return Life.KILLED
    if alive and at is not None and 0 <= clock.now() - at < times.trusted_s:
        return Life.ALIVE
    # Count the pauses instead of reading the clock: while this host slept, it did not look.
    pause_s = min(_LOOK_EVERY_S, times.renew_every_s)
    for _ in range(math.ceil(patience_s / pause_s)):
        clock.wait(pause_s)
        seen = _heartbeat(storage, number)
        if seen != first:
            return Life.ENDED if _parsed(seen)[1] else Life.ALIVE
    return Life.SILENT


def _name(number: int) -> str:
    return f"{FOLDER}{number:06d}"


def _heartbeat_name(number: int) -> str:
    return f"{_name(number)}.heartbeat"


def _exists(storage: Storage, name: str) -> bool:
    try:
        storage.get_range(name, 0, 1)
    except ObjectMissing:
        return False
    return True


def _heartbeat(storage: Storage, number: int) -> bytes:
    try:
        return storage.get(_heartbeat_name(number))
    except ObjectMissing:
        return b""


def _parsed(heartbeat: bytes) -> tuple[float | None, bool]:
    """When it was written by its owner's clock, and whether the owner gave the run back."""
    try:
        raw = json.loads(heartbeat)
        return float(raw["at"]), bool(raw["ended"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None, False
