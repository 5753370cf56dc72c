"""The faults of a drill, what each requires of the cluster, and their order. Pure."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sdnet.errors import InputError


class Fault(StrEnum):
    """What is done to the run.

    kill_rank: a rank's process is killed. kill_host: a host's Ray node is killed with all its
    processes, and started again. freeze: a rank's process is stopped. partition: a host's link
    is down for a while. corrupt_checkpoint: the newest checkpoint is damaged and a rank killed.
    """

    KILL_RANK = "kill-rank"
    KILL_HOST = "kill-host"
    FREEZE = "freeze"
    PARTITION = "partition"
    CORRUPT_CHECKPOINT = "corrupt-checkpoint"


class Damage(StrEnum):
    """How a checkpoint is damaged."""

    FLIP_A_BIT = "a bit flipped"
    TRUNCATE = "truncated"
    REMOVE = "removed"


# These faults disable a whole host for some time, so neither the head nor the launcher may be on it.
OF_HOSTS = (Fault.KILL_HOST, Fault.PARTITION)
# The least number of steps between two faults. With fewer they could not be distinguished.
STEPS_BETWEEN = 2


@dataclass(frozen=True, slots=True)
class Planned:
    """One planned fault: `number` from 1, due after `step` global steps; `draw` in [0, 1) picks the rank."""

    number: int
    fault: Fault
    step: int
    draw: float
    damage: Damage

    def choose(self, ranks: Sequence[int]) -> int:
        """The rank to hit, out of the allowed ones."""
        return ranks[int(self.draw * len(ranks))]


def parse_faults(text: str) -> tuple[Fault, ...]:
    """The faults in a list like `kill-rank,freeze`, each once, in that order."""
    known = {fault.value: fault for fault in Fault}
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise InputError(f"--faults names {name!r}; the known faults are {', '.join(known)}")
    return tuple(dict.fromkeys(known[name] for name in names))


def reasons_against(*, local: bool, keep: int, spare_hosts: Mapping[str, str]) -> dict[Fault, str]:
    """The faults that are not possible on this cluster, and why.

    spare_hosts: addresses of the hosts that may be lost, each with the reason why its link cannot be cut
    (empty when it can).
    """
    reasons = {}
    if keep < 2:
        reasons[Fault.CORRUPT_CHECKPOINT] = f"checkpoint.keep is {keep}, so no earlier one is left to use"
    if local:
        reasons |= dict.fromkeys(OF_HOSTS, "cluster.address is local, so every rank is on this host")
    elif not spare_hosts:
        reasons |= dict.fromkeys(OF_HOSTS, "the cluster has no host beside the head and this one")
    elif all(spare_hosts.values()):
        host, reason = min(spare_hosts.items())
        reasons[Fault.PARTITION] = f"no host's link can be cut ({host}: {reason})"
    return reasons


def plan_faults(faults: Sequence[Fault], count: int, seed: int, steps: int) -> tuple[Planned, ...]:
    """`count` faults spread over the steps of the run. Every kind occurs once before any kind is repeated.

    Raises InputError when the run is too short for them.
    """
    if steps < STEPS_BETWEEN * (count + 1):
        raise InputError(
            f"the job has {steps} steps, and {count} faults need {STEPS_BETWEEN * (count + 1)}; "
            "raise train.epochs or lower --count"
        )
    draws = random.Random(seed)
    planned: list[Planned] = []
    round_: list[Fault] = []
    for number in range(1, count + 1):
        if not round_:
            round_ = draws.sample(faults, len(faults))
        step = round(steps * number / (count + 1))
        damage = draws.choice(list(Damage))
        planned.append(Planned(number, round_.pop(), step, draws.random(), damage))
    return tuple(planned)
