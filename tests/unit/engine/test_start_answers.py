"""A start ends when its first rank fails, and names the ranks that never answer."""

import time
from collections.abc import Sequence
from typing import Any, cast

import pytest
import ray
from ray.types import ObjectRef

from orchestrator.engine.control.failures import RanksDidNotJoin, RendezvousFailed
from orchestrator.engine.start.answers import answers_of
from tests.unit.engine.fakes import members

# The first word of a reference is its state.
PENDING, FAILED = "pending", "failed"


def asked(*references: str) -> dict[int, ObjectRef[str]]:
    """Texts in place of references, by rank."""
    return {rank: cast(ObjectRef[str], reference) for rank, reference in enumerate(references)}


@pytest.fixture(autouse=True)
def a_ray_that_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not pending has answered; `wait` returns early only when all have, as Ray's does."""

    def wait(answers: Sequence[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        waiting = [answer for answer in answers if answer.startswith(PENDING)]
        if waiting:
            time.sleep(timeout)
        return [answer for answer in answers if answer not in waiting], waiting

    def get(answer: Any) -> Any:
        if isinstance(answer, list):
            return [get(one) for one in answer]
        if answer.startswith(FAILED):
            raise RendezvousFailed(0, "rank 1 never came")
        return answer

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", get)


def test_the_first_failure_ends_the_start_although_other_ranks_still_wait() -> None:
    began = time.monotonic()
    with pytest.raises(RendezvousFailed, match="rank 1 never came"):
        answers_of(asked("failed 0", "pending 1"), members("a", "b"), timeout_s=60.0)
    assert time.monotonic() - began < 10.0


def test_ranks_that_never_answer_are_named_with_their_hosts() -> None:
    with pytest.raises(RanksDidNotJoin) as caught:
        answers_of(asked("joined 0", "pending 1"), members("a", "b"), timeout_s=0.3)
    assert (caught.value.ranks, caught.value.hosts) == ((1,), ("b",))


def test_the_answers_come_by_rank() -> None:
    answers = answers_of(asked("joined 0", "joined 1"), members("a", "b"), timeout_s=60.0)
    assert answers == {0: "joined 0", 1: "joined 1"}
