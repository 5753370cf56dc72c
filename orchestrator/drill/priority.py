"""What the kernel grants a process: CPU priority, OOM score, CPUs.

Ray lowers all of its workers (nice 15, OOM score adjustment 1000), and what a worker starts
inherits that. A Ray node that came back that way would answer health checks late on busy cores,
and the cluster would give the host up again.
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
        """Give this process the priority; returns what the system did not permit, or nothing."""
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
