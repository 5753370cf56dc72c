"""Where the workers of a group run, and how to wait for an answer of each of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from orchestrator.errors import InputError, OrchestratorError


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one worker runs: its host's address, and its NPUs as Ray and CANN number them there.

    In a container that sees only some of the host's devices these are not the physical ids:
    `ascend_start` finds those.
    """

    host: str
    npus: tuple[int, ...]


class RanksDidNotJoin(OrchestratorError):
    """Some ranks never met the others. Example: a host lost its link between start and rendezvous."""

    def __init__(self, ranks: tuple[int, ...], hosts: tuple[str, ...], timeout_s: float):
        super().__init__(ranks, hosts, timeout_s)
        self.ranks, self.hosts, self.timeout_s = ranks, hosts, timeout_s

    def __str__(self) -> str:
        return (
            f"ranks {list(self.ranks)} on {', '.join(sorted(set(self.hosts)))} did not join the group within "
            f"{self.timeout_s:.0f} s; look at those hosts with `sdnet-orchestrate check`"
        )


def describe_seat() -> Seat:
    """On a worker: its seat, as Ray has placed it."""
    host = ray.util.get_node_ip_address()
    return Seat(host, npu_numbers(ray.get_runtime_context().get_accelerator_ids().get("NPU", []), host))


def npu_numbers(ids: Sequence[str], host: str) -> tuple[int, ...]:
    """Ray's ids of NPUs as numbers, in Ray's order; Ray takes them from ASCEND_RT_VISIBLE_DEVICES unread."""
    for npu in ids:
        if not (npu.isascii() and npu.isdigit()):
            raise InputError(
                f"Ray on {host} counts an NPU {npu[:40]!r}; set ASCEND_RT_VISIBLE_DEVICES to numbers with "
                "commas between them, as 0,1,2, before `ray start` there"
            )
    return tuple(int(npu) for npu in ids)


def answers_of(asked: dict[int, Any], seats: list[Seat], timeout_s: float) -> dict[int, Any]:
    """What each asked rank has answered; `asked` holds Ray's reference of each answer, by rank.

    Raises what a rank has raised, or that its worker died, and RanksDidNotJoin after `timeout_s`.
    """
    done, waiting = ray.wait(list(asked.values()), num_returns=len(asked), timeout=timeout_s)
    ray.get(done)
    if waiting:
        ranks = tuple(rank for rank, answer in asked.items() if answer in waiting)
        raise RanksDidNotJoin(ranks, tuple(seats[rank].host for rank in ranks), timeout_s)
    return {rank: ray.get(answer) for rank, answer in asked.items()}
