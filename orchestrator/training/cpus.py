"""The CPUs that a rank computes on: as many as the job says, whatever its host has.

The bytes of a float32 sum depend on how many threads share it, and MindSpore's libraries count for
themselves: its kernels by the CPUs of the machine, oneDNN by those that the process may use, OpenMP
by OMP_NUM_THREADS. A process that is held to `threads` CPUs gives all of them one answer.
"""

import fcntl
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

import psutil

from sdnet.errors import InputError

# Every process of this machine can lock it, also those of other containers that share it; nothing
# is written there.
_MEETING_PLACE = "/dev/shm"


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
    """Hold this process to `threads` of the CPUs it may use, those that fewest others are held to.

    One process at a time chooses, so that ranks which start together do not choose the same.
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
            continue  # the thread has ended meanwhile


def _held_cpus(allowed: Collection[int]) -> Iterator[set[int]]:
    """The CPUs of every other process that is held to some of `allowed` but not to all."""
    for process in psutil.process_iter():
        try:
            cpus = os.sched_getaffinity(process.pid)
            # The kernel's own threads have no command; most are held to a CPU, and mostly idle.
            if process.pid != os.getpid() and not cpus.issuperset(allowed) and process.cmdline():
                yield cpus
        except (OSError, psutil.Error):
            continue  # it has ended meanwhile, or is none of our business


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    place = os.open(_MEETING_PLACE, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)
