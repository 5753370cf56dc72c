"""Injects one fault, on the host of its target rank.

A fault of a rank only touches a process with the mark of the run. A fault is recorded, as `fault_injected`, only after
its effect was observed.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from orchestrator.drill.faults import OF_HOSTS, Damage, Fault
from orchestrator.drill.ray_node import RayNode, node_above
from orchestrator.engine.checkpoints import checkpoint_names
from orchestrator.engine.host.left_over import RUN_VARIABLE
from orchestrator.engine.host.log_files import open_log
from orchestrator.engine.host.processes import still_running
from orchestrator.job.run_directory import RunDirectory
from orchestrator.module_path import python_module
from orchestrator.process_identity import start_ticks
from orchestrator.storage import StorageError
from orchestrator.telemetry.event import Event
from orchestrator.telemetry.events import FaultInjected
from orchestrator.telemetry.record import EventWriter

_SEEN_WITHIN_S = 10.0

Record = Callable[[Event], None]


class NotNow(Exception):
    """The fault cannot be injected now, for example because the rank has ended; the drill chooses again."""


@dataclass(frozen=True, slots=True)
class Target:
    """One fault and its target rank. lease, generation, step: of the group when the rank was chosen.

    host, pid, started: the rank's process. started: in clock ticks after boot, None when unknown.
    """

    run: RunDirectory
    number: int
    fault: Fault
    damage: Damage
    lease: int
    generation: int
    step: int
    rank: int
    host: str
    pid: int
    started: int | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """The order for the process that survives a fault of its host: the fault, and the Ray node to restart."""

    target: Target
    node: RayNode

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Order":
        raw = json.loads(text)
        target = raw["target"]
        target |= {
            "run": RunDirectory(Path(target["run"]["root"])),
            "fault": Fault(target["fault"]),
            "damage": Damage(target["damage"]),
        }
        return cls(Target(**target), RayNode.from_dict(raw["node"]))


def inject(address: str, target: Target) -> str:
    """On the target's host, which has this address: inject the fault; returns why that failed, or an empty string.

    For a fault of a whole host, a process is started that survives the fault and records it.
    """
    try:
        if target.fault in OF_HOSTS:
            _leave_to_agent(Order(target, node_above()))
        else:
            with EventWriter(target.run.storage, lease=target.lease) as events:
                _hit_rank(target, events.record)
    except (NotNow, psutil.Error, StorageError) as error:
        return str(error)
    return ""


def fault_of(target: Target, at: float, proof: str, checkpoint: str | None = None) -> FaultInjected:
    """The event of a fault that happened `at` unix seconds; proof: the evidence."""
    return FaultInjected(
        number=target.number,
        fault=target.fault.value,
        generation=target.generation,
        step=target.step,
        rank=target.rank,
        host=target.host,
        at=round(at, 3),
        proof=proof,
        damage=None if checkpoint is None else target.damage.value,
        checkpoint=checkpoint,
    )


def _hit_rank(target: Target, record: Record) -> None:
    process, at = _process(target), time.time()
    match target.fault:
        case Fault.KILL_RANK:
            _kill(process)
            record(fault_of(target, at, f"process {process.pid} is gone"))
        case Fault.FREEZE:
            _stop(process)
            record(fault_of(target, at, f"process {process.pid} is stopped"))
        case Fault.CORRUPT_CHECKPOINT:
            _corrupt_and_kill(process, target, record)


def _process(target: Target) -> psutil.Process:
    process = psutil.Process(target.pid)
    # The kernel may have reused the pid.
    same = target.started in (None, start_ticks(target.pid))
    if not same or process.environ().get(RUN_VARIABLE) != str(target.run.root):
        raise NotNow(f"process {target.pid} is not rank {target.rank} of this run")
    return process


def _kill(process: psutil.Process) -> None:
    process.kill()
    if still_running([process], _SEEN_WITHIN_S):
        raise NotNow(f"process {process.pid} does not end")


def _stop(process: psutil.Process) -> None:
    process.suspend()
    deadline = time.monotonic() + _SEEN_WITHIN_S
    while process.status() != psutil.STATUS_STOPPED:
        if time.monotonic() > deadline:
            raise NotNow(f"process {process.pid} does not stop")
        os.sched_yield()


def _corrupt_and_kill(process: psutil.Process, target: Target, record: Record) -> None:
    """Damage the newest checkpoint and kill the rank that writes them.

    The rank is stopped first. Otherwise it could write a newer checkpoint, and no rank would read the damaged one.
    """
    _stop(process)
    try:
        name, damage = _damage_newest(target)
    except (NotNow, StorageError, OSError):
        process.resume()
        raise
    at = time.time()
    _kill(process)
    record(fault_of(target, at, f"{name}/{damage}, process {process.pid} is gone", checkpoint=name))


def _damage_newest(target: Target) -> tuple[str, str]:
    """Damage the newest checkpoint; returns its name, and what was done. Raises NotNow, StorageError or OSError."""
    names = checkpoint_names(target.run.storage)
    if len(names) < 2:
        raise NotNow("there is no earlier checkpoint to go back to")
    return names[-1], damage_checkpoint(target.run.checkpoints / names[-1], target.damage)


def damage_checkpoint(checkpoint: Path, damage: Damage) -> str:
    """Damage a data file of a checkpoint; returns which one, and how.

    Never `state.json`: without that file a checkpoint does not exist, so none could be found corrupt.
    """
    match damage:
        case Damage.FLIP_A_BIT:
            victim = checkpoint / "model.ckpt"
            with victim.open("r+b") as file:
                file.seek(victim.stat().st_size // 2)
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 1]))
        case Damage.TRUNCATE:
            victim = checkpoint / "optimizer.ckpt"
            os.truncate(victim, victim.stat().st_size // 2)
        case Damage.REMOVE:
            victim = checkpoint / "model.ckpt"
            victim.unlink()
    return f"{victim.name} {damage.value}"


def _leave_to_agent(order: Order) -> None:
    """Start the process that disables the host and restores it; returns once it runs independently."""
    with open_log(order.target.run.logs / "drill_agents.log") as log:
        subprocess.run(
            python_module("orchestrator.drill.agent"),
            input=order.to_json().encode(), stdout=log, stderr=log, start_new_session=True, check=True,
        )  # fmt: skip
