"""Finds and runs the tools of an Ascend host, and finds its files."""

import contextlib
import os
import random
import re
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import OrchestratorError

ROOT_VARIABLE = "SDNET_ASCEND_ROOT"
# set_env.sh of CANN sets both. Below /usr/local for root, below the home directory for other users; CANN 8.5
# renamed ascend-toolkit/latest to cann.
_CANN_VARIABLES = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
_CANN_DIRECTORIES = ("Ascend/cann", "Ascend/ascend-toolkit/latest")
CANN_PLACES = (
    *(f"${name}" for name in _CANN_VARIABLES),
    *(f"{parent}/{name}" for parent in ("/usr/local", "$HOME") for name in _CANN_DIRECTORIES),
)

_NPU_SMI = ("usr/local/bin/npu-smi", "usr/local/sbin/npu-smi", "usr/bin/npu-smi")
_HCCN_TOOL = ("usr/local/Ascend/driver/tools/hccn_tool", "usr/local/bin/hccn_tool", "usr/bin/hccn_tool")
_TOOL_TIMEOUT_S = 30.0
# A device takes one command of hccn_tool at a time, and answers this to the others, with exit code 0 or 1.
_BUSY = re.compile(r"hccn_tool is busy", re.IGNORECASE)
_BUSY_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 2.0)
# Three calls of a second for each of eight devices. Devices that stay busy may not wait for each other much longer.
_ALONE_WITHIN_S = 30.0
_KILLED_ENDS_WITHIN_S = 1.0
# The table of 64 busy devices has less than 100 kB.
_MOST_BYTES = 4_000_000
_SHOWN_CHARACTERS = 200
# npu-smi sees no device at all then. Lines of the driver's logger may stand before this one.
_NO_ACCESS = re.compile(r"\bdcmi\b.*\bfailed\b", re.IGNORECASE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class ToolFailed(OrchestratorError):
    """A tool of the host could not be run. Example: npu-smi is not mounted in the container."""

    def __init__(self, tool: str, detail: str):
        super().__init__(tool, detail)
        self.tool, self.detail = tool, detail

    def __str__(self) -> str:
        return f"`{self.tool}` failed: {self.detail}"


class ToolBusy(ToolFailed):
    """A device was busy at each try. Example: a monitor of the NPUs calls hccn_tool without a pause."""


@dataclass(frozen=True, slots=True)
class AscendHostTools:
    """Tools and files of a host under `root`, which is / except where tests put fakes.

    A container with the driver in another place, or a test, sets SDNET_ASCEND_ROOT for the processes of
    that host. If the root is /, tools on PATH are preferred. $ASCEND_HOME_PATH counts with any root.
    wait: pauses between tries of a busy device. alone: held while a busy device is asked again.
    """

    root: Path = Path("/")
    wait: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)
    alone: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def of_this_host(cls) -> "AscendHostTools":
        return cls(Path(os.environ.get(ROOT_VARIABLE) or "/"))

    @property
    def hccn_conf(self) -> Path:
        return self.root / "etc/hccn.conf"

    @property
    def driver_version(self) -> Path:
        return self.root / "usr/local/Ascend/driver/version.info"

    def cann_versions(self) -> Iterator[Path]:
        """Files that may say which CANN is installed, those of the CANN that processes use here first."""
        for place in self._cann_directories():
            yield from _version_files(place)
        yield self.root / "usr/local/Ascend/version.info"

    def stale_cann_variables(self) -> tuple[str, ...]:
        """`$NAME=value` of each variable of CANN that is set and leads to no version file: CANN was moved."""
        set_here = {name: value for name in _CANN_VARIABLES if (value := os.environ.get(name, ""))}
        return tuple(
            f"${name}={value}"
            for name, value in set_here.items()
            if not any(path.is_file() for path in _version_files(Path(value)))
        )

    def _cann_directories(self) -> Iterator[Path]:
        """CANN_PLACES on this host. The variables count as they are, also when `root` is another directory."""
        for name in _CANN_VARIABLES:
            if (value := os.environ.get(name, "")).startswith("/"):
                yield Path(value)
        homes = [self.root / "usr/local"]
        home = Path(os.environ.get("HOME", ""))
        # A host with another root has no homes outside of it.
        if home.is_absolute() and home.is_relative_to(self.root):
            homes.append(home)
        yield from (parent / name for parent in homes for name in _CANN_DIRECTORIES)

    def device_nodes(self) -> tuple[int, ...]:
        """Physical ids of the devices in /dev, ascending."""
        names = (path.name.removeprefix("davinci") for path in (self.root / "dev").glob("davinci[0-9]*"))
        return tuple(sorted(int(name) for name in names if name.isdecimal()))

    def numa_node_of(self, bus_id: str) -> int | None:
        """NUMA node of a PCI device; None when the kernel does not know it."""
        path = self.root / "sys/bus/pci/devices" / bus_id.lower() / "numa_node"
        text = text_if_readable(path).strip()
        return int(text) if text.isdecimal() else None

    def npu_smi(self, *arguments: str) -> str:
        return self._run("npu-smi", _NPU_SMI, arguments)

    def hccn_tool(self, *arguments: str) -> str:
        """What hccn_tool printed. A busy device is asked again for about 6 s; then this raises ToolBusy.

        If the tool takes one command at a time on the whole host, our own threads keep each other out. So they ask
        again one after another.
        """
        try:
            return self._run("hccn_tool", _HCCN_TOOL, arguments)
        except ToolBusy:
            is_alone = self.alone.acquire(timeout=_ALONE_WITHIN_S)
        try:
            return self._asked_again(arguments)
        finally:
            if is_alone:
                self.alone.release()

    def _asked_again(self, arguments: tuple[str, ...]) -> str:
        # Not all processes of the host may try again at the same moments.
        *pauses_s, last_s = (pause_s * random.uniform(0.5, 1.5) for pause_s in _BUSY_PAUSES_S)
        for pause_s in pauses_s:
            self.wait(pause_s)
            with contextlib.suppress(ToolBusy):
                return self._run("hccn_tool", _HCCN_TOOL, arguments)
        self.wait(last_s)
        return self._run("hccn_tool", _HCCN_TOOL, arguments)

    def _run(self, name: str, places: tuple[str, ...], arguments: tuple[str, ...]) -> str:
        """What the tool printed; ToolFailed when it is missing, ends with an error, or does not end.

        ToolBusy when the device is busy with the command of another process.
        """
        called = " ".join((name, *arguments))
        on_path = shutil.which(name) if self.root == Path("/") else None
        found = on_path or next(
            (str(path) for place in places if os.access(path := self.root / place, os.F_OK)), None
        )
        if found is None:
            raise ToolFailed(
                called, f"not on PATH and not at {', '.join(str(self.root / p) for p in places)}"
            )
        code, printed, complaint = _run_to_its_end([found, *arguments], called)
        if busy := next((line for line in f"{printed}\n{complaint}".splitlines() if _BUSY.search(line)), ""):
            raise ToolBusy(
                called,
                f"{busy.strip()[:_SHOWN_CHARACTERS]!r} at each try; another process, such as a monitor, uses "
                "hccn_tool there: stop that process, or try again",
            )
        if code:
            raise ToolFailed(called, _why(code, complaint, printed))
        return printed


