"""Waits for the results of calls on all workers of a group."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import ray
from ray.types import ObjectRef

from orchestrator.engine.control.failures import RanksDidNotJoin
from orchestrator.engine.control.generation import Member

_LOOK_EVERY_S = 0.2

T = TypeVar("T")


class Workers(Protocol):
    """The workers of a group, as Ray Train's backend interface offers them."""

    def execute_single_async(self, rank: int, function: Callable[..., T], /, *args: object) -> ObjectRef[T]:
        """Call a function on one worker; returns a reference to its result."""


def answers_of(
    asked: Mapping[int, ObjectRef[T]], members: Sequence[Member], timeout_s: float
) -> dict[int, T]:
    """The result of each call. asked: the reference of its result, by rank.

    Raises the error of a rank, or the death of its worker, at once: the others would wait for it until their time-out.
    Raises RanksDidNotJoin after `timeout_s`.
    """
    references = {rank: as_reference(answer) for rank, answer in asked.items()}
    deadline = time.monotonic() + timeout_s
    while True:
        look_s = max(min(_LOOK_EVERY_S, deadline - time.monotonic()), 0.0)
        done, waiting = ray.wait(list(references.values()), num_returns=len(asked), timeout=look_s)
        ray.get(done)
        if not waiting:
            return {rank: ray.get(answer) for rank, answer in references.items()}
        if time.monotonic() >= deadline:
            ranks = tuple(rank for rank, answer in references.items() if answer in waiting)
            raise RanksDidNotJoin(ranks, tuple(members[rank].host for rank in ranks), timeout_s)


def as_reference(answer: ObjectRef[T]) -> "ray.ObjectRef[T]":
    """The same reference with the type that `ray.get` accepts.

    Ray annotates the results of its workers with the wrong class.
    """
    return answer  # type: ignore[return-value]
