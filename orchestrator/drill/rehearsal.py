"""The drill itself: the clean run, then the same run again while faults are made."""

import filecmp
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import yaml

from orchestrator.drill.faults import OF_HOSTS, Fault, Planned, plan_faults
from orchestrator.drill.hosts import Hosts
from orchestrator.drill.inject import Target, inject, saved_checkpoints
from orchestrator.drill.launched import Launched, launched
from orchestrator.drill.outcome import (
    Event,
    Group,
    fault_report,
    goodput,
    mean_step_s,
    recovery_of,
    return_of,
    stepping_group,
    was_made,
)
from orchestrator.errors import OrchestratorError
from orchestrator.events import EventLog
from orchestrator.report.summary import read_summary
from orchestrator.run_directory import RunDirectory, write_atomically, write_json
from orchestrator.spec import JobSpec
from sdnet.errors import InputError

# One fault may show as several failures: a host lost, and a start that failed before it is back.
_FAILURES_A_FAULT = 5
# What the agent of a host may take: away, the raylet's end, and three tries to start it again.
_HOST_BACK_S = 240.0
# How long Ray may take to list every host again when the run is over.
_ALL_BACK_S = 30.0
_AIM_AGAIN_S = 0.5

Shows = Callable[[EventLog], AbstractContextManager[None]]


class CleanRunFailed(OrchestratorError):
    """The job does not even succeed undisturbed. Example: the loss is not finite."""

    def __init__(self, run: str, last_words: str):
        super().__init__(run, last_words)
        self.run, self.last_words = run, last_words

    def __str__(self) -> str:
        return f"the undisturbed run {self.run} did not succeed: {self.last_words}"


def run_directories(spec: JobSpec) -> tuple[RunDirectory, RunDirectory]:
    """Of the undisturbed run, and of the disturbed one."""
    clean, disturbed = (RunDirectory.of(spec.storage, spec.name + end) for end in ("-drill-clean", "-drill"))
    if disturbed.events.exists():
        raise InputError(
            f"{disturbed.root} holds an earlier drill; delete it, or give this one another `--set name=...`"
        )
    return clean, disturbed


