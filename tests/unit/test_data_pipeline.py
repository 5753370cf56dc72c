"""Prefetched batches: in order, without a copy of the data, and without a leftover thread."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from sdnet.data.pipeline import Prefetcher


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 64, 128), np.uint8)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert "prefetcher" not in {thread.name for thread in set(threading.enumerate()) - before}


def some_batches(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(1).integers(0, 50, (count, 8)))


def test_batches_come_in_order_with_the_bytes_of_their_samples(images):
    batches = some_batches(20)
    with Prefetcher(images, batches) as prefetcher:
        for indices, batch in zip(batches, prefetcher, strict=True):
            np.testing.assert_array_equal(batch, images[indices])


def test_a_batch_is_the_consumers_until_it_asks_for_the_next(images):
    batches, ran_ahead = some_batches(6), threading.Event()

    def source() -> Iterator[np.ndarray]:
        for number, indices in enumerate(batches):
            if number == 3:  # the thread has filled all the memory that it may
                ran_ahead.set()
            yield indices

    with Prefetcher(images, source()) as prefetcher:
        first = next(iter(prefetcher))
        assert ran_ahead.wait(timeout=60)
        np.testing.assert_array_equal(first, images[batches[0]])


def test_the_memory_of_three_batches_serves_any_number(images):
    with Prefetcher(images, some_batches(30)) as prefetcher:
        assert len({batch.ctypes.data for batch in prefetcher}) == 3


def test_an_iteration_can_be_left_in_the_middle(images):
    endless = (np.arange(8) for _ in iter(int, 1))
    with Prefetcher(images, endless) as prefetcher:
        np.testing.assert_array_equal(next(iter(prefetcher)), images[:8])


def test_after_close_the_iteration_ends_instead_of_waiting(images):
    prefetcher = Prefetcher(images, some_batches(10))
    batches = iter(prefetcher)
    next(batches)
    prefetcher.close()
    assert len(list(batches)) <= 3


def test_closing_what_was_never_started_or_twice_does_nothing(images):
    prefetcher = Prefetcher(images, some_batches(2))
    prefetcher.close()
    assert len(list(prefetcher)) == 2
    prefetcher.close()
    prefetcher.close()


def test_an_error_of_the_source_reaches_the_consumer_after_the_batches_before_it(images):
    def source() -> Iterator[np.ndarray]:
        yield np.arange(8)
        raise OSError("the disk is gone")

    with Prefetcher(images, source()) as prefetcher:
        batches = iter(prefetcher)
        next(batches)
        with pytest.raises(OSError, match="the disk is gone"):
            next(batches)


@pytest.mark.parametrize("index", [50, -1])
def test_an_index_beyond_the_samples_is_an_error_and_not_another_sample(images, index):
    with Prefetcher(images, [np.array([0, index])]) as prefetcher, pytest.raises(IndexError, match="50"):
        next(iter(prefetcher))


def test_a_prefetcher_is_iterated_once(images):
    prefetcher = Prefetcher(images, some_batches(1))
    assert len(list(prefetcher)) == 1
    with pytest.raises(RuntimeError, match="once"):
        next(iter(prefetcher))
    prefetcher.close()
