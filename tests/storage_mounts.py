"""Mounts of one simulated server, for the users of storage: they lag, fail and lose replies.

A `Server` holds the objects. Each `Mount` is one host's view of it and implements the Storage Protocol. Time is
virtual: `Server.clock`. The faults are those that were seen on real mounts and object stores:

* a listing shows what was there `lag_s` ago, while opening by name shows what is there now,
* an object that was read once is read from a cache for `cached_s`, while a name that was missing is asked for again,
* a read of an object that was replaced or listed gives a stale handle, once or several times,
* an operation fails before it happened, such as an error at close,
* an operation happens and the caller sees an error: the reply was lost,
* the server is unavailable: every operation fails until it returns.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from orchestrator.storage import ObjectMissing, StorageUnavailable
from orchestrator.storage.lease import Clock
from tests.unit.engine.fakes import VirtualClock


@dataclass
class Server:
    """The objects, and their names as they were at each change."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    objects: dict[str, bytes] = field(default_factory=dict)
    away: bool = False
    _names: list[tuple[float, frozenset[str]]] = field(default_factory=list)

    def names_at(self, seconds: float) -> frozenset[str]:
        """The names that a listing showed at this time."""
        return next((names for at, names in reversed(self._names) if at <= seconds), frozenset())

    def changed(self) -> None:
        """Remember the names as they are now."""
        self._names.append((self.clock.now(), frozenset(self.objects)))


@dataclass
class Mount:
    """One host's view. lag_s: age of its listings. cached_s: how long it keeps what it has read.

    stale, failing, lost_replies: how many operations do so next.

    writes: every write that reached the server, in order.
    """

    server: Server
    lag_s: float = 0.0
    cached_s: float = 0.0
    stale: int = 0
    failing: int = 0
    lost_replies: int = 0
    away: bool = False
    writes: list[str] = field(default_factory=list)
    _cache: dict[str, tuple[float, bytes]] = field(default_factory=dict)

    @property
    def launch_clock(self) -> Clock:
        """The virtual time for `take` and `life_of`."""
        return Clock(self.server.clock.now, self.server.clock.wait)

    def put(self, name: str, content: bytes) -> None:
        self._write(f"put {name}", lambda: self._store(name, content))

    def get(self, name: str) -> bytes:
        self._reach(name)
        if self.stale:
            self.stale -= 1
            raise StorageUnavailable(name, "Stale file handle")
        now = self.server.clock.now()
        read_at, cached = self._cache.get(name, (float("-inf"), b""))
        if now - read_at < self.cached_s:
            return cached
        if name not in self.server.objects:
            raise ObjectMissing(name, "No such file or directory")
        self._cache[name] = now, self.server.objects[name]
        return self.server.objects[name]

    def get_range(self, name: str, start: int, size: int) -> bytes:
        return self.get(name)[start : start + size]

    def list(self, prefix: str) -> list[str]:
        self._reach(prefix)
        names: Iterable[str] = self.server.objects
        if self.lag_s:
            names = self.server.names_at(self.server.clock.now() - self.lag_s)
        return sorted(name for name in names if name.startswith(prefix))

    def delete(self, name: str) -> None:
        self._write(f"delete {name}", lambda: self._remove(name))

    def create(self, name: str, content: bytes) -> bool:
        self._reach(name)
        if name in self.server.objects:
            return self.get(name) == content
        self._change(f"create {name}", lambda: self._store(name, content))
        return True

    def tidy(self, folder: str) -> None:
        self._reach(folder)

    def describe(self) -> str:
        return "/runs/j"

    def _store(self, name: str, content: bytes) -> None:
        self._cache.pop(name, None)
        self.server.objects[name] = content

    def _remove(self, name: str) -> None:
        self._cache.pop(name, None)
        self.server.objects.pop(name, None)

    def _write(self, operation: str, happen: Callable[[], None]) -> None:
        self._reach(operation.partition(" ")[2])
        self._change(operation, happen)

    def _change(self, operation: str, happen: Callable[[], None]) -> None:
        name = operation.partition(" ")[2]
        if self.failing:
            self.failing -= 1
            raise StorageUnavailable(name, "Input/output error")
        happen()
        self.server.changed()
        self.writes.append(operation)
        if self.lost_replies:
            self.lost_replies -= 1
            raise StorageUnavailable(name, "Connection timed out")

    def _reach(self, name: str) -> None:
        if self.away or self.server.away:
            raise StorageUnavailable(name, "Transport endpoint is not connected")
