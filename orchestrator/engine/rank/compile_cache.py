"""A cache of one rank's compiled graphs, for its next generation.

Compiling takes longer than the rest of a restart. MindSpore can cache its graphs (`MS_COMPILER_CACHE_ENABLE`), but it
numbers them in the order in which a process compiles them, trusts whatever lies at that number, and writes in place.
So a directory is used again only for the same key and rank, and only when its seal, a file written after the last
graph, lists every file with its present checksum. See ADR 4.
"""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)

_SEAL = "sealed.json"


class CompileCache:
    """The directory of one rank's graphs. key: names everything that the graphs depend on."""

    def __init__(self, root: Path, key: str, rank: int):
        self._directory = root / key / f"rank_{rank}"

    def open(self) -> bool:
        """Let MindSpore use the directory; whether it holds graphs. Must come before the first graph.

        A directory without a valid seal is emptied first. Raises OSError.
        """
        sealed = self._is_whole()
        if not sealed:
            shutil.rmtree(self._directory, ignore_errors=True)
            # On a network mount the removed directory may seem to be there for a while.
            self._directory.mkdir(parents=True, exist_ok=True)
        os.environ["MS_COMPILER_CACHE_ENABLE"] = "1"
        os.environ["MS_COMPILER_CACHE_PATH"] = str(self._directory)
        return sealed

    def seal(self) -> None:
        """Mark the graphs that are here now as complete. If that fails, the next start compiles."""
        try:
            checksums = json.dumps(self._checksums(), indent=2)
            temporary = self._directory / f".{_SEAL}.{os.getpid()}"
            temporary.write_text(checksums + "\n", encoding="utf-8")
            temporary.replace(self._directory / _SEAL)
        except OSError as error:
            logger.warning("compiled graphs are not cached: %s", error)

    def _checksums(self) -> dict[str, str]:
        files = [p for p in sorted(self._directory.rglob("*")) if p.is_file() and _SEAL not in p.name]
        return {str(path.relative_to(self._directory)): _sha256(path) for path in files}

    def _is_whole(self) -> bool:
        seal = self._directory / _SEAL
        try:
            if not seal.is_file():  # a FIFO would be waited for
                return False
            sealed = json.loads(seal.read_text(encoding="utf-8"))
            return bool(sealed) and sealed == self._checksums()
        except (OSError, ValueError):
            return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
