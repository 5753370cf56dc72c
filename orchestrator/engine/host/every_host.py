"""Runs one function on every host of the connected Ray cluster at once, each as a Ray task."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
# A function of a host's address that runs on that host; it must be importable there.
HostTask = Callable[[str], T]

_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What one host answered: a value, or (value None) the reason why there is none.

    asked, answered: unix seconds of this process around the call.
    """

    address: str
    value: T | None
    error: str
    asked: float
    answered: float


def ask_every_host(
    function: HostTask[T],
    timeout_s: float = 60.0,
    only: Collection[str] | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> tuple[Answer[T], ...]:
    """Call `function(address)` on each host that is alive; answers in dictionary order of the address.

    only: addresses of the hosts to ask; all by default. A host that raises, dies or does not answer within
    `timeout_s` gives an answer with an error; the caller decides whether that ends the job. wait: called between
    polls; an exception that it raises ends the call.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = sorted(
        (node["NodeManagerAddress"], node["NodeID"])
        for node in ray.nodes()
        if node["Alive"] and (only is None or node["NodeManagerAddress"] in only)
    )
    task = ray.remote(_call)  # type: ignore[var-annotated]  # Ray has no annotation for generic functions
    asked, deadline = time.time(), time.monotonic() + timeout_s
    waiting: dict[ray.ObjectRef[T], str] = {}
    for address, node_id in nodes:
        here = NodeAffinitySchedulingStrategy(node_id, soft=False)
        waiting[
            task.options(num_cpus=0, max_retries=0, scheduling_strategy=here).remote(function, address)
        ] = address
    answers: list[Answer[T]] = []
    while waiting and time.monotonic() < deadline:
        done, _ = ray.wait(list(waiting), num_returns=1, timeout=_LOOK_EVERY_S)
        wait(0)
        for reference in done:
            address = waiting.pop(reference)
            try:
                answers.append(Answer(address, ray.get(reference), "", asked, time.time()))
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[-1]
                answers.append(Answer(address, None, reason, asked, time.time()))
    for reference, address in waiting.items():
        ray.cancel(reference, force=True)
        answers.append(Answer(address, None, f"no answer within {timeout_s:.0f} s", asked, time.time()))
    return tuple(sorted(answers, key=lambda answer: answer.address))


def _call(function: HostTask[T], address: str) -> T:
    return function(address)
