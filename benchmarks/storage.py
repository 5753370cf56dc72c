"""The cost of network storage for a run: a local disk against sshfs to loopback, in one program.

- data: seconds until 64 MB of patches are open, and seconds to gather them once in a shuffled order: on the local
  disk; on sshfs copied for the first time, already copied, and mapped on the mount itself, as no rank does.
- events: events per second that an `EventWriter` accepts and has written when it is closed.
- job: a whole `launch` of one rank that saves every step. Share of the time for which saving stalled the step loop,
  seconds per save in the background, seconds from the start of the run to its first step, and seconds of a step.

The sides alternate. `ratio` is gathering from the copy of data on sshfs against the local disk. --against adds the job
on the local disk as another version of this project runs it: a checkout with its own .venv.
Needs sshfs and openssh-server.

usage: python benchmarks/storage.py [--rounds 2] [--against CHECKOUT] [--json]
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the test mounts

from orchestrator.storage import DirectoryStorage  # noqa: E402
from orchestrator.storage.host_cache import HostCache  # noqa: E402
from orchestrator.telemetry.events import Progress  # noqa: E402
from orchestrator.telemetry.record import EventReader, EventWriter  # noqa: E402
from sdnet.data.store import open_patches, write_patches  # noqa: E402
from sdnet.files import sha256_of  # noqa: E402
from tests.mounts.export import exported, why_impossible  # noqa: E402

TARGET = 1.1
STALL_TARGET = 0.01
PATCHES, BATCH = 8000, 64
EVENTS = 20_000
BINARIES = Path(sys.executable).parent
JOB: dict[str, Any] = {
    "cluster": {"workers": 1},
    "train": {"recipe": "demo", "epochs": 4, "batch": BATCH},
    "checkpoint": {"every_s": 0, "keep": 2},
    "evaluate": {"every_epochs": 4, "batch": BATCH},
}
Figures = dict[str, dict[str, list[float]]]


def make_patches(folder: Path, count: int) -> None:
    """Random train.npz and test.npz: no time depends on the pixels."""
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (count, 64, 128), np.uint8)
    write_patches(folder / "train.npz", count, [images], np.ones(count))
    write_patches(folder / "test.npz", 2 * BATCH, [images[: 2 * BATCH]], np.arange(2 * BATCH) % 2)


def gather(path: Path) -> float:
    """Seconds to copy all patches from the mapped file, in shuffled batches."""
    images = open_patches(path).images
    began = time.perf_counter()
    order = np.random.default_rng(1).permutation(len(images))
    for start in range(0, len(order), BATCH):
        images[order[start : start + BATCH]].sum()
    return time.perf_counter() - began


def measure_data(source: Path, sha256: str, cache: HostCache | None) -> tuple[float, float]:
    """Seconds until the file is open, and of one pass over it. cache: None maps it in place."""
    drop_pages(source)
    began = time.perf_counter()
    with cache.using(source, sha256) if cache else contextlib.nullcontext(source) as path:
        open_patches(path)
        opened_s = time.perf_counter() - began
        drop_pages(path)
        return opened_s, gather(path)


def drop_pages(path: Path) -> None:
    """Evict the file from the page cache: an earlier write or read must not help one side."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_events(folder: Path) -> float:
    """Events per second, until the last one is on storage."""
    folder.mkdir()
    began = time.perf_counter()
    with EventWriter(DirectoryStorage(folder)) as writer:
        for step in range(EVENTS):
            writer.record(Progress(step=step, steps=EVENTS))
    seconds = time.perf_counter() - began
    assert len(EventReader(DirectoryStorage(folder)).read()) == EVENTS
    return EVENTS / seconds


def measure_job(storage: Path, name: str, cache: Path | None, binaries: Path = BINARIES) -> dict[str, float]:
    """Share of time that saves stalled the loop, median seconds of a save, seconds to the first step, and of a step.

    cache: folder of the host cache, None for a version without one. binaries: the folder of the version's programs.
    """
    job: dict[str, Any] = {
        **JOB,
        "name": name,
        "storage": str(storage),
        "data": {"prepared": str(storage / "few")},
    }
    if cache is not None:
        job["cluster"] = {**JOB["cluster"], "cache": {"path": str(cache)}}
    path = storage / f"{name}.yaml"
    path.write_text(yaml.safe_dump(job))
    # Ray lets workers import from the current folder, which must not have another version of this project.
    launch = subprocess.run(
        [binaries / "sdnet-orchestrate", "launch", path], cwd=storage, capture_output=True, text=True
    )
    if launch.returncode:
        sys.exit(f"{binaries}: the launch failed: {launch.stderr[-2000:]}")
    lines = [json.loads(line) for line in (storage / name / "events.jsonl").read_text().splitlines()]
    begin = {line["event"]: line["t"] for line in reversed(lines)}
    epochs = [at for at, line in enumerate(lines) if line["event"] == "epoch"]
    later = lines[epochs[0] + 1 :]  # the first epoch compiles
    saves = [line for line in later if line["event"] == "checkpoint_saved"]
    trained_s = sum(line["seconds"] for line in later if line["event"] == "epoch")
    return {
        "stall_share": sum(save["stall_s"] for save in saves) / trained_s,
        "save_s": statistics.median(save["save_s"] for save in saves),
        "first_step_s": begin["first_step"] - begin["run_started"],
        "step_s": trained_s / (lines[epochs[-1]]["step"] - lines[epochs[0]]["step"]),
    }


