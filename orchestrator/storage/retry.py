"""Bounded retries: short ones for errors that pass in a moment, long ones for storage that is away.

Two errors often pass in a moment. A name that another host has just written may be missing here, because
mounts cache the entries of a folder. A file that was replaced on the server may give ESTALE once or twice.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from orchestrator.storage.protocol import Storage, StorageMisused, StorageUnavailable, takes_writes

T = TypeVar("T")

# About two seconds in all.
RETRY_AFTER_S = (0.05, 0.1, 0.2, 0.5, 1.0)
_AGAIN_EVERY_S = 1.0
# A mount shows a name that another host wrote when its caches expire: 20 s on sshfs, up to 60 s on NFS.
LISTED_WITHIN_S = 75.0


def retried(
    call: Callable[[], T],
    passing: type[Exception] | tuple[type[Exception], ...],
    wait: Callable[[float], None] = time.sleep,
    after_s: Sequence[float] = RETRY_AFTER_S,
) -> T:
    """What `call` returns; it is called again after each of the pauses when it raises one of `passing`.

    Raises what the last call raised.
    """
    for pause_s in after_s:
        try:
            return call()
        except passing:
            wait(pause_s)
    return call()


def outlasting(
    storage: Storage,
    call: Callable[[], T],
    timeout_s: float,
    wait: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> T:
    """What `call` returns; it is called again every second while `storage` is away, for at most `timeout_s`.

    A storage that is read-only, or that has a file in its place, is away, too. Raises what the last call raised.
    """
    deadline = now() + timeout_s
    while True:
        try:
            return call()
        except (StorageUnavailable, StorageMisused) as error:
            hopeless = isinstance(error, StorageMisused) and takes_writes(storage, "")
            if hopeless or now() >= deadline:
                raise
        wait(_AGAIN_EVERY_S)
