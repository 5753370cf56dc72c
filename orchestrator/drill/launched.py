"""A `launch` in a separate process, which ends with the `with` block."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.engine.host.log_files import open_log
from orchestrator.job.run_directory import RunDirectory
from orchestrator.module_path import python_module
from orchestrator.storage import StorageError
from orchestrator.telemetry.event import Recorded
from orchestrator.telemetry.record import EventReader

# The interpreter of this process, so that the launch uses the same packages.
PYTHON = sys.executable
_POLL_S = 0.2
# An interrupted launch ends its group within 15 s and then Ray.
_ENDS_WITHIN_S = 60.0


@dataclass
class Launched:
    """A running launch, and all events of its run so far, in the order in which they became visible."""

    run: RunDirectory
    process: "subprocess.Popen[bytes]"
    history: list[Recorded] = field(default_factory=list)
    _reader: EventReader = field(init=False)

    def __post_init__(self) -> None:
        self._reader = EventReader(self.run.storage)

    def until(self, happened: Callable[[], bool]) -> bool:
        """Read events until the condition holds; False when the launch ends first."""
        while True:
            ended = self.process.poll() is not None
            self.read()
            if happened():
                return True
            if ended:
                return False
            time.sleep(_POLL_S)

    def until_end(self) -> None:
        """Wait until the launch has ended by itself."""
        self.until(lambda: False)

    def read(self) -> None:
        """Add the new events. While storage is away there are none; the launch waits for it, too."""
        with contextlib.suppress(StorageError):
            self.history += self._reader.new()

    @property
    def last_line(self) -> str:
        """The last line that it printed."""
        lines = _output_of(self.run).read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


@contextmanager
def launched(job: Path, run: RunDirectory, ends_within_s: float = _ENDS_WITHIN_S) -> Iterator[Launched]:
    """Launch the job. If the block ends before the launch does, stop the launch with SIGTERM: its ranks save.

    ends_within_s: a launch that takes longer to end is killed.
    """
    command = [*python_module("orchestrator.cli", PYTHON), "launch", str(job)]
    with open_log(_output_of(run), empty=True) as output:
        # A new session: Ctrl-C on the terminal must reach the launch only once, and only through us.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield Launched(run, process)
    finally:
        _end(process, ends_within_s)


def _end(process: "subprocess.Popen[bytes]", within_s: float) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=within_s)
        finally:  # too late, or another Ctrl-C: do not wait for it any longer
            process.kill()
            process.wait()


def _output_of(run: RunDirectory) -> Path:
    return run.logs / "launch.log"
