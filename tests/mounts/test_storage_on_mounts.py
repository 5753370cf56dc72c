"""The storage contract on two sshfs mounts of one export: what one host writes, another one reads."""

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator.check.contract import judge_contract, look, write
from orchestrator.engine.checkpoints import newest_valid, write_checkpoint
from orchestrator.engine.control.failures import FailureKind
from orchestrator.engine.host.every_host import Answer
from orchestrator.engine.rank.run import _classified
from orchestrator.engine.state_format import NpzFormat
from orchestrator.job.data.copies import copies_of
from orchestrator.job.data.files import data_files, refer_to
from orchestrator.job.data.inputs import supply_of
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import DataSpec
from orchestrator.storage import DirectoryStorage, ObjectMissing, Ownership, RunIsOwned, StorageUnavailable
from orchestrator.storage.host_cache import HostCache
from orchestrator.storage.lease import take
from orchestrator.storage.mounts import mount_of
from orchestrator.telemetry.events import Progress
from orchestrator.telemetry.record import EventReader, EventWriter
from sdnet.data.store import write_patches
from tests.disk import fill, small_disk
from tests.mounts.contract import creations_at_once, reads
from tests.mounts.export import Export, why_impossible
from tests.mounts.owners import elsewhere

pytestmark = [
    pytest.mark.mounts,
    pytest.mark.skipif(bool(why_impossible()), reason=why_impossible() or "-"),
]

MB = 1_000_000
# sshfs keeps directories in its cache for 20 s.
LISTED_WITHIN_S = 25.0


@pytest.fixture
def storages(export: Export, tmp_path: Path) -> tuple[DirectoryStorage, DirectoryStorage]:
    """One directory as storage, through either mount."""
    (export.directory / tmp_path.name).mkdir()
    first, second = (
        DirectoryStorage(export.first / tmp_path.name),
        DirectoryStorage(export.second / tmp_path.name),
    )
    _eventually(first.root.is_dir)
    return first, second


def _eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LISTED_WITHIN_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_mounts_are_seen_as_network_file_systems(export: Export) -> None:
    assert [mount_of(path).type for path in (export.first, export.second)] == ["fuse.sshfs"] * 2
    assert not mount_of(export.first / "a" / "b").is_local and mount_of(export.directory).is_local


def test_what_one_host_puts_another_reads_by_name(storages) -> None:
    for writer, reader in (storages, storages[::-1]):
        writer.put("folder/x", b"one")
        assert reader.get("folder/x") == b"one"
        writer.put("folder/x", b"two and more")
        _eventually(reads(reader, "folder/x", b"two and more"))
        writer.delete("folder/x")


@pytest.mark.soak
def test_a_new_name_is_listed_by_the_other_host_within_the_caches_time(storages) -> None:
    first, second = storages
    assert first.list("") == second.list("") == []
    second.put("new", b"")
    _eventually(lambda: first.list("") == ["new"])


def test_a_name_that_a_listing_still_shows_may_be_gone(storages) -> None:
    first, second = storages
    second.put("checkpoint/state.json", b"{}")
    _eventually(lambda: first.list("checkpoint/") == ["checkpoint/state.json"])
    second.delete("checkpoint/state.json")
    with pytest.raises(ObjectMissing):
        _eventually(lambda: first.get("checkpoint/state.json") == b"never")
    _eventually(lambda: first.list("") == [])


def test_create_has_exactly_one_winner_over_both_mounts(storages) -> None:
    for number in range(20):
        assert creations_at_once(storages, f"lease_{number}") == [False, False, False, True]


@pytest.mark.soak
def test_check_finds_that_the_mounts_fulfil_the_contract_and_how_long_listings_lag(storages) -> None:
    hosts = dict(zip(("a", "b"), storages, strict=True))
    written = [Answer(host, write(host, storage), "", 0.0, 0.0) for host, storage in hosts.items()]
    seen = [Answer(host, look(host, storage, tuple(hosts)), "", 0.0, 0.0) for host, storage in hosts.items()]
    found = list(judge_contract(written, seen))
    assert [finding.state for finding in found] == ["ok", "ok"]
    assert all(finding.seen.startswith("fuse.sshfs: one creator of a name") for finding in found)


@pytest.fixture
def shared_file(export: Export, tmp_path: Path) -> tuple[Path, str]:
    """40 MB as the first mount shows them, and their checksum."""
    content = np.random.default_rng(0).bytes(40 * MB)
    (export.directory / f"{tmp_path.name}.npz").write_bytes(content)
    path = export.first / f"{tmp_path.name}.npz"
    _eventually(path.exists)
    return path, hashlib.sha256(content).hexdigest()


def test_a_shared_file_is_copied_and_the_copy_is_on_a_local_disk(shared_file, tmp_path: Path) -> None:
    source, sha256 = shared_file
    with HostCache(base=tmp_path, limit_bytes=100 * MB).using(source, sha256) as path:
        assert path != source and mount_of(path).is_local
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256


@pytest.mark.soak
def test_a_copy_survives_a_server_that_fails_and_returns(export: Export, shared_file, tmp_path: Path) -> None:
    source, sha256 = shared_file
    cache = HostCache(base=tmp_path, limit_bytes=100 * MB, stall_s=30)
    done: list[bytes] = []

    def copy() -> None:
        with cache.using(source, sha256) as path:
            done.append(path.read_bytes())

    with export.server_away():
        thread = threading.Thread(target=copy)
        thread.start()
        thread.join(3)
        assert thread.is_alive()
    thread.join()
    assert hashlib.sha256(done[0]).hexdigest() == sha256


