"""Registers many pairs on a cluster: one Ray task and one folder for each pair, and one table of all pairs.

A pair's result does not depend on where it was computed. A pair that cannot be read, or whose
match is not trusted, is a row of the table with the reason; it does not stop the others.
"""

import csv
import io
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestrator.ascend.environment import thread_variables
from orchestrator.engine.rank.cpus import compute_on
from orchestrator.job.spec.job_spec import ClusterSpec
from orchestrator.ray_cluster.session import ray_session
from orchestrator.register.pairs import PairFiles, list_pairs
from sdnet.errors import InputError
from sdnet.files import alone_in, made_folder, refuse_run, whole_file
from sdnet.paths import printable_path
from sdnet.registration.command import register_files
from sdnet.registration.config import RegisterConfig
from sdnet.registration.files.outputs import refuse_results_as_inputs, result_paths

TABLE = "register.csv"
_TRIES = 4
_COLUMNS = (
    "name", "status", "evidence", "tie_points", "agreeing", "held_out_median_px", "optical", "sar", "reason",
)  # fmt: skip


def register_pairs(
    source: Path, out: Path, config: RegisterConfig, checkpoint: Path | None, cluster: ClusterSpec
) -> list[dict[str, object]]:
    """Register every pair that `source` lists into `out`/<name>, write `out`/register.csv, and return its rows.

    Raises InputError before any worker starts: for a source, a folder or a checkpoint that cannot be used,
    for an input that is one of the results, and for a folder into which another process registers.
    """
    refuse_run(out)
    pairs = list_pairs(source)
    if any(pair.name == TABLE for pair in pairs):
        raise InputError(f"{source} names a pair {TABLE}, as the table of all pairs; name it differently")
    results = [out / TABLE, *(path for pair in pairs for path in result_paths(out / pair.name))]
    images = [path for pair in pairs for path in (pair.optical, pair.sar)]
    refuse_results_as_inputs([source, *images, *([] if checkpoint is None else [checkpoint])], results)
    if checkpoint is not None:
        _network(checkpoint)  # a bad one is refused here, not by every worker
    # A worker that is killed when Ray ends removes no folder itself.
    with made_folder(out, *(out / pair.name for pair in pairs)), alone_in(out):
        with ray_session(cluster):
            rows = _on_workers(pairs, out.resolve(), config, checkpoint and checkpoint.resolve(), cluster)
        _write_table(out / TABLE, rows)
    if checkpoint is not None and (note := _network(checkpoint).note):
        print(f"note: {note}", file=sys.stderr)
    return rows


def register_one(
    pair: PairFiles, out: Path, config: RegisterConfig, checkpoint: Path | None, threads: int
) -> dict[str, Any]:
    """Register one pair on `threads` CPUs: its row. status: trusted, not_trusted or unusable."""
    compute_on(threads)
    names = {"optical": printable_path(str(pair.optical)), "sar": printable_path(str(pair.sar))}
    row: dict[str, object] = {"name": printable_path(pair.name), **names}
    try:
        net = None if checkpoint is None else _network(checkpoint)
        facts = register_files(pair.optical, pair.sar, out / pair.name, config, net, lock=False)
    except InputError as error:
        return row | {"status": "unusable", "reason": printable_path(str(error))}
    row |= {key: facts[key] for key in _COLUMNS if key in facts}
    return row | {"status": "trusted" if facts["trusted"] else "not_trusted"}


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    with whole_file(path) as file:
        file.write(text.getvalue().encode())


def summary_of(rows: list[dict[str, object]]) -> dict[str, int]:
    """How many pairs ended how."""
    statuses = [row["status"] for row in rows]
    return {status: statuses.count(status) for status in ("trusted", "not_trusted", "unusable")}


@lru_cache(maxsize=1)
def _network(checkpoint: Path) -> Any:
    """The network of a worker's process, which registers many pairs."""
    from sdnet.api import load

    return load(checkpoint)


def _on_workers(
    pairs: list[PairFiles], out: Path, config: RegisterConfig, checkpoint: Path | None, cluster: ClusterSpec
) -> list[dict[str, Any]]:
    import ray

    # A lost worker's pair is registered again by another, into the same folder, to the same bytes.
    task = ray.remote(
        num_cpus=cluster.threads,
        max_retries=_TRIES,
        runtime_env={"env_vars": thread_variables(cluster.threads)},
    )(register_one)
    whole = [PairFiles(pair.name, pair.optical.resolve(), pair.sar.resolve()) for pair in pairs]
    rows: list[dict[str, Any]] = ray.get(
        [task.remote(pair, out, config, checkpoint, cluster.threads) for pair in whole]
    )
    return rows
