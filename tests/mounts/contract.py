"""Parts of the storage contract that the tests of every kind of mount check."""

import threading
from collections.abc import Callable, Sequence

from orchestrator.storage import DirectoryStorage

CREATORS = 4


def reads(storage: DirectoryStorage, name: str, content: bytes) -> Callable[[], bool]:
    """Whether `name` has this content by now."""
    return lambda: storage.get(name) == content


def creations_at_once(storages: Sequence[DirectoryStorage], name: str) -> list[bool]:
    """What `create` returned to each of several threads that created one name together, sorted."""
    created: list[bool] = []
    go = threading.Barrier(CREATORS)

    def create(number: int) -> None:
        go.wait()
        created.append(storages[number % len(storages)].create(name, b"owner %d" % number))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(CREATORS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(created)
