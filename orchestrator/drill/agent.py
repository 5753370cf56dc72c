"""Injects a fault into its own host and repairs it: `python -m orchestrator.drill.agent`, with the order on stdin.

The fault kills the Ray worker that started this process, and that worker's Ray node. To survive it, the process
starts a child in a new session and ends at once; the child does the work.
"""

import os
import subprocess
import sys
import time

import psutil

from orchestrator.drill import link
from orchestrator.drill.faults import Fault
from orchestrator.drill.inject import Order, Record, fault_of
from orchestrator.drill.ray_node import RayNode, kill_trees
from orchestrator.engine.host.processes import still_running
from orchestrator.telemetry.events import HostReturned
from orchestrator.telemetry.record import EventWriter

_AWAY_S = {Fault.KILL_HOST: 10.0, Fault.PARTITION: 12.0}
# First the worker that started us must answer the drill. Without the answer the drill would inject a second fault.
_HEAD_START_S = 1.0
# A raylet that Ray declared dead learns this when it is connected again, and then ends.
_VERDICT_S = 30.0
_START_TRIES = 3
# Storage may need a moment after the link is up again. The drill waits longer for the host.
_STORAGE_RETURN_S = 60.0


def carry_out(order: Order) -> None:
    """Inject the fault, repair the host, and record both."""
    # Before any child is started: Ray lowers the priority of its workers, and children inherit it.
    note, problem = order.node.priority.take(), ""
    with EventWriter(order.target.run.storage, lease=order.target.lease) as events:
        time.sleep(_HEAD_START_S)
        try:
            if order.target.fault is Fault.KILL_HOST:
                _kill_host(order, events.record)
            else:
                _partition(order, events.record)
        except (OSError, RuntimeError, subprocess.SubprocessError, psutil.Error) as error:
            problem = " ".join(str(error).split())
        returned = HostReturned(
            number=order.target.number, host=order.target.host, problem=problem, note=note
        )
        events.record(returned)
        _wait_for_storage(events)


def _kill_host(order: Order, record: Record) -> None:
    at = time.time()
    gone = order.node.kill()
    record(fault_of(order.target, at, f"the raylet and {gone - 1} processes below it are gone"))
    time.sleep(_AWAY_S[Fault.KILL_HOST])
    start_again(order.node)


def _partition(order: Order, record: Record) -> None:
    interface = link.interface_of(order.target.host)
    if interface is None:
        raise RuntimeError(f"no interface has the address {order.target.host}")
    at, seconds = time.time(), _AWAY_S[Fault.PARTITION]
    routes = link.cut(interface)
    try:
        down = link.is_down(interface)
        time.sleep(seconds)
    finally:
        link.heal(interface, routes)
    if not down:
        raise RuntimeError(f"{interface} did not go down")
    record(fault_of(order.target, at, f"{interface} was down for {seconds:.0f} s"))
    raylet = order.node.raylet.process()
    if raylet is None or not still_running([raylet], _VERDICT_S):
        order.node.kill()  # processes that the raylet may have left
        start_again(order.node)


def _wait_for_storage(events: EventWriter) -> None:
    """Wait, but not for ever, until the events are on storage: events that are not written at the end are lost."""
    deadline = time.monotonic() + _STORAGE_RETURN_S
    while not events.flush() and time.monotonic() < deadline:
        time.sleep(1.0)


def start_again(node: RayNode, tries: int = _START_TRIES) -> None:
    """Start the node again. Raises RuntimeError when no try succeeds.

    `ray start` gives up after 30 s, for example on busy cores, but does not end the raylet that it
    started. That raylet is killed before the next try. Otherwise the host would join twice.
    """
    before = node.raylets()
    problem = ""
    for _ in range(tries):
        try:
            node.start_again()
            return
        except subprocess.SubprocessError as error:
            problem = str(error)
            kill_trees(list(node.raylets() - before))
    raise RuntimeError(f"Ray did not start again in {tries} tries: {problem}")


def main() -> None:
    """Read the order, start a child process that carries it out, and do not wait for it."""
    order = Order.from_json(sys.stdin.read())
    if os.fork():
        os._exit(0)
    os.setsid()
    carry_out(order)


if __name__ == "__main__":
    main()
