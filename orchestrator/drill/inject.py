"""Makes one fault, on the host that has the rank it is aimed at.

Only processes that carry the mark of the run are touched, and only faults that were seen to have
happened are told, as `fault_injected` in events.jsonl.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from orchestrator.ascend.fence import RUN_VARIABLE
from orchestrator.drill.faults import Damage, Fault
from orchestrator.drill.ray_node import RayNode, node_above
from orchestrator.events import EventLog
from orchestrator.log_files import open_log
from orchestrator.processes import still_running
from orchestrator.run_directory import RunDirectory

_SEEN_WITHIN_S = 10.0


class NotNow(Exception):
    """The rank or the checkpoint that was aimed at is not there any more; aim again."""


@dataclass(frozen=True, slots=True)
class Target:
    """One fault, aimed. generation, step: of the group when it was chosen."""

    run: RunDirectory
    number: int
    fault: Fault
    damage: Damage
    generation: int
    step: int
    rank: int
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class Order:
    """What the process that outlives a host's Ray node shall do: its fault, and the node to bring back."""

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
    """On the host with this address, the target's: make the fault; returns why not, or nothing.

    A fault of a whole host is left to a process that outlives this one; it tells of it by itself.
    """
    try:
        match target.fault:
            case Fault.KILL_RANK:
                _kill(_process(target), target)
            case Fault.FREEZE:
                _freeze(_process(target), target)
            case Fault.CORRUPT_CHECKPOINT:
                _spoil_and_kill(_process(target), target)
            case Fault.KILL_HOST | Fault.PARTITION:
                _leave_to_agent(Order(target, node_above()))
    except (NotNow, psutil.Error) as error:
        return str(error)
    return ""


def tell(target: Target, at: float, proof: str, **more: str) -> None:
    """Write down that the fault has happened, `at` unix seconds, and how that was seen."""
    EventLog(target.run.events).emit(
        "fault_injected",
        number=target.number, fault=target.fault.value, rank=target.rank, host=target.host,
        step=target.step, generation=target.generation, at=round(at, 3), proof=proof, **more,
    )  # fmt: skip


def saved_checkpoints(run: RunDirectory) -> list[Path]:
    """Checkpoint directories that are whole, oldest first; those set aside are not among them."""
    named = run.checkpoints.glob("step_*")
    return sorted(path for path in named if path.name.removeprefix("step_").isdigit())


def _process(target: Target) -> psutil.Process:
    process = psutil.Process(target.pid)
    # The id may be another process's by now.
    if process.environ().get(RUN_VARIABLE) != str(target.run.root):
        raise NotNow(f"process {target.pid} is not rank {target.rank} of this run")
    return process


def _kill(process: psutil.Process, target: Target, proof: str = "", **more: str) -> None:
    at = time.time()
    process.kill()
    if still_running([process], _SEEN_WITHIN_S):
        raise NotNow(f"process {process.pid} does not end")
    tell(target, at, f"{proof}process {process.pid} is gone", **more)


def _freeze(process: psutil.Process, target: Target) -> None:
    at = time.time()
    _stop(process)
    tell(target, at, f"process {process.pid} is stopped")


def _stop(process: psutil.Process) -> None:
    process.suspend()
    deadline = time.monotonic() + _SEEN_WITHIN_S
    while process.status() != psutil.STATUS_STOPPED:
        if time.monotonic() > deadline:
            raise NotNow(f"process {process.pid} does not stop")
        os.sched_yield()


def _spoil_and_kill(process: psutil.Process, target: Target) -> None:
    """The rank that writes is stopped first, so that no checkpoint newer than the spoilt one appears."""
    _stop(process)
    saved = saved_checkpoints(target.run)
    if len(saved) < 2:
        process.resume()
        raise NotNow("there is no earlier checkpoint to go back to")
    newest = saved[-1]
    _kill(process, target, f"{newest.name}/{spoil(newest, target.damage)}, ", checkpoint=newest.name)


def spoil(checkpoint: Path, damage: Damage) -> str:
    """Damage a file of a checkpoint; returns which one, and how."""
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
            victim = checkpoint / "state.json"
            victim.unlink()
    return f"{victim.name} {damage.value}"


def _leave_to_agent(order: Order) -> None:
    """Start the process that takes the host away and brings it back; returns when it is on its own."""
    with open_log(order.target.run.logs / "drill_agents.log") as log:
        subprocess.run(
            [sys.executable, "-m", "orchestrator.drill.agent"],
            input=order.to_json().encode(), stdout=log, stderr=log, start_new_session=True, check=True,
        )  # fmt: skip