def _version_files(place: Path) -> Iterator[Path]:
    """Files of a directory of CANN that may state its version."""
    yield place / "version.cfg"
    yield place / "version.info"
    yield from sorted(place.glob("*-linux/ascend_*_install.info"))
    # MindSpore itself reads this one.
    yield place / "compiler/version.info"


def text_if_readable(path: Path) -> str:
    """The text of a file of the host; empty when there is none, or this user may not read it."""
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""


def why_no_access(printed: str) -> str:
    """What npu-smi says when it cannot reach the devices of the host, and what to do; empty otherwise."""
    line = next((line.strip() for line in printed.splitlines() if _NO_ACCESS.search(line)), "")
    return line and (
        f"{line[:_SHOWN_CHARACTERS]}; another container may hold the devices, or this one lacks the rights: "
        "stop the other one, or start this one with the devices or --privileged"
    )


def _why(code: int, complaint: str, printed: str) -> str:
    """How the tool ended, and its last words: rows of a table are none."""
    ended = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
    if refused := why_no_access(f"{printed}\n{complaint}"):
        return f"{ended}, {refused}"
    said = [line.strip() for text in (printed, complaint) for line in text.splitlines()]
    words = [line for line in said if line and not line.startswith(("+", "|"))]
    return f"{ended}, {words[-1][:_SHOWN_CHARACTERS] if words else 'no message'}"


def _run_to_its_end(command: list[str], called: str) -> tuple[int, str, str]:
    """(exit code, output, error output) of a tool, without colours.

    Raises ToolFailed when it does not start, does not end in time, or prints without end. Nothing of it
    runs then: the tool may be a script, so its whole process group is killed.
    """
    try:
        tool = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            process_group=0, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except OSError as error:
        raise ToolFailed(called, f"{command[0]} cannot be started ({error.strerror})") from None
    try:
        printed, complaint = _read_to_the_end(tool, called)
    except BaseException:
        _kill_group(tool)
        raise
    finally:
        for pipe in (tool.stdout, tool.stderr):
            if pipe is not None:
                pipe.close()
    return tool.returncode, printed, complaint


def _read_to_the_end(tool: "subprocess.Popen[bytes]", called: str) -> tuple[str, str]:
    """(output, error output) of a tool that has ended; ToolFailed when it does not end, or prints too much."""
    deadline = time.monotonic() + _TOOL_TIMEOUT_S
    pipes = [pipe for pipe in (tool.stdout, tool.stderr) if pipe is not None]
    read = {pipe.fileno(): bytearray() for pipe in pipes}
    with selectors.DefaultSelector() as waiting:
        for pipe in pipes:
            waiting.register(pipe, selectors.EVENT_READ)
        while waiting.get_map():
            for key, _ in waiting.select(max(0.0, deadline - time.monotonic())):
                chunk = os.read(key.fd, 65536)
                read[key.fd] += chunk
                if not chunk:
                    waiting.unregister(key.fileobj)
                if len(read[key.fd]) > _MOST_BYTES:
                    raise ToolFailed(called, f"it prints more than {_MOST_BYTES:,} bytes")
            if time.monotonic() > deadline:
                raise _no_end(called)
    try:
        tool.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise _no_end(called) from None
    printed, complaint = map(_text, read.values())
    return printed, complaint


def _text(output: bytearray) -> str:
    """The output with line ends of Unix, without colours."""
    return _COLOUR.sub("", re.sub("\r\n?", "\n", output.decode(errors="replace")))


def _no_end(called: str) -> ToolFailed:
    return ToolFailed(called, f"no end after {_TOOL_TIMEOUT_S:.0f} s; the driver may hang")


def _kill_group(tool: "subprocess.Popen[bytes]") -> None:
    # PermissionError: the tool has the rights of root. ProcessLookupError: it has just ended.
    with contextlib.suppress(OSError):
        os.killpg(tool.pid, signal.SIGKILL)
    # A process that hangs inside the driver does not react to SIGKILL, so its end is not awaited.
    with contextlib.suppress(subprocess.TimeoutExpired):
        tool.wait(_KILLED_ENDS_WITHIN_S)