@contextlib.contextmanager
def places() -> Iterator[tuple[Path, dict[str, Path]]]:
    """A scratch folder, and a folder with data on each kind of storage."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "server").mkdir()
        with exported(scratch / "server") as export:
            sides = {"local": scratch / "local", "sshfs": export.first / "side"}
            for side in sides.values():
                side.mkdir()
                make_patches(side / "many", PATCHES)
                make_patches(side / "few", 10 * BATCH)
            yield scratch, sides


def measure(rounds: int, against: Path | None) -> Figures:
    """All figures of all rounds, by quantity and side. against: a checkout of another version."""
    found: Figures = defaultdict(lambda: defaultdict(list))
    with places() as (scratch, sides):
        sha256 = sha256_of(sides["local"] / "many" / "train.npz")
        for number in range(rounds):
            cache = HostCache(base=scratch / f"cache{number}")
            cache.base.mkdir()
            for side, place, own in (
                ("local", "local", cache), ("sshfs_first_copy", "sshfs", cache),
                ("sshfs_copied", "sshfs", cache), ("sshfs_mapped", "sshfs", None),
            ):  # fmt: skip
                opened_s, pass_s = measure_data(sides[place] / "many" / "train.npz", sha256, own)
                found["open_s"][side].append(opened_s)
                found["gather_s"][side].append(pass_s)
            for side, folder in sides.items():
                found["events_per_s"][side].append(measure_events(folder / f"events{number}"))
            jobs: dict[str, tuple[Path, str, Path | None, Path]] = {
                side: (folder, f"job{number}", cache.base, BINARIES) for side, folder in sides.items()
            }
            if against is not None:
                jobs["local_before"] = (sides["local"], f"old{number}", None, against / ".venv/bin")
            for side, given in jobs.items():
                for what, value in measure_job(*given).items():
                    found[what][side].append(value)
    return found


def result_of(found: Figures) -> dict[str, object]:
    """Medians, the ratio and whether the targets are met."""
    medians = {
        what: {side: float(f"{statistics.median(values):.4g}") for side, values in sides.items()}
        for what, sides in found.items()
    }
    ratio = medians["gather_s"]["sshfs_copied"] / medians["gather_s"]["local"]
    stalls = medians["stall_share"]["sshfs"]
    return {
        "name": "storage",
        "ratio": round(ratio, 3),
        "target": TARGET,
        "met": ratio <= TARGET and stalls <= STALL_TARGET,
        "stall_target": STALL_TARGET,
        "versions": versions(),
        "patches_mb": round(PATCHES * 64 * 128 / 1e6, 1),
        **medians,
        "all": {
            what: {side: [round(value, 5) for value in values] for side, values in sides.items()}
            for what, sides in found.items()
        },
    }


def versions() -> dict[str, str]:
    """The versions that the figures depend on."""
    printed = subprocess.run(["sshfs", "--version"], capture_output=True, text=True).stdout.splitlines()
    sshfs = next(line for line in printed if line.startswith("SSHFS"))
    packages = {name: metadata.version(name) for name in ("mindspore", "ray", "numpy")}
    return {"python": platform.python_version(), "kernel": platform.release(), "sshfs": sshfs, **packages}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--against", type=Path, help="a checkout of another version, with its .venv")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if why_impossible():
        parser.error(why_impossible())
    result = result_of(measure(given.rounds, given.against))
    if given.json:
        print(json.dumps(result))
        return
    for what in ("open_s", "gather_s", "events_per_s", "stall_share", "save_s", "first_step_s", "step_s"):
        print(f"{what:14}", ", ".join(f"{side} {value}" for side, value in result[what].items()))  # type: ignore[attr-defined]
    print(
        f"gathering from the copy takes {result['ratio']} of the local disk's time (target at most {TARGET})"
    )


if __name__ == "__main__":
    main()
