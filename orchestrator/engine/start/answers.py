"""Asking the workers of a group, and waiting for what all of them answer."""

from collections.abc import Sequence
from typing import Any, Protocol

import ray

from orchestrator.engine.control.failures import RanksDidNotJoin
from orchestrator.engine.control.generation import Member

# A reference to a value that a worker will have.
Answer = Any


class Workers(Protocol):
    """The workers of a group, as Ray Train's backend interface offers them."""

    def execute_single_async(self, rank: int, function: Any, *args: Any) -> Answer:
        """Call a function on one worker; returns a reference of its result."""


def answers_of(asked: dict[int, Answer], members: Sequence[Member], timeout_s: float) -> dict[int, Any]:
    """The result of each asked rank. asked: a reference by rank.

    Raises what a rank raised, or that its worker died, and RanksDidNotJoin after `timeout_s`.
    """
    done, waiting = ray.wait(list(asked.values()), num_returns=len(asked), timeout=timeout_s)
    ray.get(done)
    if waiting:
        ranks = tuple(rank for rank, answer in asked.items() if answer in waiting)
        raise RanksDidNotJoin(ranks, tuple(members[rank].host for rank in ranks), timeout_s)
    return {rank: ray.get(answer) for rank, answer in asked.items()}
