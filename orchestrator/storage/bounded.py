"""Calls that a lost mount may block for ever, with a time limit."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from orchestrator.storage.protocol import StorageUnavailable
from orchestrator.threads import start_without_signals

T = TypeVar("T")


class Background(Generic[T]):
    """A call in a daemon thread. It does not keep the process alive, and the caller may stop waiting for it."""

    def __init__(self, function: Callable[[], T]):
        self._function = function
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        start_without_signals(threading.Thread(target=self._run, daemon=True))

    def finished(self, within_s: float) -> bool:
        """Whether the call has ended, after waiting for at most so many seconds."""
        return self._done.wait(within_s)

    def result(self) -> T:
        """What the call returned; raises what it raised. It must have ended."""
        if self._error is not None:
            raise self._error
        return self._value[0]

    def _run(self) -> None:
        try:
            self._value.append(self._function())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._error = error
        finally:
            self._done.set()


def within(timeout_s: float, name: str, function: Callable[[], T]) -> T:
    """What `function` returns. Raises StorageUnavailable about `name` when it takes longer than `timeout_s`.

    The thread of a call that took too long stays blocked until the kernel answers it.
    """
    call = Background(function)
    if not call.finished(timeout_s):
        raise StorageUnavailable(name, f"no answer within {timeout_s:.0f} s")
    return call.result()
