"""Gathers batches in a thread, while the device computes the current one."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np

_DEPTH = 2  # gathered batches that wait


class Prefetcher:
    """Iterates over batches of patches, uint8 [batch, 64, 128], gathered in the order of `batches`.

    images: uint8 [N, 64, 128], usually memory-mapped.
    batches: index arrays of equal length.
    fill: called with the number of the batch, its indices and the array [batch, *shape] to fill, which may be
    smaller than the images; None copies the images. A batch belongs to the consumer until it requests the next
    one; its memory is then used again. `close` (or the end of a `with`) stops the thread and ends the
    iteration; an error in the thread, such as an index out of range, is raised when the next batch is
    requested.
    """

    def __init__(
        self,
        images: np.ndarray,
        batches: Iterable[np.ndarray],
        fill: Callable[[int, np.ndarray, np.ndarray], None] | None = None,
        shape: tuple[int, ...] | None = None,
    ):
        self._images, self._batches, self._fill_batch = images, batches, fill
        self._shape = shape or images.shape[1:]
        self._ready: queue.Queue[np.ndarray | Exception | None] = queue.Queue()
        self._free: queue.Queue[np.ndarray | None] = queue.Queue()
        self._thread = threading.Thread(target=self._fill, name="prefetcher", daemon=True)
        self._started = False

    def __iter__(self) -> Iterator[np.ndarray]:
        if self._started:
            raise RuntimeError("a Prefetcher can be iterated once; make another")
        self._started = True
        self._thread.start()
        while (batch := self._ready.get()) is not None:
            if isinstance(batch, Exception):
                raise batch
            yield batch
            self._free.put(batch)

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop gathering and wait for the thread; batches that were not requested are dropped."""
        if self._started:
            self._free.put(None)
            self._thread.join()

    def _fill(self) -> None:
        try:
            buffers = 0
            for number, indices in enumerate(self._batches):
                if buffers <= _DEPTH:
                    buffers += 1
                    buffer = np.empty((len(indices), *self._shape), self._images.dtype)
                    self._free.put(buffer)
                free = self._free.get()
                if free is None:
                    break
                self._ready.put(self._gather(number, indices, free))
            self._ready.put(None)
        except Exception as error:  # noqa: BLE001  whatever it is, the consumer raises it
            self._ready.put(error)

    def _gather(self, number: int, indices: np.ndarray, out: np.ndarray) -> np.ndarray:
        if indices.min() < 0 or indices.max() >= len(self._images):
            raise IndexError(f"a batch asks for samples beyond the {len(self._images)} that there are")
        if self._fill_batch is not None:
            self._fill_batch(number, indices, out)
            return out
        # The indices are checked above; mode="clip" only lets NumPy write directly into `out`.
        return np.take(self._images, indices, axis=0, out=out, mode="clip")
