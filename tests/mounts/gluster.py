"""Two mounts of one GlusterFS volume with one brick, by a glusterd that runs while the block runs.

with volume(tmp_path) as made:
    made.first, made.second
    with made.brick_away():
        ...
"""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_NAME = f"sdn{os.getpid()}"


@dataclass(frozen=True)
class Volume:
    """first, second: mounts of the volume, as two hosts would have them. brick: the server's folder."""

    first: Path
    second: Path
    brick: Path

    @contextlib.contextmanager
    def brick_away(self) -> Iterator[None]:
        """SIGKILL the brick's server, and start it again at the end of the block."""
        [server] = [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == "glusterfsd" and str(self.brick) in process.info["cmdline"]
        ]
        server.kill()
        psutil.wait_procs([server])
        try:
            yield
        finally:
            _gluster("volume", "start", _NAME, "force")


@contextlib.contextmanager
def volume(folder: Path) -> Iterator[Volume]:
    """A volume with both mounts, all removed at the end. Needs root."""
    made = Volume(folder / "first", folder / "second", folder / "brick")
    with _glusterd(folder):
        address = _own_address()
        _gluster("volume", "create", _NAME, f"{address}:{made.brick}", "force")
        try:
            _gluster("volume", "start", _NAME)
            with _mounted(address, made.first), _mounted(address, made.second):
                yield made
        finally:
            _gluster("volume", "stop", _NAME, "force", check=False)
            _gluster("volume", "delete", _NAME, check=False)


def why_impossible() -> str:
    """Empty where a volume can be created, otherwise what is missing."""
    missing = [name for name in ("glusterd", "gluster", "mount.glusterfs") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not found: install glusterfs-server"
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "GlusterFS is mounted by root, with /dev/fuse"
    alive = psutil.process_iter(["name", "status"])
    if any(one.info["name"] == "glusterd" and one.info["status"] != psutil.STATUS_ZOMBIE for one in alive):
        return "glusterd runs here already; its volumes are left alone"
    return ""


@contextlib.contextmanager
def _glusterd(folder: Path) -> Iterator[None]:
    process = subprocess.Popen(
        ["glusterd", "--no-daemon", f"--log-file={folder}/glusterd.log", f"--pid-file={folder}/glusterd.pid"]
    )
    try:
        subprocess.run(
            ["sh", "-c", "until gluster volume list; do sleep 0.1; done"],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _mounted(address: str, point: Path) -> Iterator[None]:
    point.mkdir()
    subprocess.run(["mount", "-t", "glusterfs", f"{address}:/{_NAME}", str(point)], check=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


def _gluster(*command: str, check: bool = True) -> None:
    subprocess.run(["gluster", "--mode=script", *command], check=check, capture_output=True, timeout=60)


def _own_address() -> str:
    """An address of this machine that is not loopback: glusterd refuses those. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
