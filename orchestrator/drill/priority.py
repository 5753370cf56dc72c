"""The priority of a process: nice value, OOM score, CPUs.

Ray lowers the priority of its workers (nice 15, OOM score adjustment 1000), and their children inherit it. A Ray node
that is started from a worker would answer health checks late on busy cores, and Ray would declare the host dead again.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Priority:
    """nice: -20 (first) to 19 (last). oom_score_adj: up to 1000, killed first when memory is short."""

    nice: int
    oom_score_adj: int
    cpus: tuple[int, ...]

    @classmethod
    def of(cls, process: psutil.Process) -> "Priority":
        oom_score_adj = int(_oom_score_adj(process.pid).read_text())
        return cls(int(process.nice()), oom_score_adj, tuple(process.cpu_affinity()))

    def take(self) -> str:
        """Give this process the priority. Returns what the system did not permit, empty if all was set."""
        try:
            os.sched_setaffinity(0, self.cpus)
            _oom_score_adj(os.getpid()).write_text(str(self.oom_score_adj))
            os.setpriority(os.PRIO_PROCESS, 0, self.nice)
        except PermissionError:
            now = Priority.of(psutil.Process())
            return f"at priority {now.nice} instead of {self.nice}, which only root may restore"
        return ""


def _oom_score_adj(pid: int) -> Path:
    return Path(f"/proc/{pid}/oom_score_adj")
