"""Writes the output of a rank to its log, directly or through a file on the host's own disk.

A write to a mount that lost its server may block, and every thread that prints would hang. So on a network file
system a rank prints to a local file, and a thread uploads the complete file every few seconds.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.engine.host.log_files import open_log
from orchestrator.storage import ObjectMissing, Storage, StorageError, storage_errors
from orchestrator.storage.bounded import Background

logger = logging.getLogger(__name__)

_UPLOAD_EVERY_S = 2.0
# A share of the time: a long log on slow storage is uploaded less often.
_UPLOAD_SHARE = 0.05
_LAST_UPLOAD_S = 10.0


@contextlib.contextmanager
def output_in_log(storage: Storage, logs: Path, rank: int, scratch: Path | None) -> Iterator[None]:
    """Send everything that this process prints, also from C++, to the rank's log; generations append.

    logs: the folder of logs in `storage`. scratch: a local folder, None if `logs` is local.
    Raises StorageError if the log cannot be opened: that is not an error of the training function.
    """
    name = f"rank_{rank}.log"
    if scratch is None:
        _write_output_to(logs / name)
        yield
        return
    upload = LogUpload(storage, f"{logs.name}/{name}", scratch / name)
    _write_output_to(scratch / name)
    upload.start()
    try:
        yield
    finally:
        upload.close()


class LogUpload:
    """Uploads a complete local log, best effort. name: of the object."""

    def __init__(self, storage: Storage, name: str, path: Path):
        self._storage, self._name, self._path = storage, name, path
        self._uploaded = -1  # bytes that the object has
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._continue_earlier()

    def start(self) -> None:
        """Start the thread that uploads every few seconds, if the log has grown."""
        self._thread.start()

    def close(self) -> None:
        """Upload the last lines; gives up if storage does not answer."""
        self._ended.set()
        self._thread.join(_LAST_UPLOAD_S)

    def upload(self) -> None:
        """Upload the log if it has grown. After a failure the next upload tries again."""
        content = self._path.read_bytes()
        if len(content) != self._uploaded:
            with contextlib.suppress(StorageError):  # printing it would make the log grow
                self._storage.put(self._name, content)
                self._uploaded = len(content)

    def _continue_earlier(self) -> None:
        """Start with the log of earlier generations, which may have run on another host."""
        reading = Background(lambda: self._storage.get(self._name))
        if not reading.finished(_LAST_UPLOAD_S):
            logger.warning("the log of earlier generations is not continued: storage does not answer")
            return
        try:
            earlier = reading.result()
        except ObjectMissing:
            return
        except StorageError as error:
            logger.warning("the log of earlier generations is not continued: %s", error)
            return
        if not self._path.exists() or not self._path.read_bytes().startswith(earlier):
            self._path.write_bytes(earlier)

    def _run(self) -> None:
        wait_s = _UPLOAD_EVERY_S
        while not self._ended.wait(wait_s):
            began = time.monotonic()
            self.upload()
            wait_s = max(_UPLOAD_EVERY_S, (time.monotonic() - began) / _UPLOAD_SHARE)
        self.upload()


def _write_output_to(path: Path) -> None:
    with storage_errors(str(path)), open_log(path) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    package = logging.getLogger("orchestrator")
    package.setLevel(logging.INFO)
    stream = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    package.handlers = [handler]
    package.propagate = False
