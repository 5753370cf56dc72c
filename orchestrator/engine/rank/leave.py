"""How all ranks leave after the same step, when a host is drained or the launch ends.

A rank that left alone would let the others wait for it for ever. So every couple of seconds all ranks meet at a
step, and rank 0 broadcasts whether a notice has arrived and at which step they meet again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.engine.messages import Notice

# Meeting costs milliseconds; deadlines of drained hosts are half a minute and more.
_MEET_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """What rank 0 broadcasts. notice: the one to obey now, None to continue. next_step: where to meet again."""

    notice: Notice | None
    next_step: int


class Leaving:
    """One rank's part in the agreement.

    newest_notice: the rank's newest notice. broadcast: gives every rank the value of rank 0; all ranks must call it.
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
        self._met: tuple[int, float] | None = None

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
        if self._met is not None:
            step_s = max((now - self._met[1]) / max(step - self._met[0], 1), 1e-6)
            # The first steps seem shorter than they are: the device works through them later.
            self._every = max(1, min(2 * self._every, round(_MEET_EVERY_S / step_s)))
        self._met = (step, now)
        return Agreement(self._newest_notice(), step + self._every)
