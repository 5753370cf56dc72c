"""A worker of the preprocess stage that waits inside one shard until the test has acted on it."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil

from sdnet.preparation.shards import Shard, make_shard

MakeShard = Callable[..., object]


def make_shard_or_wait(fifo: Path, name: str) -> MakeShard:
    """`make_shard`, which waits in the shard of this name while the FIFO exists.

    A function of a function: Ray then sends it by value to workers, which cannot import the tests.
    """

    def make(shard: Shard, *arguments: Any) -> object:
        if shard.name == name and fifo.exists():
            fifo.with_suffix(".pid").write_text(str(os.getpid()))
            fifo.read_bytes()  # returns when the test closes its end
        return make_shard(shard, *arguments)

    return make


class Trap:
    """Lets the worker of the shard `test-00000` wait, once."""

    shard = "test-00000"

    def __init__(self, folder: Path):
        self.fifo = folder / "trap"
        os.mkfifo(self.fifo)

    def make_shard(self) -> MakeShard:
        """Replaces the stage's `make_shard`."""
        return make_shard_or_wait(self.fifo, self.shard)

    def when_a_worker_is_in_it(self, act: Callable[[int], object]) -> Future[int]:
        """Call a function with the worker's process id, in a thread; the id is the result."""
        found: Future[int] = Future()
        work = threading.Thread(target=lambda: found.set_result(self._act(act)), daemon=True)
        work.start()
        return found

    def _act(self, act: Callable[[int], object]) -> int:
        with self.fifo.open("wb"):  # waits for the worker
            self.fifo.unlink()  # the next worker of this shard is not trapped
            worker = psutil.Process(int(self.fifo.with_suffix(".pid").read_text()))
            act(worker.pid)
            worker.wait(timeout=120)  # the FIFO stays open until then, so the worker makes no shard
        return worker.pid
