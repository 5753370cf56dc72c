"""How all ranks exit after the same step, when a host is drained or the launch ends.

If one rank exited alone, the others would wait in their next collective for ever. So about every two seconds the
ranks synchronise after a step: rank 0 broadcasts whether a notice has arrived, and at which step they do this again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.engine.messages import Notice

# A broadcast takes milliseconds. Drained hosts have a deadline of half a minute or more.
_SYNC_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """What rank 0 broadcasts. notice: the one to obey now, None to continue. next_step: when to synchronise again."""

    notice: Notice | None
    next_step: int


class Leaving:
    """One rank's side of the agreement on when to exit.

    newest_notice: returns the rank's newest notice. broadcast: gives every rank the value of rank 0; all ranks must
    call it.
    """

    def __init__(
        self,
        rank: int,
        newest_notice: Callable[[], Notice | None],
        broadcast: Callable[[Agreement | None], Agreement],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._rank, self._newest_notice, self._broadcast, self._clock = rank, newest_notice, broadcast, clock
        self._every = 1
        self._next_step = 0
        self._synced: tuple[int, float] | None = None

    def agreed(self, step: int) -> Notice | None:
        """The notice that all ranks obey after `step` global steps; the same on every rank."""
        if step < self._next_step:
            return None
        proposal = self._proposal(step) if self._rank == 0 else None
        agreement = self._broadcast(proposal)
        self._next_step = agreement.next_step
        return agreement.notice

    def _proposal(self, step: int) -> Agreement:
        now = self._clock()
        if self._synced is not None:
            step_s = max((now - self._synced[1]) / max(step - self._synced[0], 1), 1e-6)
            # The device runs steps asynchronously, so the first ones seem too short. At most doubling the distance
            # prevents a long gap without a broadcast.
            self._every = max(1, min(2 * self._every, round(_SYNC_EVERY_S / step_s)))
        self._synced = (step, now)
        return Agreement(self._newest_notice(), step + self._every)
