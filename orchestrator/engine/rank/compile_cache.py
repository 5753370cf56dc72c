"""A cache of one rank's compiled graphs, for its next generation.

Compilation takes longer than the rest of a restart. MindSpore can cache its graphs (`MS_COMPILER_CACHE_ENABLE`), but
its cache is unsafe on its own: it numbers graphs in the order in which a process compiles them, loads any file with
the right number, and writes in place. So a directory is reused only for the same key and rank, and only if its seal is
valid. The seal is a file that is written after the last graph. It lists the checksum of every file. See ADR 4.

If the run is on a network file system, the directory is on the host's own disk. An archive of the whole directory is
then uploaded, best effort, so that a rank that starts on another host can use the graphs.
"""

import errno
import hashlib
import io
import json
import logging
import os
import shutil
import threading
import zipfile
import zlib
from pathlib import Path

from orchestrator.storage import ObjectMissing, Storage, StorageError
from orchestrator.storage.bounded import Background

logger = logging.getLogger(__name__)

_SEAL = "sealed.json"
# Only large graphs take longer to download, and they also take long to compile.
_FETCHED_WITHIN_S = 15.0
# What zipfile raises for damaged bytes.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)


class CompileCache:
    """The directory of one rank's graphs.

    key: a hash of everything that the graphs depend on. storage: where archives are stored if `root` is a local
    folder; None if `root` itself is shared.
    """

    def __init__(self, root: Path, key: str, rank: int, storage: Storage | None = None):
        self._root, self._directory = root, root / key / f"rank_{rank}"
        self._storage, self._archive = storage, f"{root.name}/{key}/rank_{rank}.zip"

    def open(self) -> bool:
        """Let MindSpore use the directory; returns whether it contains graphs. Call it before the first compilation.

        A directory without a valid seal is emptied first. Raises OSError.
        """
        sealed = self._is_whole()
        if not sealed:
            self._empty()
            sealed = self._fetch()
        os.environ["MS_COMPILER_CACHE_ENABLE"] = "1"
        os.environ["MS_COMPILER_CACHE_PATH"] = str(self._directory)
        return sealed

    def seal(self) -> None:
        """Mark the present graphs as complete. If that fails, the next start compiles again."""
        try:
            checksums = json.dumps(self._checksums(), indent=2)
            temporary = self._directory / f".{_SEAL}.{os.getpid()}"
            temporary.write_text(checksums + "\n", encoding="utf-8")
            temporary.replace(self._directory / _SEAL)
        except OSError as error:
            logger.warning("compiled graphs are not cached: %s", error)
            return
        if self._storage is not None:
            threading.Thread(target=self._upload, args=(self._storage,), daemon=True).start()

    def _empty(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        # If the run's storage is away, a new folder below its empty mount point would look like an empty run.
        if self._storage is None and not self._root.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._root.parent))
        # Another host may have created it, or removed its parent, since this host listed the folder.
        self._directory.mkdir(parents=True, exist_ok=True)

    def _upload(self, storage: Storage) -> None:
        content = io.BytesIO()
        try:
            with zipfile.ZipFile(content, "w", strict_timestamps=False) as archive:
                for path in sorted(self._directory.rglob("*")):
                    archive.write(path, path.relative_to(self._directory))
            storage.put(self._archive, content.getvalue())
        except (OSError, StorageError) as error:
            logger.warning("compiled graphs stay on this host: %s", error)

    def _fetch(self) -> bool:
        """Unpack the archive of another host into the empty directory; returns whether the seal is valid."""
        if self._storage is None:
            return False
        storage = self._storage
        reading = Background(lambda: storage.get(self._archive))
        if not reading.finished(_FETCHED_WITHIN_S):
            return False
        try:
            # Not a tar archive: the Python of Debian 12, 3.11.2, cannot keep its members below the directory.
            with zipfile.ZipFile(io.BytesIO(reading.result())) as archive:
                archive.extractall(self._directory)
            if self._is_whole():
                return True
        except ObjectMissing:
            return False
        except (OSError, StorageError, *_DAMAGED) as error:
            logger.warning("compiled graphs of another host are not used: %s", error)
        self._empty()
        return False

    def _checksums(self) -> dict[str, str]:
        files = [p for p in sorted(self._directory.rglob("*")) if p.is_file() and _SEAL not in p.name]
        return {str(path.relative_to(self._directory)): _sha256(path) for path in files}

    def _is_whole(self) -> bool:
        seal = self._directory / _SEAL
        try:
            if not seal.is_file():  # opening a FIFO would block
                return False
            sealed = json.loads(seal.read_text(encoding="utf-8"))
            return bool(sealed) and sealed == self._checksums()
        except (OSError, ValueError):
            return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
