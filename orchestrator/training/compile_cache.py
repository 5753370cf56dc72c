"""Compiled graphs of one rank, kept in the run directory for its next generation.

MindSpore compiles SDNet's graphs for longer than all the rest of a restart takes, and can keep them
(`MS_COMPILER_CACHE_ENABLE`). But it numbers them in the order in which a process compiles, believes
whatever lies at that number, and writes them in place. So a directory is offered to it only with
exactly the job, the rank and the sources that filled it, and only when its seal, made after the
last graph, names every file with the sum that it has now.
"""

import hashlib
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

import sdnet
from orchestrator.run_directory import write_json
from sdnet.config import Recipe
from sdnet.files import is_permanent, read_json, remove, sha256_of

logger = logging.getLogger(__name__)

_SEAL = "sealed.json"


class CompileCache:
    """The directory of one rank's graphs."""

    def __init__(self, root: Path, key: str, rank: int):
        self._directory = root / key / f"rank_{rank}"
        self._usable = True

    def open(self) -> bool:
        """Let MindSpore read and write here; must come before the first graph. Whether it can read some.

        What has no good seal is deleted first. Where no folder can be made, because something else lies
        there, graphs are compiled and not kept. Raises OSError when storage fails otherwise.
        """
        sealed = self._is_whole()
        if not sealed:
            try:
                self._make_empty()
            except OSError as error:
                if not is_permanent(error):
                    raise
                logger.warning("compiled graphs are not kept: %s; move it away", error)
                self._usable = False
                os.environ.pop("MS_COMPILER_CACHE_ENABLE", None)
                return False
        os.environ["MS_COMPILER_CACHE_ENABLE"] = "1"
        os.environ["MS_COMPILER_CACHE_PATH"] = str(self._directory)
        return sealed

    def seal(self) -> None:
        """Vouch for the graphs that are here now. If storage refuses, the next start compiles."""
        if not self._usable:
            return
        try:
            write_json(self._directory / _SEAL, self._sums())
        except OSError as error:
            logger.warning("compiled graphs are not kept: %s", error)

    def _make_empty(self) -> None:
        remove(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)

    def _sums(self) -> dict[str, str]:
        files = [path for path in sorted(self._directory.rglob("*")) if path.is_file() and path.name != _SEAL]
        return {str(path.relative_to(self._directory)): sha256_of(path) for path in files}

    def _is_whole(self) -> bool:
        try:
            sealed = read_json(self._directory / _SEAL)
            return bool(sealed) and sealed == self._sums()
        except (OSError, ValueError):
            return False


def cache_key(recipe: Recipe, slices: int, world_size: int, evaluate_batch: int) -> str:
    """Names what compiled graphs depend on: the job's numbers, our sources, and MindSpore's version."""
    import mindspore

    sources = sorted(Path(sdnet.__file__).parent.rglob("*.py"))
    parts = [
        asdict(recipe), slices, world_size, evaluate_batch, mindspore.__version__,
        [sha256_of(path) for path in sources],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
