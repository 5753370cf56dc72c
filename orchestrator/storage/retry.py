"""Short, bounded retries, for answers of storage that are often right a moment later.

Two answers are of this kind. A name that another host has just written may be missing here for a moment, because
mounts cache what they know of a folder. A file that was replaced on the server may give ESTALE once or twice.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

# About two seconds in all. Storage that is away for longer is its callers' concern.
RETRY_AFTER_S = (0.05, 0.1, 0.2, 0.5, 1.0)


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
