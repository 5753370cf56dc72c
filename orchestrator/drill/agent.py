"""Takes its own host away and brings it back: `python -m orchestrator.drill.agent`, an order on stdin.

It ends with neither the Ray worker that started it nor that worker's Ray node, because it belongs
to neither: the process that was started ends at once and leaves its work to a child.
"""

import os
import subprocess
import sys
import time

import psutil

from orchestrator.drill import link
from orchestrator.drill.faults import Fault
from orchestrator.drill.inject import Order, tell
from orchestrator.drill.ray_node import RayNode
from orchestrator.events import EventLog
from orchestrator.processes import still_running

_AWAY_S = {Fault.KILL_HOST: 10.0, Fault.PARTITION: 12.0}
# Ray tells a raylet that it was given up as soon as they speak again; then the raylet ends.
_VERDICT_S = 30.0
_START_TRIES = 3


def carry_out(order: Order) -> None:
    """Make the fault, tell of it, bring the host back, and tell of that."""
    problem = ""
    try:
        if order.target.fault is Fault.KILL_HOST:
            _kill_host(order)
        else:
            _partition(order)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        problem = " ".join(str(error).split())
    events = EventLog(order.target.run.events)
    events.emit("host_returned", number=order.target.number, host=order.target.host, problem=problem)


def _kill_host(order: Order) -> None:
    at = time.time()
    gone = order.node.kill()
    tell(order.target, at, f"the raylet and {gone - 1} processes below it are gone")
    time.sleep(_AWAY_S[Fault.KILL_HOST])
    _start(order.node)


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
    if not still_running(_raylet(order.node), _VERDICT_S):
        order.node.kill()  # what the raylet may have left
        _start(order.node)


def _raylet(node: RayNode) -> list[psutil.Process]:
    return [psutil.Process(node.raylet)] if psutil.pid_exists(node.raylet) else []


def _start(node: RayNode) -> None:
    for tries_left in reversed(range(_START_TRIES)):
        try:
            node.start_again()
            break
        except subprocess.SubprocessError:
            if not tries_left:
                raise


def main() -> None:
    """Read the order, and carry it out in a child that nobody waits for."""
    order = Order.from_json(sys.stdin.read())
    if os.fork():
        os._exit(0)
    os.setsid()
    carry_out(order)


if __name__ == "__main__":
    main()
