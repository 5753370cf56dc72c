"""Asking the workers of a group, and waiting for what all of them answer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import ray
from ray.types import ObjectRef

from orchestrator.engine.control.failures import RanksDidNotJoin
from orchestrator.engine.control.generation import Member

T = TypeVar("T")


class Workers(Protocol):
    """The workers of a group, as Ray Train's backend interface offers them."""

    def execute_single_async(self, rank: int, function: Callable[..., T], /, *args: object) -> ObjectRef[T]:
        """Call a function on one worker; returns a reference of its result."""


def answers_of(
    asked: Mapping[int, ObjectRef[T]], members: Sequence[Member], timeout_s: float
) -> dict[int, T]:
    """The result of each asked rank. asked: a reference by rank.

    Raises what a rank raised, or that its worker died, and RanksDidNotJoin after `timeout_s`.
    """
    references = {rank: as_reference(answer) for rank, answer in asked.items()}
    done, waiting = ray.wait(list(references.values()), num_returns=len(asked), timeout=timeout_s)
    ray.get(done)
    if waiting:
        ranks = tuple(rank for rank, answer in references.items() if answer in waiting)
        raise RanksDidNotJoin(ranks, tuple(members[rank].host for rank in ranks), timeout_s)
    return {rank: ray.get(answer) for rank, answer in references.items()}


def as_reference(answer: ObjectRef[T]) -> "ray.ObjectRef[T]":
    """The same reference, as `ray.get` takes it.

    Ray annotates what its workers return with another class than the one that it is.
    """
    return answer  # type: ignore[return-value]
