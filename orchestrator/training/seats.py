"""Where the workers of a group run, and waiting for what all of them shall answer."""

from dataclasses import dataclass
from typing import Any

import ray

from orchestrator.errors import OrchestratorError


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one worker runs: its host's address, and the physical ids of its NPUs."""

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
    npus = ray.get_runtime_context().get_accelerator_ids().get("NPU", [])
    return Seat(ray.util.get_node_ip_address(), tuple(int(npu) for npu in npus))


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
