"""Runs one function on every host of the connected Ray cluster at once, as a Ray task each."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What one host said: a value, or (value None) why there is none.

    asked, answered: unix seconds of this process around the call.
    """

    address: str
    value: T | None
    error: str
    asked: float
    answered: float


def ask_every_host(
    function: Callable[[str], T], timeout_s: float = 60.0, only: Collection[str] | None = None
) -> tuple[Answer[T], ...]:
    """Call `function(address)` on each host that is alive; answers in dictionary order of the address.

    only: addresses of the hosts to ask; all by default. A host that raises, dies or says nothing
    within `timeout_s` gives an answer with an error: the caller decides whether that ends the job.
    `function` must be importable on the hosts.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = sorted(
        (node["NodeManagerAddress"], node["NodeID"])
        for node in ray.nodes()
        if node["Alive"] and (only is None or node["NodeManagerAddress"] in only)
    )
    task = ray.remote(num_cpus=0, max_retries=0)(_call)
    # The answers carry the time of day; the time-out must not depend on it.
    asked, deadline = time.time(), time.monotonic() + timeout_s
    waiting = {}
    for address, node_id in nodes:
        here = NodeAffinitySchedulingStrategy(node_id, soft=False)
        waiting[task.options(scheduling_strategy=here).remote(function, address)] = address
    answers: list[Answer[T]] = []
    while waiting:
        left_s = max(0.0, deadline - time.monotonic())
        done, _ = ray.wait(list(waiting), num_returns=1, timeout=left_s)
        if not done:
            break
        address = waiting.pop(done[0])
        answered = time.time()
        try:
            answers.append(Answer(address, ray.get(done[0]), "", asked, answered))
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            answers.append(Answer(address, None, reason, asked, answered))
    for reference, address in waiting.items():
        ray.cancel(reference, force=True)
        answers.append(Answer(address, None, f"no answer within {timeout_s:.0f} s", asked, time.time()))
    return tuple(sorted(answers, key=lambda answer: answer.address))


def _call(function: Callable[[str], T], address: str) -> T:
    return function(address)
