"""Owns a run for as long as a block lasts: takes the lease, renews it in a thread, and gives it back."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator

from orchestrator.storage.lease import Clock, Lease, LeaseTimes, Owner, RunLost, take
from orchestrator.storage.protocol import Storage, StorageError
from orchestrator.threads import start_without_signals

logger = logging.getLogger(__name__)

# How long `end` waits for a heartbeat that hangs on a dead mount.
_LAST_HEARTBEAT_S = 5.0


class Ownership:
    """A lease that is renewed until `end`. on_lost: called once, in the renewing thread, when the run is lost."""

    def __init__(
        self,
        lease: Lease,
        times: LeaseTimes | None = None,
        clock: Clock | None = None,
        on_lost: Callable[[], None] = lambda: None,
    ):
        self.lease = lease
        self._times, self._clock, self._on_lost = times or LeaseTimes(), clock or Clock(), on_lost
        self._renewed_at = self._clock.now()
        self._distrusted_until = 0.0
        self._count = 0
        self._lost: RunLost | None = None
        self._refused = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_stopped, name="lease", daemon=True)

    def start(self) -> None:
        """Renew from now on."""
        start_without_signals(self._thread)

    def check(self) -> None:
        """Raise RunLost when another launch owns the run. Raises StorageError when that cannot be known."""
        if self._lost is not None:
            raise self._lost
        try:
            self.lease.check()
        except RunLost as lost:
            self._lost = lost
            raise

    def confirm(self) -> None:
        """Like `check`, but without a request to storage while no other launch can own the run.

        That is the case for `trusted_s` after a heartbeat. After a longer pause the next heartbeat is not enough:
        another launch may still see the old one in the cache of its mount, and take the run within its time-out.
        """
        now = self._clock.now()
        if (
            self._lost is not None
            or now < self._distrusted_until
            or now - self._renewed_at >= self._times.trusted_s
        ):
            self.check()

    def lost(self) -> RunLost | None:
        """Why this launch may not continue; None if it may, or if storage does not answer."""
        try:
            self.check()
        except RunLost as lost:
            return lost
        except StorageError:
            return None
        return None

    def renew(self) -> None:
        """Renew once. Raises RunLost or StorageError."""
        self.check()
        began = self._clock.now()
        self.lease.renew(self._count + 1, began)
        self._count += 1
        if began - self._renewed_at >= self._times.trusted_s:
            self._distrusted_until = began + self._times.timeout_s
        self._renewed_at = began

    def end(self) -> None:
        """Stop renewing and give the run back. Never fails: the run's result does not depend on it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_HEARTBEAT_S)
        if self._thread.is_alive() or self._lost is not None:
            return
        try:
            self.check()
            self.lease.renew(self._count + 1, self._clock.now(), ended=True)
        except RunLost:
            logger.warning("another launch took the run as this one ended")
        except StorageError as error:
            logger.warning("the run could not be given back (%s); the next launch may have to wait", error)

    def _renew_until_stopped(self) -> None:
        while not self._stop.wait(self._times.renew_every_s):
            try:
                self.renew()
                self._refused = False
            except RunLost:
                self._on_lost()
                return
            except StorageError as error:
                if not self._refused:
                    logger.warning("the lease of the run could not be renewed: %s", error)
                self._refused = True


@contextlib.contextmanager
def owned(storage: Storage, times: LeaseTimes | None = None) -> Iterator[Ownership]:
    """Own the run in `storage` for as long as the block lasts. Call it in the main thread.

    Raises RunIsOwned while another launch owns it, and StorageError. When the run is lost the block is interrupted as
    by Ctrl-C, and RunLost is raised instead of whatever the block raised.
    """
    ownership = Ownership(take(storage, Owner.this_process(), times), times, on_lost=_interrupt_main_thread)
    ownership.start()
    try:
        try:
            yield ownership
        finally:
            ownership.end()
    except BaseException as error:
        lost = ownership.lost()
        if lost is not None:
            raise lost from error
        raise


def _interrupt_main_thread() -> None:
    """A real signal, because it ends a wait in C++ too."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
