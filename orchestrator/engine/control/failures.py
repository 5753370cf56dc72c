"""The kinds of failure, and the engine's own errors."""

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.errors import ClusterError, InputError, OrchestratorError


class FailureKind(StrEnum):
    """The cause of a failed generation, in order of priority.

    One failure often makes other ranks fail, too. When several ranks report, the kind that is first in this list is
    the cause, and the others are its consequences.

    rank_unreachable: the connection broke and Ray does not know yet whether the process or its host is gone.
    path_blocked: storage works, but an object cannot be written because something else has its path.
    refused: a mistake that the user must correct. corrupt_checkpoint: a rank could not read the checkpoint to resume
    from. step_failed: the training function raised an error of its own. run_lost: another launch owns the run.
    """

    RUN_LOST = "run_lost"
    PREEMPTED = "preempted"
    LOSS_NOT_FINITE = "loss_not_finite"
    PATH_BLOCKED = "path_blocked"
    CORRUPT_CHECKPOINT = "corrupt_checkpoint"
    STORAGE = "storage"
    HOST_LOST = "host_lost"
    OUT_OF_MEMORY = "out_of_memory"
    RANK_UNREACHABLE = "rank_unreachable"
    RANK_CRASHED = "rank_crashed"
    SCHEDULER_LOST = "scheduler_lost"
    HANG = "hang"
    START_FAILED = "start_failed"
    REFUSED = "refused"
    STEP_FAILED = "step_failed"
    CONTROLLER = "controller"


BLAME = tuple(FailureKind)


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure: its kind, the rank where it began (None if unknown), and a one-line description.

    step: global steps done at that time, if the rank itself could report them. checkpoint: name of the checkpoint
    that a rank could not read.
    """

    kind: FailureKind
    rank: int | None
    detail: str
    step: int | None = None
    checkpoint: str | None = None


class RankFailed(OrchestratorError):
    """An error in a rank, already classified. The rank does that, because only it knows the type of the error.

    Ray sends it to the controller. It contains plain values only, so the controller can unpickle it even if it cannot
    import the module that defines the original error.
    """

    def __init__(
        self,
        kind: FailureKind,
        detail: str,
        step: int,
        rank: int | None = None,
        checkpoint: str | None = None,
    ):
        super().__init__(kind, detail, step, rank, checkpoint)
        self.kind, self.detail, self.step, self.rank, self.checkpoint = kind, detail, step, rank, checkpoint

    def __str__(self) -> str:
        return self.detail


class TrainingDiverged(OrchestratorError):
    """The loss is not finite. A retry would end the same way. Training functions may raise it, too."""

    def __init__(self, step: int, detail: str = "the loss is not finite"):
        super().__init__(step, detail)
        self.step, self.detail = step, detail

    def __str__(self) -> str:
        return f"{self.detail} at step {self.step}; lower the learning rate, or look at the data of that step"


class GroupHangs(ClusterError):
    """No rank makes progress. ranks: those that are behind; `rank` is the first of them."""

    def __init__(self, rank: int, ranks: tuple[int, ...], step: int, waited_s: float):
        super().__init__(rank, ranks, step, waited_s)
        self.rank, self.ranks, self.step, self.waited_s = rank, ranks, step, waited_s

    def __str__(self) -> str:
        return f"rank(s) {list(self.ranks)} made no progress after step {self.step} for {self.waited_s:.0f} s"


class EndedEarly(InputError):
    """A training function returned on some ranks, and others are at a later step. They would wait for ever."""

    def __init__(self, ranks: tuple[int, ...], step: int, group_step: int):
        super().__init__(ranks, step, group_step)
        self.ranks, self.step, self.group_step = ranks, step, group_step

    def __str__(self) -> str:
        return (
            f"the training function ended on rank(s) {list(self.ranks)} after step {self.step}, and other ranks are "
            f"at step {self.group_step}; let every rank call session.step for the same steps"
        )


class SchedulerLost(ClusterError):
    """The group's MindSpore scheduler ended before the group. Example: somebody killed it."""

    def __init__(self, rank: int, host: str):
        super().__init__(rank, host)
        self.rank, self.host = rank, host

    def __str__(self) -> str:
        return f"the MindSpore scheduler on {self.host} has ended"


class RanksDidNotJoin(ClusterError):
    """Some ranks never completed the rendezvous. Example: a host lost its link after its worker started."""

    def __init__(self, ranks: tuple[int, ...], hosts: tuple[str, ...], timeout_s: float):
        super().__init__(ranks, hosts, timeout_s)
        self.ranks, self.hosts, self.timeout_s = ranks, hosts, timeout_s

    def __str__(self) -> str:
        return (
            f"ranks {list(self.ranks)} on {', '.join(sorted(set(self.hosts)))} did not join the group within "
            f"{self.timeout_s:.0f} s; check those hosts with `sdnet-orchestrate check`"
        )


class RendezvousFailed(ClusterError):
    """MindSpore gave up in a rank that tried to join. Example: another rank never published its address."""

    def __init__(self, rank: int, detail: str):
        super().__init__(rank, detail)
        self.rank, self.detail = rank, detail

    def __str__(self) -> str:
        return (
            f"rank {self.rank} could not join the group ({self.detail}); check the network between the hosts "
            "with `sdnet-orchestrate check`"
        )


class RanksStillRun(ClusterError):
    """Ranks of the last generation survived SIGKILL. Example: a process waits in the kernel for a dead disk."""

    def __init__(self, ranks: tuple[int, ...], hosts: tuple[str, ...]):
        super().__init__(ranks, hosts)
        self.ranks, self.hosts = ranks, hosts

    def __str__(self) -> str:
        return (
            f"ranks {list(self.ranks)} of the last generation still run on {', '.join(self.hosts)} after "
            "SIGKILL; look at those processes, or restart the hosts"
        )
