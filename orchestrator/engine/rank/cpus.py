"""Pins a rank to as many CPUs as the job states, whatever its host has.

The bytes of a float32 sum depend on the number of threads that compute it, and MindSpore's libraries choose that
number differently: its kernels count the CPUs of the machine, oneDNN counts the CPUs that the process may use, and
OpenMP reads OMP_NUM_THREADS. In a process that is pinned to `threads` CPUs they all use the same number.
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

# Containers of one machine may share this folder; then their ranks exclude each other, too.
_LOCK_FOLDER = Path("/dev/shm")
# A process holds the lock for a few milliseconds.
_LOCK_WITHIN_S = 10.0
_POLL_S = 0.02


def compute_on(threads: int) -> None:
    """Let MindSpore compute on the CPU with `threads` threads, each on its own CPU.

    Call it before the first kernel runs. OMP_NUM_THREADS must have been `threads` when the process started.
    Raises InputError if the host has fewer CPUs.
    """
    claim_cpus(threads)
    limit_kernels(threads)


def limit_kernels(threads: int) -> None:
    """Let MindSpore's own kernels use `threads` threads, even if the host has more CPUs."""
    import mindspore
    from mindspore._c_expression import RuntimeConf

    if RuntimeConf.get_instance().is_op_threads_num_configured():
        return  # Ray reuses a process for several tasks of the same job
    # The dispatching thread computes, too. With more than one dispatching thread, a step takes three times as long.
    mindspore.runtime.dispatch_threads_num(1)
    mindspore.device_context.cpu.op_tuning.threads_num(max(1, threads - 1))


def claim_cpus(threads: int) -> tuple[int, ...]:
    """Pin this process to the `threads` CPUs with the fewest other pinned processes; returns these CPUs.

    Processes of one user choose one at a time, so that ranks that start together do not choose the same CPUs.
    Raises InputError if the process may use fewer than `threads` CPUs.
    """
    allowed = os.sched_getaffinity(0)
    if threads > len(allowed):
        raise InputError(
            f"cluster.threads is {threads}, but a rank may use only {len(allowed)} CPU(s) on "
            f"{os.uname().nodename}; lower threads, or leave that host out"
        )
    with _one_at_a_time():
        cpus = least_shared(allowed, _pinned_cpus(allowed), threads)
        bind_process(cpus)
    return cpus


def least_shared(allowed: Collection[int], pinned: Iterable[Collection[int]], number: int) -> tuple[int, ...]:
    """The `number` CPUs of `allowed` that occur in the fewest sets of `pinned`, sorted; on a tie the lowest CPU."""
    users = Counter(cpu for cpus in pinned for cpu in cpus)
    return tuple(sorted(sorted(allowed, key=lambda cpu: (users[cpu], cpu))[:number]))


def bind_process(cpus: Sequence[int]) -> None:
    """Let all threads of this process, also those of libraries, run on these CPUs only."""
    for thread in psutil.Process().threads():
        try:
            os.sched_setaffinity(thread.id, cpus)
        except ProcessLookupError:
            continue  # the thread ended after it was listed


def _pinned_cpus(allowed: Collection[int]) -> Iterator[set[int]]:
    """The CPU set of every other process that may not use all of `allowed`."""
    for process in psutil.process_iter():
        try:
            cpus = os.sched_getaffinity(process.pid)
            # A kernel thread has no command line. Most are pinned to one CPU and idle, so they do not count.
            if process.pid != os.getpid() and not cpus.issuperset(allowed) and process.cmdline():
                yield cpus
        except (OSError, psutil.Error):
            continue  # it ended after it was listed, or belongs to another user


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold this user's lock while a process chooses CPUs. If the lock cannot be taken, warn and continue without it.

    The choice affects the speed of ranks but never their result, so a missing lock is no reason to fail. Each user
    has a lock file of their own: anyone who can open a file can lock it, and could block other users.
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
    """A descriptor that holds the lock of the file at `path`. Raises OSError, and TimeoutError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(descriptor).st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "the file of another user")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder removed the file: a lock on a deleted file does not exclude a process that creates it.
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