class Rehearsal:
    """One drill of one job. show: shows a run while it lasts."""

    def __init__(self, spec: JobSpec, hosts: Hosts, show: Shows):
        self._spec, self._hosts, self._show = spec, hosts, show
        self.spare_hosts = hosts.spare()
        self._clean, self._disturbed = run_directories(spec)
        self._why_not: dict[int, str] = {}

    def run(self, faults: Sequence[Fault], count: int, seed: int) -> dict[str, Any]:
        """Both runs; returns what drill.json holds, which is written, too."""
        steps = self._run_undisturbed()["steps"]
        planned = plan_faults(faults, count, seed, steps)
        history = self._run_disturbed(planned)
        missing = self._missing_hosts()
        reports = [fault_report(history, fault, self._why_not.get(fault.number, "")) for fault in planned]
        summary = read_summary(self._disturbed)
        step_s = mean_step_s(EventLog(self._clean.events).read())
        result = {
            "name": self._spec.name,
            "seed": seed,
            "injected": sum(report["fired"] for report in reports),
            "status": summary["status"] if summary else "failed",
            "same_bytes": same_bytes(self._clean, self._disturbed),
            "goodput": goodput(history, steps, step_s),
            "steps": steps,
            "step_s": step_s and round(step_s, 4),
            "train_s": summary and summary["seconds"]["train"],
            "missing_hosts": missing,
            "faults": reports,
        }
        write_json(self._disturbed.root / "drill.json", result)
        return result

    def _run_undisturbed(self) -> dict[str, Any]:
        with self._launched(self._clean, self._spec.values()) as launch:
            launch.until_end()
        summary = read_summary(self._clean)
        if launch.process.returncode == 2:
            raise InputError(launch.last_words.removeprefix("sdnet-orchestrate: "))
        if summary is None or summary["status"] != "succeeded":
            raise CleanRunFailed(str(self._clean.root), launch.last_words)
        return summary

    def _run_disturbed(self, planned: Sequence[Planned]) -> list[Event]:
        most = max(self._spec.recovery.max_failures, _FAILURES_A_FAULT * len(planned))
        job = self._spec.values()
        job["data"] = {"prepared": str(self._clean.data)}
        job["recovery"]["max_failures"] = most
        with self._launched(self._disturbed, job) as launch:
            for fault in planned:
                if not self._make(fault, launch):
                    break
            launch.until_end()
        return launch.history

    @contextmanager
    def _launched(self, run: RunDirectory, job: Mapping[str, Any]) -> Iterator[Launched]:
        """Launch the job as this run, from a file that is written for it."""
        run.create()
        path = run.root / "drill.yaml"
        whole = {**job, "name": run.root.name, "storage": str(run.root.parent)}
        write_atomically(path, yaml.safe_dump(whole, sort_keys=False))
        with self._show(EventLog(run.events)), launched(path, run) as launch:
            yield launch

    def _make(self, planned: Planned, launch: Launched) -> bool:
        """One fault, and the recovery from it; False when the run has ended before."""
        while launch.until(lambda: ready_group(planned, launch) is not None):
            group = ready_group(planned, launch)
            assert group is not None
            ranks = self._may_hit(planned.fault, group)
            if not ranks:
                self._why_not[planned.number] = "no rank was on a host that may be lost"
                return True
            target = _target(planned, group, planned.choose(ranks), launch.run)
            problem = self._hosts.call(target.host, partial(inject, target=target))
            launch.read()
            # The answer may be lost with the host that the fault takes away.
            if not problem or was_made(launch.history, planned.number):
                return self._recovered(target, launch)
            # The group has changed since its events were read; aim again.
            self._why_not[planned.number] = problem
            time.sleep(_AIM_AGAIN_S)
        return False

    def _may_hit(self, fault: Fault, group: Group) -> list[int]:
        if fault is Fault.CORRUPT_CHECKPOINT:
            return [0]  # it writes the checkpoints
        if fault not in OF_HOSTS:
            return sorted(group.ranks)
        spare = self.spare_hosts
        fit = {host for host, uncuttable in spare.items() if fault is Fault.KILL_HOST or not uncuttable}
        return sorted(rank for rank, (host, _) in group.ranks.items() if host in fit)

    def _recovered(self, target: Target, launch: Launched) -> bool:
        """Wait for the run to step again, and for the host if it was one; False when the run ends first."""
        number, generation = target.number, target.generation
        recovered = launch.until(lambda: recovery_of(launch.history, number, generation) is not None)
        if target.fault in OF_HOSTS:
            self._await_return(number, target.host, launch)
        return recovered

    def _await_return(self, number: int, host: str, launch: Launched) -> None:
        """Wait, even after the end of the run, until the host reports that it is back and Ray lists it."""
        deadline = time.monotonic() + _HOST_BACK_S
        while time.monotonic() < deadline:
            launch.read()
            returned = return_of(launch.history, number)
            if returned is not None and (returned["problem"] or self._hosts.is_alive(host)):
                return
            time.sleep(_AIM_AGAIN_S)
        EventLog(launch.run.events).emit("host_missing", number=number, host=host, waited_s=_HOST_BACK_S)
        launch.read()

    def _missing_hosts(self) -> list[str]:
        """The hosts that a fault may have hit and that Ray does not list, after a bounded wait."""
        deadline = time.monotonic() + _ALL_BACK_S
        while True:
            missing = sorted(host for host in self.spare_hosts if not self._hosts.is_alive(host))
            if not missing or time.monotonic() >= deadline:
                return missing
            time.sleep(_AIM_AGAIN_S)


def ready_group(planned: Planned, launch: Launched) -> Group | None:
    """The group, if it steps, the fault is due, and there is a checkpoint to go back to."""
    group = stepping_group(launch.history)
    needed = 2 if planned.fault is Fault.CORRUPT_CHECKPOINT else 1
    if group is None or group.step < planned.step or len(saved_checkpoints(launch.run)) < needed:
        return None
    return group


def _target(planned: Planned, group: Group, rank: int, run: RunDirectory) -> Target:
    host, pid = group.ranks[rank]
    return Target(
        run=run, number=planned.number, fault=planned.fault, damage=planned.damage,
        generation=group.generation, step=group.step, rank=rank, host=host, pid=pid,
    )  # fmt: skip


def same_bytes(one: RunDirectory, other: RunDirectory) -> bool:
    """Whether the last checkpoints of two runs hold the same weights and optimizer state."""
    newest = [checkpoints[-1] for run in (one, other) if (checkpoints := saved_checkpoints(run))]
    if len(newest) < 2 or newest[0].name != newest[1].name:
        return False
    return all(
        filecmp.cmp(newest[0] / name, newest[1] / name, shallow=False)
        for name in ("model.ckpt", "optimizer.ckpt")
    )
