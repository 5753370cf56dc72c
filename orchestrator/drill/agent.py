"""Takes its own host away and brings it back: `python -m orchestrator.drill.agent`, an order on stdin.

It outlives the Ray worker that started it and that worker's Ray node, because it belongs to
neither: the process that was started ends at once and leaves its work to a child.
"""

import os
import subprocess
import sys
import time

import psutil

from orchestrator.drill import link
from orchestrator.drill.faults import Fault
from orchestrator.drill.inject import Order, tell
from orchestrator.drill.ray_node import RayNode, kill_trees
from orchestrator.events import EventLog
from orchestrator.processes import still_running

_AWAY_S = {Fault.KILL_HOST: 10.0, Fault.PARTITION: 12.0}
# The worker that started us must first answer the drill, which would otherwise aim again.
_HEAD_START_S = 1.0
# Ray tells a raylet that it was given up as soon as they speak again; then the raylet ends.
_VERDICT_S = 30.0
_START_TRIES = 3


def carry_out(order: Order) -> None:
    """Make the fault and report it, bring the host back and report that."""
    # Before anything is started: Ray's workers, and what they start, have a low priority.
    note, problem = order.node.priority.take(), ""
    time.sleep(_HEAD_START_S)
    try:
        if order.target.fault is Fault.KILL_HOST:
            _kill_host(order)
        else:
            _partition(order)
    except (OSError, RuntimeError, subprocess.SubprocessError, psutil.Error) as error:
        problem = " ".join(str(error).split())
    EventLog(order.target.run.events).emit(
        "host_returned", number=order.target.number, host=order.target.host, problem=problem, note=note
    )


def _kill_host(order: Order) -> None:
    at = time.time()
    gone = order.node.kill()
    tell(order.target, at, f"the raylet and {gone - 1} processes below it are gone")
    time.sleep(_AWAY_S[Fault.KILL_HOST])
    start_again(order.node)


def _partition(order: Order) -> None:
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
    # Told now: the storage may be behind the link that was down.
    if not down:
        raise RuntimeError(f"{interface} did not go down")
    tell(order.target, at, f"{interface} was down for {seconds:.0f} s")
    raylet = order.node.raylet.process()
    if raylet is None or not still_running([raylet], _VERDICT_S):
        order.node.kill()  # what the raylet may have left
        start_again(order.node)


def start_again(node: RayNode, tries: int = _START_TRIES) -> None:
    """Start the node again. Raises RuntimeError when no try succeeds.

    `ray start` gives up after 30 s, for example on busy cores, but leaves the raylet that it has
    started: that one is ended before the next try, or the host would join twice.
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
    """Read the order, and carry it out in a child that nobody waits for."""
    order = Order.from_json(sys.stdin.read())
    if os.fork():
        os._exit(0)
    os.setsid()
    carry_out(order)


if __name__ == "__main__":
    main()
