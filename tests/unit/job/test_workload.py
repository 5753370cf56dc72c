"""SDNet as a user of the engine: one checkpoint layout for `sdnet train` and for a group."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.engine.checkpoints import newest_valid, read_checkpoint, write_checkpoint
from orchestrator.engine.control.failures import TrainingDiverged
from orchestrator.errors import CorruptData
from orchestrator.job.workload import SdnetFormat, SdnetJob, opened_data, snapshot_of, state_of
from orchestrator.storage import DirectoryStorage, StorageUnavailable
from orchestrator.storage.host_cache import HostCache
from sdnet.config import Recipe
from sdnet.data.checksums import sample_checksum
from sdnet.data.store import open_patches
from sdnet.errors import InputError
from sdnet.parameters import checkpoint
from sdnet.parameters.checkpoint import CheckpointState, Snapshot

FORMAT = SdnetFormat()


@pytest.fixture
def snapshot() -> Snapshot:
    state = CheckpointState(
        epoch=1, step=7, samples=112, seed=0, slices=2, world_size=1, num_samples=40,
        recipe={"lr": 0.1}, losses=(0.25, 1 / 3), metrics={"fpr95": 0.5}, data={"train.npz": "0" * 64},
    )  # fmt: skip
    model = {"embedding.1.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
    return Snapshot(model, {"global_step": np.array([7], np.int32), "lr": np.array(0.5, np.float32)}, state)


def same(one: Snapshot, other: Snapshot) -> bool:
    return one.state == other.state and all(
        list(mine) == list(theirs) and all(np.array_equal(mine[n], theirs[n]) for n in mine)
        for mine, theirs in ((one.model, other.model), (one.optimizer, other.optimizer))
    )


def test_a_group_and_sdnet_train_write_the_same_bytes(tmp_path: Path, snapshot: Snapshot) -> None:
    (tmp_path / "alone" / "checkpoints").mkdir(parents=True)
    (tmp_path / "group").mkdir()
    alone = tmp_path / "alone" / "checkpoints" / "step_00000007"
    snapshot.write(alone)
    name = write_checkpoint(DirectoryStorage(tmp_path / "group"), FORMAT.encode(state_of(snapshot), 7, {}))
    group = tmp_path / "group" / "checkpoints" / name
    assert {f.name: f.read_bytes() for f in group.iterdir()} == {
        f.name: f.read_bytes() for f in alone.iterdir()
    }


def test_each_reads_what_the_other_wrote(tmp_path: Path, snapshot: Snapshot) -> None:
    storage = DirectoryStorage(tmp_path)
    name = write_checkpoint(storage, FORMAT.encode(state_of(snapshot), 7, {}))
    assert same(checkpoint.read(tmp_path / "checkpoints" / name), snapshot)
    Snapshot(snapshot.model, snapshot.optimizer, snapshot.state).write(
        tmp_path / "checkpoints" / "step_00000007"
    )
    newest, encoded, corrupt = newest_valid(storage)
    assert encoded is not None and not corrupt
    assert same(snapshot_of(FORMAT.decode(encoded)), snapshot)
    assert encoded.metrics == {"fpr95": 0.5}


def test_weights_that_are_not_finite_end_the_run_and_are_not_saved(snapshot: Snapshot) -> None:
    snapshot.model["embedding.1.weight"][1, 2] = np.nan
    with pytest.raises(TrainingDiverged, match="the weights are not finite at step 7"):
        FORMAT.encode(state_of(snapshot), 7, {})


def test_the_checkpoint_of_another_program_is_no_checkpoint_of_sdnet(
    tmp_path: Path, snapshot: Snapshot
) -> None:
    storage = DirectoryStorage(tmp_path)
    encoded = FORMAT.encode(state_of(snapshot), 7, {})
    write_checkpoint(storage, type(encoded)({"model.ckpt": encoded.files["model.ckpt"]}, encoded.fields))
    with pytest.raises(CorruptData, match="is no checkpoint of SDNet"):
        FORMAT.decode(read_checkpoint(storage, "step_00000007"))


def job(train: Path, test: Path, sample: str) -> SdnetJob:
    return SdnetJob(
        recipe=Recipe(), train=train, test=test, cache=HostCache(base=train.parent / "cache", limit_bytes=0),
        data={"train.npz": "", "test.npz": ""}, data_sample=sample, slices=1, evaluate_every=1, evaluate_batch=8,
    )  # fmt: skip


def test_other_data_never_use_the_graphs_that_were_compiled_for_these(tmp_path: Path) -> None:
    job = SdnetJob(
        recipe=Recipe(), train=tmp_path, test=tmp_path, cache=HostCache(base=tmp_path, limit_bytes=0),
        data={"train.npz": "1", "test.npz": "2"}, data_sample="", slices=1, evaluate_every=1, evaluate_batch=8,
    )  # fmt: skip
    restarted = replace(job, data={"train.npz": "1", "test.npz": "3"})
    assert job.compile_key() == replace(job, evaluate_every=2).compile_key() != restarted.compile_key()


def test_data_that_are_not_there_on_a_host_are_a_failure_of_storage_and_other_data_are_refused(
    tmp_path: Path,
) -> None:
    train, test = tmp_path / "train.npz", tmp_path / "test.npz"
    for path, labels in ((train, [1, 1]), (test, [0, 1])):
        np.savez(path, np.zeros((2, 64, 128), np.uint8), np.array(labels))
    sample = sample_checksum(open_patches(train), open_patches(test))
    with opened_data(job(train, test, sample), lambda: None) as opened:
        assert len(opened[0]) == 2 and opened[0].path == train
    with (
        pytest.raises(InputError, match="is not the file that the launch began with"),
        opened_data(job(train, test, "another"), lambda: None),
    ):
        pass
    test.unlink()
    with (
        pytest.raises(StorageUnavailable, match="test.npz"),
        opened_data(job(train, test, sample), lambda: None),
    ):
        pass