@pytest.mark.soak
@pytest.mark.parametrize("fault", [Export.server_away, Export.server_frozen])
def test_a_server_that_does_not_return_in_time_is_reported_in_one_line(
    export: Export, shared_file, tmp_path: Path, fault
) -> None:
    source, sha256 = shared_file
    cache = HostCache(base=tmp_path, limit_bytes=100 * MB, stall_s=2)
    began = time.monotonic()
    with fault(export), pytest.raises(StorageUnavailable) as failure, cache.using(source, sha256):
        pass
    assert time.monotonic() - began < 20
    line = str(failure.value)
    assert line.startswith(str(source)) and "\n" not in line
    assert _classified(failure.value, 0, 0).kind is FailureKind.STORAGE
    with HostCache(base=tmp_path, limit_bytes=100 * MB, stall_s=30).using(source, sha256) as path:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256


MAP_AND_LOSE = """
import sys, mmap, contextlib
from pathlib import Path
from orchestrator.storage.host_cache import HostCache
from orchestrator.storage.lease import take
source, sha256, base, mapped = sys.argv[1:]
cache = HostCache(base=Path(base), limit_bytes=10**9)
with cache.using(Path(source), sha256) if mapped == "copy" else contextlib.nullcontext(Path(source)) as path:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
        print("mapped", flush=True)
        sys.stdin.readline()
        print(sum(pages[at] for at in range(0, len(pages), 4096)) >= 0, flush=True)
"""


@pytest.mark.parametrize(("mapped", "code"), [("copy", 0), ("network", -7)])
def test_a_copy_is_mapped_without_sigbus_when_the_server_is_lost_and_the_network_file_is_not(
    export: Export, shared_file, tmp_path: Path, mapped: str, code: int
) -> None:
    source, sha256 = shared_file
    command = [sys.executable, "-c", MAP_AND_LOSE, str(source), sha256, str(tmp_path), mapped]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "mapped\n"
    with export.server_away():
        process.communicate("go\n", timeout=60)
    assert process.returncode == code


def prepared(export: Export, name: str) -> Path:
    """A folder with train.npz and test.npz, as the first mount shows it."""
    folder = export.directory / name
    folder.mkdir()
    images = np.random.default_rng(1).integers(0, 256, (200, 64, 128), np.uint8)
    for file, labels in (("train.npz", np.ones(200)), ("test.npz", np.arange(200) % 2)):
        write_patches(folder / file, 200, [images], labels)
    _eventually((export.first / name / "test.npz").exists)
    return export.first / name


def test_a_lost_server_is_a_storage_failure_and_not_wrong_input_when_the_launcher_reads_the_data(
    export: Export, tmp_path: Path
) -> None:
    folder = prepared(export, tmp_path.name)
    with export.server_away(), pytest.raises(StorageUnavailable, match=f"{tmp_path.name}.*cannot be reached"):
        supply_of(DataSpec(prepared=str(folder)))
    assert supply_of(DataSpec(prepared=str(folder))).train == 200


def test_a_reference_works_where_an_absolute_link_is_refused(export: Export, tmp_path: Path) -> None:
    folder = prepared(export, tmp_path.name)
    run = RunDirectory.of(str(export.first), f"run-{tmp_path.name}")
    run.create()
    refer_to(run, folder / "train.npz", folder / "test.npz")
    assert data_files(RunDirectory(export.second / run.root.name)) == (
        folder / "train.npz",
        folder / "test.npz",
    )
    assert copies_of(*data_files(run)).size_bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert not any(path.is_symlink() for path in run.data.iterdir())


@pytest.mark.parametrize(
    "direction",
    [pytest.param(1, id="no cache"), pytest.param(0, id="default caches")],
)
def test_a_launch_on_the_other_mount_is_refused_while_the_owner_is_alive(storages, direction: int) -> None:
    """Seen from another host, so only the heartbeat shows that the owner lives."""
    theirs, ours = storages[1 - direction], storages[direction]
    ownership = Ownership(take(theirs, elsewhere("first")))
    ownership.start()
    try:
        with pytest.raises(RunIsOwned, match="process 1 on first since"):
            take(ours, elsewhere("second"))
        assert ownership.lost() is None
    finally:
        ownership.end()
    assert take(storages[1], elsewhere("second")).number == 2


def test_an_owner_keeps_its_run_through_a_restart_of_the_server_and_no_other_launch_gets_it(
    export: Export, storages
) -> None:
    ownership = Ownership(take(storages[0], elsewhere("first")))
    ownership.start()
    try:
        with export.server_away(), pytest.raises(StorageUnavailable):
            take(storages[1], elsewhere("second"))
        with pytest.raises(RunIsOwned):
            take(storages[1], elsewhere("second"))
        ownership.check()
    finally:
        ownership.end()


def test_a_full_disk_behind_a_mount_tears_no_checkpoint_and_loses_no_event(
    export: Export, storages, tmp_path: Path
) -> None:
    with small_disk(export.directory / tmp_path.name / "small", 2):
        storage = DirectoryStorage(storages[0].root / "small")
        _eventually(storage.root.is_dir)
        state = {"weight": np.arange(1000)}
        name = write_checkpoint(storage, NpzFormat().encode(state, 1, {}))
        with EventWriter(storage) as writer:
            filler = fill(export.directory / tmp_path.name / "small")
            for step in range(2000):
                writer.record(Progress(step=step))
            assert not writer.flush()
            with pytest.raises(StorageUnavailable):
                write_checkpoint(storage, NpzFormat().encode({"weight": np.arange(9000)}, 2, {}))
            assert newest_valid(storage)[0] == name
            filler.unlink()
        recorded = [entry.event for entry in EventReader(storage).read()]
        assert recorded == [Progress(step=step) for step in range(2000)]
        later = write_checkpoint(storage, NpzFormat().encode({"weight": np.arange(9000)}, 2, {}))
        assert newest_valid(storage)[0] == later
