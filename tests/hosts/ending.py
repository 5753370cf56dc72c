"""Lets signals end this process through its `finally` blocks instead of at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end. pytest ends its session for it as after Ctrl-C."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return f"ended by {signal.Signals(self.number).name}"

    @property
    def exit_code(self) -> int:
        """What a shell reports for a process that this signal killed."""
        return 128 + self.number


class Removal:
    """Set `begun` when the removal begins: a later signal must not stop it halfway."""

    begun = False


@contextmanager
def ends_by_exception() -> Iterator[Removal]:
    """Within the block, which must be in the main thread, SIGINT, SIGTERM, SIGHUP and SIGUSR1 raise Terminated.

    A signal that this process ignores stays ignored: that is what nohup is for. One that arrives
    during the removal raises as soon as the block is left.
    """
    removal = Removal()
    late: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        if not removal.begun:
            raise Terminated(number)
        late.append(number)

    replaced = {number: signal.getsignal(number) for number in _ENDING}
    replaced = {number: handler for number, handler in replaced.items() if handler is not signal.SIG_IGN}
    for number in replaced:
        signal.signal(number, end)
    try:
        yield removal
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
        if late:
            raise Terminated(late[0])
