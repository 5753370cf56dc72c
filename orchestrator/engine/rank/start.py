"""Runs on a worker: makes it a rank of a group. This must happen before any other code uses the device."""

import contextlib
import importlib
import logging
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ray

from orchestrator.engine.control.failures import RendezvousFailed
from orchestrator.engine.control.generation import Member
from orchestrator.engine.messages import GroupInfo
from orchestrator.engine.options import StartOptions
from orchestrator.engine.rank.cpus import bind_process, compute_on, limit_kernels
from orchestrator.engine.rank.link import open_link
from orchestrator.engine.rank.scheduler import start_scheduler
from orchestrator.engine.rank.store import connect_store, join_through_store, open_store
from orchestrator.engine.rank.wakeful import wakeful
from orchestrator.errors import InputError, headline
from orchestrator.process_identity import start_ticks

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HostShare:
    """A rank's share of an Ascend host. cpus: those near its device. ranks: all ranks of the host, also this one."""

    cpus: tuple[int, ...]
    ranks: tuple[int, ...]


def describe_worker() -> Member:
    """This worker's host, process and NPUs. rank is -1: it is assigned later."""
    context, host = ray.get_runtime_context(), ray.util.get_node_ip_address()
    return Member(
        rank=-1,
        host=host,
        node=context.get_node_id(),
        pid=os.getpid(),
        started=start_ticks(os.getpid()),
        npus=npu_numbers(context.get_accelerator_ids().get("NPU", []), host),
    )


def npu_numbers(ids: Sequence[str], host: str) -> tuple[int, ...]:
    """Ray's ids of NPUs as numbers, in Ray's order.

    Ray copies them from ASCEND_RT_VISIBLE_DEVICES without a check. Raises InputError for an id that is not a number.
    """
    for npu in ids:
        if not (npu.isascii() and npu.isdigit()):
            raise InputError(
                f"Ray on {host} counts an NPU {npu[:40]!r}; set ASCEND_RT_VISIBLE_DEVICES to numbers with "
                "commas between them, as 0,1,2, before `ray start` there"
            )
    return tuple(int(npu) for npu in ids)


def preload(modules: tuple[str, ...]) -> None:
    """Import MindSpore, the engine and `modules` ahead of time, so that a start does not wait for imports.

    Raises InputError if one of `modules`, which are the user's, cannot be imported: another try would fail, too.
    """
    for module in ("mindspore", "orchestrator.engine.rank.run"):
        importlib.import_module(module)
    for module in modules:
        try:
            importlib.import_module(module)
        except (InputError, OSError):  # a mistake that is named already, or a file system that may return
            raise
        except (Exception, SystemExit) as error:
            raise InputError(
                f"a rank on {platform.node()} cannot import {module} ({type(error).__name__}: {error}); import it in "
                "a fresh Python there, in the folder where the program started or with PYTHONPATH set"
            ) from error


def open_rendezvous(info: GroupInfo, world_size: int, options: StartOptions) -> tuple[str, int]:
    """On rank 0's worker: open the group's store, or start its scheduler; returns the address where it listens."""
    link = open_link(info, 0)
    host = ray.util.get_node_ip_address()
    if options.rendezvous == "store":
        preload(options.preload)
        store, address = open_store(host, world_size, options.start_timeout_s)
        link.store = store
        return address
    scheduler = start_scheduler(
        host,
        world_size,
        timeout_s=options.start_timeout_s,
        failure_budget_s=options.failure_budget_s,
        soc=options.soc,
        log_path=options.scheduler_log,
        while_starting=lambda: preload(options.preload),
    )
    link.scheduler = scheduler
    return scheduler.host, scheduler.port


def join_group(
    info: GroupInfo,
    rank: int,
    environment: dict[str, str],
    address: tuple[str, int] | None,
    share: HostShare | None,
    options: StartOptions,
) -> None:
    """Make this worker a rank of the group.

    environment: the variables of the rank. address: of the store or the scheduler, None if there is neither. share:
    None on hosts without NPUs. Raises RendezvousFailed if the ranks did not find each other, and InputError if the
    host has too few CPUs or a module cannot be imported.
    """
    link = open_link(info, rank)
    os.environ.update(environment)
    import mindspore

    mindspore.set_device("Ascend" if options.on_device else "CPU")
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    preload(options.preload)  # a group of one has not imported them yet
    world_size = int(environment["RANK_SIZE"])
    if world_size > 1:
        # Not for HCCL: it waits in its own way, and the effect of signals on it is untested.
        with contextlib.nullcontext() if options.on_device else wakeful(), _rendezvous_errors(rank):
            if options.rendezvous == "store" and address is not None:
                if link.store is None:
                    link.store = connect_store(address, world_size, options.start_timeout_s)
                join_through_store(link.store, rank, world_size, options.start_timeout_s)
            else:
                mindspore.communication.init()
        if share is not None and len(share.ranks) > 1:
            mindspore.communication.create_group(host_group_name(share.ranks[0]), list(share.ranks))
    _pin(share, options)


@contextlib.contextmanager
def _rendezvous_errors(rank: int) -> Iterator[None]:
    """Turn MindSpore's RuntimeError, the only type that it raises here, into RendezvousFailed."""
    try:
        yield
    except RuntimeError as error:
        detail = headline(error) or "no reason given"
        raise RendezvousFailed(rank, detail[:200]) from error


def host_group_name(first_rank: int) -> str:
    """Name of the communicator that the ranks of one host share; `first_rank` is the lowest of them."""
    # The scheduler would treat groups with the same name on different hosts as one group.
    return f"host_of_rank_{first_rank}"


def _pin(share: HostShare | None, options: StartOptions) -> None:
    """Pin the process to its CPUs and limit MindSpore's threads, before the first computation.

    Pin only after the rendezvous: MindSpore's client races its event thread, and on one CPU it may retry for seconds.
    """
    import mindspore

    if share is not None:
        bind_process(share.cpus)
    if options.on_device:
        mindspore.runtime.dispatch_threads_num(options.threads)
    elif share is None:
        compute_on(options.threads)
    else:
        limit_kernels(options.threads)
