"""The drill: the clean run, then the same run with injected faults."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from orchestrator.drill.faults import OF_HOSTS, Fault, Planned, plan_faults
from orchestrator.drill.hosts import Hosts
from orchestrator.drill.inject import Target, inject
from orchestrator.drill.launched import Launched, launched
from orchestrator.drill.outcome import (
    Group,
    fault_report,
    goodput,
    mean_step_s,
    recovered_at,
    return_of,
    stepping_group,
    total_steps,
    was_made,
)
from orchestrator.engine.checkpoints import checkpoint_names, read_checkpoint, step_of
from orchestrator.errors import CorruptData, OrchestratorError
from orchestrator.job.run_directory import RunDirectory, write_atomically
from orchestrator.job.spec.job_spec import MOST_NAME, JobSpec
from orchestrator.job.spec.yaml_text import yaml_text
from orchestrator.report.reading import reading
from orchestrator.report.summary import read_summary
from orchestrator.storage import Storage, StorageError
from orchestrator.storage.lease import LeaseTimes, Life, RunIsOwned, life_of, newest_lease, owner_of
from orchestrator.telemetry.event import Recorded
from orchestrator.telemetry.events import HostMissing
from orchestrator.telemetry.record import EventReader, EventWriter, merge_events
from orchestrator.telemetry.segments import has_events
from orchestrator.telemetry.state import read_state
from sdnet.errors import InputError, shown

# One fault may cause several failures: a lost host, and a start that fails before the host is back.
_FAILURES_A_FAULT = 5
# How long a host's agent may take: the fault itself, the end of the raylet, and three tries to start it again.
_HOST_BACK_S = 240.0
# How long Ray may need to list every host again after the run.
_ALL_BACK_S = 30.0
_AIM_AGAIN_S = 0.5
# What a drill adds to the name of the job.
_CLEAN, _DISTURBED = "-drill-clean", "-drill"

Shows = Callable[[Storage], AbstractContextManager[None]]


class CleanRunFailed(OrchestratorError):
    """The job fails without any fault. Example: the loss is not finite."""

    def __init__(self, run: str, last_line: str):
        super().__init__(run, last_line)
        self.run, self.last_line = run, last_line

    def __str__(self) -> str:
        return f"the undisturbed run {self.run} did not succeed: {self.last_line}"


def run_directories(spec: JobSpec) -> tuple[RunDirectory, RunDirectory]:
    """Directories of the run without faults and of the run with them.

    Raises InputError for an earlier drill, one that still runs, and a name to which nothing can be added.
    """
    longest = MOST_NAME - len(_CLEAN)
    if len(spec.name) > longest:
        raise InputError(
            f"name is {shown(spec.name)}, and a drill adds {_CLEAN}; use up to {longest} characters: --set name=..."
        )
    clean, disturbed = (RunDirectory.of(spec.storage, spec.name + end) for end in (_CLEAN, _DISTURBED))
    for run in (clean, disturbed):
        with reading(run):
            _refuse_running(run)
    with reading(disturbed):
        earlier = disturbed.root.exists() and has_events(disturbed.storage)
    if earlier:
        raise InputError(
            f"{disturbed.root} contains an earlier drill; delete it, or give this one another `--set name=...`"
        )
    return clean, disturbed


def _refuse_running(run: RunDirectory) -> None:
    """Raise RunIsOwned while a launch works here: its job file and its output must not be replaced, nor deleted."""
    lease = newest_lease(run.storage) if run.root.exists() else 0
    if lease and life_of(run.storage, lease, LeaseTimes()) is Life.ALIVE:
        raise RunIsOwned(str(run.root), owner_of(run.storage, lease))


class Rehearsal:
    """One drill of one job. show: displays a run while it lasts."""

    def __init__(self, spec: JobSpec, hosts: Hosts, show: Shows):
        self._spec, self._hosts, self._show = spec, hosts, show
        self.spare_hosts = hosts.spare()
        self._clean, self._disturbed = run_directories(spec)
        self._why_not: dict[int, str] = {}

    def run(self, faults: Sequence[Fault], count: int, seed: int) -> dict[str, Any]:
        """Do both runs. Writes drill.json and returns its content."""
        plan = partial(plan_faults, faults, count, seed)
        steps = self._run_undisturbed(plan)["steps"]
        planned = plan(steps)
        history = self._run_disturbed(planned)
        missing = self._missing_hosts()
        reports = [fault_report(history, fault, self._why_not.get(fault.number, "")) for fault in planned]
        summary = read_summary(self._disturbed)
        step_s = mean_step_s(EventReader(self._clean.storage).read())
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
        self._disturbed.storage.put("drill.json", (json.dumps(result, indent=2) + "\n").encode())
        merge_events(self._disturbed.storage)  # again: some events arrive after the end of the launch
        return result

    def _run_undisturbed(self, plan: Callable[[int], object]) -> dict[str, Any]:
        """Run the job without faults. plan: refuses too few steps, so it is called as soon as they are known."""
        with self._launched(self._clean, self._spec.values()) as launch:
            pid = launch.process.pid
            if launch.until(lambda: total_steps(launch.history, pid) is not None):
                plan(total_steps(launch.history, pid) or 0)
            launch.until_end()
        summary = read_summary(self._clean)
        if launch.process.returncode == 2:
            raise InputError(launch.last_line.removeprefix("sdnet-orchestrate: "))
        # If this launch was killed, the summary may still be that of an earlier drill.
        if launch.process.returncode or summary is None or summary["status"] != "succeeded":
            raise CleanRunFailed(str(self._clean.root), launch.last_line)
        return summary

    def _run_disturbed(self, planned: Sequence[Planned]) -> list[Recorded]:
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
        """Launch the job in this run directory, from a job file that is written for it."""
        run.create()
        path = run.root / "drill.yaml"
        whole = {**job, "name": run.root.name, "storage": str(run.root.parent)}
        write_atomically(path, yaml_text(whole))
        with self._show(run.storage), launched(path, run) as launch:
            yield launch

    def _make(self, planned: Planned, launch: Launched) -> bool:
        """Inject one fault and wait for the recovery; False when the run ends before."""
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
            # A fault that hits a whole host may also prevent its answer.
            if not problem or was_made(launch.history, planned.number):
                return self._recovered(target, launch)
            # The group has changed since it was read: choose again.
            self._why_not[planned.number] = problem
            time.sleep(_AIM_AGAIN_S)
        return False

    def _may_hit(self, fault: Fault, group: Group) -> list[int]:
        if fault is Fault.CORRUPT_CHECKPOINT:
            return [0]  # this rank writes the checkpoints
        if fault not in OF_HOSTS:
            return sorted(group.ranks)
        spare = self.spare_hosts
        fit = {host for host, uncuttable in spare.items() if fault is Fault.KILL_HOST or not uncuttable}
        return sorted(rank for rank, process in group.ranks.items() if process.host in fit)

    def _recovered(self, target: Target, launch: Launched) -> bool:
        """Wait until the run makes steps again and a lost host is back; False when the run ends first."""
        number, generation = target.number, target.generation
        recovered = launch.until(lambda: recovered_at(launch.history, number, generation) is not None)
        if target.fault in OF_HOSTS:
            self._await_return(target, launch)
        return recovered

    def _await_return(self, target: Target, launch: Launched) -> None:
        """Wait, even after the end of the run, until the host reports that it is back and Ray lists it."""
        deadline = time.monotonic() + _HOST_BACK_S
        while time.monotonic() < deadline:
            launch.read()
            returned = return_of(launch.history, target.number)
            if returned is not None and (returned.problem or self._hosts.is_alive(target.host)):
                return
            time.sleep(_AIM_AGAIN_S)
        with EventWriter(launch.run.storage, lease=target.lease) as events:
            events.record(HostMissing(number=target.number, host=target.host, waited_s=_HOST_BACK_S))
        launch.read()

    def _missing_hosts(self) -> list[str]:
        """The hosts that a fault may have hit and that Ray still does not list after a bounded wait."""
        deadline = time.monotonic() + _ALL_BACK_S
        while True:
            missing = sorted(host for host in self.spare_hosts if not self._hosts.is_alive(host))
            if not missing or time.monotonic() >= deadline:
                return missing
            time.sleep(_AIM_AGAIN_S)


def ready_group(planned: Planned, launch: Launched) -> Group | None:
    """The group, if it makes steps, the fault is due, and there is a checkpoint to resume from.

    None while storage is away. Raises CorruptData for a state that cannot be read.
    """
    needed = 2 if planned.fault is Fault.CORRUPT_CHECKPOINT else 1
    try:
        group = stepping_group(launch.history, read_state(launch.run.storage))
        if group is None or group.step < planned.step:
            return None
        return group if len(checkpoint_names(launch.run.storage)) >= needed else None
    except StorageError:
        return None


def _target(planned: Planned, group: Group, rank: int, run: RunDirectory) -> Target:
    process = group.ranks[rank]
    return Target(
        run=run,
        number=planned.number,
        fault=planned.fault,
        damage=planned.damage,
        lease=group.lease,
        generation=group.generation,
        step=group.step,
        rank=rank,
        host=process.host,
        pid=process.pid,
        started=process.started,
    )


def same_bytes(one: RunDirectory, other: RunDirectory) -> bool:
    """Whether the last checkpoints of two runs are of the same step and hold the same weights and optimizer state.

    Their names may differ: a checkpoint that is written again gets another name. Raises StorageError.
    """
    newest = [(run.storage, names[-1]) for run in (one, other) if (names := checkpoint_names(run.storage))]
    if len(newest) < 2 or len({step_of(name) for _, name in newest}) > 1:
        return False
    try:
        first, second = (read_checkpoint(storage, name) for storage, name in newest)
    except CorruptData:
        return False
    return first.files == second.files
