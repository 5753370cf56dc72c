"""The CPUs that a rank computes on: as many as the job says, whatever its host has.

The bytes of a float32 sum depend on how many threads share it, and MindSpore's libraries count
differently: its kernels count the CPUs of the machine, oneDNN counts those that the process may use, and
OpenMP reads OMP_NUM_THREADS. A process that is pinned to `threads` CPUs gives all of them one answer.
"""

import errno
import fcntl
import logging
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from orchestrator.errors import InputError

logger = logging.getLogger(__name__)

# Containers of one machine may share it, so their ranks see each other's lock.
_LOCK_FOLDER = Path("/dev/shm")
# A process holds the lock for some milliseconds.
_LOCK_WITHIN_S = 10.0
_POLL_S = 0.02


def compute_on(threads: int) -> None:
    """Let MindSpore compute on the CPU with `threads` threads, each on a CPU of its own.

    Must come before the first kernel runs; OMP_NUM_THREADS must be `threads` since before the
    process started. Raises InputError when the host has fewer CPUs.
    """
    claim_cpus(threads)
    limit_kernels(threads)


def limit_kernels(threads: int) -> None:
    """Let MindSpore's own kernels share their work among `threads` threads, also on a larger host."""
    import mindspore
    from mindspore._c_expression import RuntimeConf

    if RuntimeConf.get_instance().is_op_threads_num_configured():
        return  # Ray gives a process one task after another, all of the same job
    # The thread that dispatches computes, too: with more than one of those, a step takes three times as long.
    mindspore.runtime.dispatch_threads_num(1)
    mindspore.device_context.cpu.op_tuning.threads_num(max(1, threads - 1))


def claim_cpus(threads: int) -> tuple[int, ...]:
    """Pin this process to `threads` of the CPUs it may use, those with the fewest other pinned processes.

    One process of a user chooses at a time, so that ranks which start together do not choose the same.
    Raises InputError when it may use fewer.
    """
    allowed = os.sched_getaffinity(0)
    if threads > len(allowed):
        raise InputError(
            f"cluster.threads is {threads}, but a rank may use only {len(allowed)} CPU(s) on "
            f"{os.uname().nodename}; lower threads, or leave that host out"
        )
    with _one_at_a_time():
        cpus = least_crowded(allowed, _held_cpus(allowed), threads)
        bind_process(cpus)
    return cpus


def least_crowded(allowed: Collection[int], held: Iterable[Collection[int]], number: int) -> tuple[int, ...]:
    """The `number` CPUs of `allowed` that occur in the fewest sets of `held`; the lowest ones first."""
    crowd = Counter(cpu for cpus in held for cpu in cpus)
    return tuple(sorted(sorted(allowed, key=lambda cpu: (crowd[cpu], cpu))[:number]))


def bind_process(cpus: Sequence[int]) -> None:
    """Let this process run on these CPUs only, the threads too that libraries have started already."""
    for thread in psutil.Process().threads():
        try:
            os.sched_setaffinity(thread.id, cpus)
        except ProcessLookupError:
            continue  # the thread has ended since it was listed


def _held_cpus(allowed: Collection[int]) -> Iterator[set[int]]:
    """The CPUs of every other process that is pinned to some of `allowed` but not to all."""
    for process in psutil.process_iter():
        try:
            cpus = os.sched_getaffinity(process.pid)
            # The kernel's own threads have no command; most are pinned to a CPU, and mostly idle.
            if process.pid != os.getpid() and not cpus.issuperset(allowed) and process.cmdline():
                yield cpus
        except (OSError, psutil.Error):
            continue  # it has ended since it was listed, or belongs to another user


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold this user's lock on choosing CPUs; without it, choose all the same.

    The choice changes the speed of ranks, never their result, so a lock that cannot be had is no reason to
    fail. The file belongs to this user alone: any user can lock a file that he can open, and keep it locked.
    """
    path = _LOCK_FOLDER / f"sdnet-cpus-{os.geteuid()}.lock"
    try:
        lock = _locked(path, _LOCK_WITHIN_S)
    except OSError as error:
        logger.warning(
            "%s cannot be locked (%s): ranks that start now may share CPUs and be slower; see who has it "
            "with `fuser -v %s`", path, error.strerror or error, path,
        )  # fmt: skip
        yield
        return
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _locked(path: Path, timeout_s: float) -> int:
    """A descriptor that holds the lock of the file at `path`. Raises OSError, also if it is held."""
    deadline = time.monotonic() + timeout_s
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(descriptor).st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "the file of another user")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder removes the file: a lock on a file that is gone excludes nobody.
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise TimeoutError(errno.ETIMEDOUT, f"locked for {timeout_s:g} s") from None
            time.sleep(_POLL_S)
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
