"""A directory served by a private sshd on loopback, and two sshfs mounts of it, as two hosts would see it.

with exported(tmp_path) as export:
    export.first    # sshfs with its default caches
    export.second   # sshfs with cache=no
    with export.server_away():
        ...
"""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_SSHD = "/usr/sbin/sshd"
_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""
# A connection that is silent for two seconds is closed, and made again with the next request.
_SSH_OPTIONS = (
    "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes",
    "reconnect", "ServerAliveInterval=1", "ServerAliveCountMax=2", "ConnectTimeout=2",
)  # fmt: skip
_WITHIN_S = 20.0
_POLL_S = 0.02


@dataclass
class Export:
    """One directory and two mounts of it. directory: what the server serves, on a local disk."""

    directory: Path
    first: Path
    second: Path
    _folder: Path
    _port: int
    _server: "subprocess.Popen[bytes] | None" = field(default=None)

    def start_server(self) -> None:
        """Start the server and wait until it answers."""
        log = (self._folder / "sshd.log").open("ab")
        command = [_SSHD, "-D", "-e", "-f", str(self._folder / "sshd_config")]
        self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + _WITHIN_S
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self._port), 1) as probe,
            ):
                if probe.recv(4) == b"SSH-":
                    return
            time.sleep(_POLL_S)
        raise RuntimeError(f"sshd did not start: {(self._folder / 'sshd.log').read_text()[-500:]}")

    def kill_server(self) -> None:
        """SIGKILL the server and all its sessions, so that the mounts have no server."""
        if self._server is not None:
            processes = self._processes()
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes)
            self._server.wait()
            self._server = None

    @contextlib.contextmanager
    def server_away(self) -> Iterator[None]:
        """Stop the server while the block runs."""
        self.kill_server()
        yield
        self.start_server()

    @contextlib.contextmanager
    def server_frozen(self) -> Iterator[None]:
        """The server and its sessions stop as if their machine hung: connections stay open, nothing answers."""
        frozen = self._processes()
        for process in frozen:
            process.suspend()
        try:
            yield
        finally:
            for process in frozen:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def _processes(self) -> list[psutil.Process]:
        assert self._server is not None
        server = psutil.Process(self._server.pid)
        return [server, *server.children(recursive=True)]

    @contextlib.contextmanager
    def mounted(self, point: Path, *options: str) -> Iterator[None]:
        """sshfs at this mount point while the block runs."""
        point.mkdir(parents=True, exist_ok=True)
        given = ",".join((*_SSH_OPTIONS, f"IdentityFile={self._folder}/user_key", *options))
        source = f"{getpass.getuser()}@127.0.0.1:{self.directory}"
        command = ["sshfs", "-f", "-p", str(self._port), "-o", given, source, str(point)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + _WITHIN_S
            while not os.path.ismount(point):
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    raise RuntimeError(f"sshfs did not mount: {process.communicate()[1][-500:]}")
                time.sleep(_POLL_S)
            yield
        finally:
            # Lazy, and the connection ends: a process that still waits for the mount gets an error.
            subprocess.run(["fusermount3", "-u", "-z", str(point)], capture_output=True)
            for child in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                child.kill()
            process.communicate()


@contextlib.contextmanager
def exported(folder: Path, first: Path | None = None) -> Iterator[Export]:
    """An export with its server and both mounts, all removed at the end.

    folder: for everything it needs. first: where the first mount shall be, by default below `folder`.
    """
    folder.chmod(0o700)
    for key in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run(command, check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(_CONFIG.format(port=port, folder=folder))
    export = Export(folder / "export", first or folder / "first", folder / "second", folder, port)
    export.directory.mkdir()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd as root refuses to start without it
    try:
        export.start_server()
        with export.mounted(export.first), export.mounted(export.second, "cache=no"):
            yield export
    finally:
        export.kill_server()


def why_impossible() -> str:
    """Empty where sshfs can mount, otherwise what is missing."""
    missing = [name for name in ("sshfs", "fusermount3", "ssh-keygen") if shutil.which(name) is None]
    if missing or not Path(_SSHD).exists():
        return f"{', '.join(missing) or _SSHD} not found: install sshfs and openssh-server"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return (
            "/dev/fuse cannot be opened: in a container, run it with --device /dev/fuse --cap-add SYS_ADMIN"
        )
    return ""
