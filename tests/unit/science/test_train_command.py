"""`sdnet train`: what it resumes from, what it refuses, and what it prints."""

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.storage.directory import DirectoryStorage
from orchestrator.storage.lease import Owner, take
from sdnet.cli import train_folder
from sdnet.cli.train_folder import FolderHooks, train_in_folder
from sdnet.data.checksums import checksums_of
from sdnet.data.store import open_training_patches
from sdnet.errors import InputError
from sdnet.files import alone_in
from sdnet.parameters.newest import newest_checkpoint
from sdnet.recipes import RECIPES
from sdnet.training.loop import EpochReport
from sdnet.training.trainer import Trainer
from tests.unit.science.refusals import refusal
from tests.unit.sdnet_checkpoints import save


@pytest.mark.parametrize("swapped", ["train.npz", "test.npz"])
def test_training_does_not_resume_with_other_data(swapped, tmp_path, monkeypatch, capsys):
    def write(name: str, seed: int) -> Path:
        images = np.random.default_rng(seed).integers(0, 256, (16, 64, 128), np.uint8)
        labels = np.ones(16, int) if name == "train.npz" else np.arange(16) % 2
        np.savez(tmp_path / name, images, labels)
        return tmp_path / name

    train, test = write("train.npz", 0), write("test.npz", 1)
    recipe = replace(RECIPES["demo"], batch=8)
    (tmp_path / "run").mkdir()
    trainer = Trainer(recipe, open_training_patches(train), data=checksums_of(train, test))
    trainer.snapshot().write(tmp_path / "run/epoch_0000")
    write(swapped, 2)
    line = refusal(
        f"train --data {tmp_path} --out {tmp_path}/run --recipe demo --batch 8", monkeypatch, capsys
    )
    assert f"epoch_0000 was trained with another {swapped} (checksum " in line and "put the data back" in line


def test_non_matches_are_not_trained_on(tmp_path, monkeypatch, capsys):
    for name in ("train.npz", "test.npz"):
        np.savez(tmp_path / name, np.zeros((16, 64, 128), np.uint8), np.arange(16) % 2)
    line = refusal(f"train --data {tmp_path} --out {tmp_path}/run", monkeypatch, capsys)
    assert "train.npz holds 8 non-matches (label 0) among 16 pairs" in line


def test_two_trainings_do_not_share_a_folder(tmp_path, monkeypatch, capsys):
    for name, labels in (("train.npz", np.ones(16, int)), ("test.npz", np.arange(16) % 2)):
        np.savez(tmp_path / name, np.zeros((16, 64, 128), np.uint8), labels)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    with alone_in(tmp_path / "run/checkpoints"):
        line = refusal(f"train --data {tmp_path} --out {tmp_path}/run", monkeypatch, capsys)
    assert "another process is working in" in line and "run/checkpoints; wait until it ends" in line


def patches_for_training(folder: Path) -> str:
    for name, labels in (("train.npz", np.ones(16, int)), ("test.npz", np.arange(16) % 2)):
        np.savez(folder / name, np.zeros((16, 64, 128), np.uint8), labels)
    return f"train --data {folder} --recipe demo --out {folder}/run"


def test_training_does_not_join_a_run_that_a_launch_works_on(tmp_path, monkeypatch, capsys):
    command = patches_for_training(tmp_path)
    (tmp_path / "run").mkdir()
    owner = Owner(id="a", host="node-7", pid=42, mark="", since=0.0)
    lease = take(DirectoryStorage(tmp_path / "run"), owner)
    beats = itertools.count(1)
    # Each look finds the next heartbeat.
    monkeypatch.setattr(train_folder.time, "sleep", lambda _: lease.renew(next(beats), 1.0))
    line = refusal(f"{command} --batch 8", monkeypatch, capsys)
    assert line == (
        f"error: {tmp_path}/run is being run by a launch (process 42 on node-7); "
        "stop it first, or give another --out\n"
    )
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.parametrize("ended", [True, False])
def test_training_uses_the_folder_of_a_launch_that_has_ended_or_was_killed(tmp_path, monkeypatch, ended):
    lease = take(DirectoryStorage(tmp_path), Owner(id="a", host="node-7", pid=42, mark="", since=0.0))
    lease.renew(1, 1.0, ended=ended)
    monkeypatch.setattr(train_folder, "_SILENT_AFTER_S", 0.0)
    train_folder._refuse_run_of_a_launch(tmp_path)


@pytest.mark.parametrize("inside", ["checkpoints", "checkpoints/step_00000005"])
def test_training_does_not_begin_again_inside_the_checkpoints_of_a_run(tmp_path, monkeypatch, capsys, inside):
    command = patches_for_training(tmp_path)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    save(tmp_path / "run/checkpoints", 5)
    line = refusal(f"{command}/{inside} --batch 8", monkeypatch, capsys)
    run = tmp_path / "run"
    assert line == (
        f"error: {run}/{inside} is inside the checkpoints of a run; give --out {run} to resume that run\n"
    )


def test_a_batch_above_the_data_leaves_no_folder(tmp_path, monkeypatch, capsys):
    line = refusal(f"{patches_for_training(tmp_path)} --batch 17", monkeypatch, capsys)
    assert line == "error: a step takes 17 samples and the data holds 16; lower the batch\n"
    assert not (tmp_path / "run").exists()


def test_training_resumes_from_the_newest_checkpoint_and_not_from_copies_or_corrupt_ones(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    assert newest_checkpoint(tmp_path) is None
    for name in ("epoch_0002", "epoch_9999", "epoch_10000", "epoch_0003.bak", "epoch_old"):
        (tmp_path / name).mkdir()
    assert newest_checkpoint(tmp_path) == tmp_path / "epoch_10000"  # of an earlier version
    for name in (
        "step_99999999",
        "step_100000000",
        "step_100000000.2",
        "step_00000003.bak",
        "step_300000000",
    ):
        (checkpoints / name).mkdir()
        (checkpoints / name / "state.json").touch()
    (checkpoints / "step_300000000" / "corrupt").touch()
    (checkpoints / "step_400000000").mkdir()  # its writer was killed before it wrote the state
    assert newest_checkpoint(tmp_path) == checkpoints / "step_100000000.2"


def test_training_does_not_begin_again_where_checkpoints_were_lost(tmp_path, monkeypatch, capsys):
    for name in ("train.npz", "test.npz"):
        labels = np.ones(16, int) if name == "train.npz" else np.arange(16) % 2
        np.savez(tmp_path / name, np.zeros((16, 64, 128), np.uint8), labels)
    train = f"train --data {tmp_path} --recipe demo --batch 8 --out {tmp_path}"
    for left in ("published/checkpoint_SDNet_3.ckpt", "group/checkpoints/step_00000004/corrupt"):
        (tmp_path / left).parent.mkdir(parents=True)
        (tmp_path / left).touch()
        refused = refusal(f"{train}/{left.partition('/')[0]}", monkeypatch, capsys)
        assert (
            f"{tmp_path / left} is of an earlier run, and there is no checkpoint left to resume from"
            in refused
        )

    corrupt = tmp_path / "run/checkpoints/step_00000004"
    corrupt.mkdir(parents=True)
    (corrupt / "state.json").write_bytes(b"{}")
    refused = refusal(f"{train}/run", monkeypatch, capsys)
    remedy = f"move {corrupt} away to resume from the checkpoint before it"
    assert refused == f"error: {corrupt}/state.json is not what was written; {remedy}\n"


def test_an_epoch_prints_the_checksum_of_the_weights_that_it_wrote(tmp_path, capsys):
    np.savez(tmp_path / "train.npz", np.zeros((16, 64, 128), np.uint8), np.ones(16, int))
    trainer = Trainer(replace(RECIPES["demo"], batch=8), open_training_patches(tmp_path / "train.npz"))
    (tmp_path / "checkpoints").mkdir()
    rates = {"fpr95": 0.5, "accuracy": 0.5}
    FolderHooks(tmp_path).epoch_finished(
        trainer, EpochReport(1, 2, {"total": 1.0}, 0.002, 2, 1.5, rates, 0.1)
    )
    trainer.close()
    written = tmp_path / "checkpoint_SDNet_1.ckpt"
    checksum = hashlib.sha256(written.read_bytes()).hexdigest()
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {written} (SHA-256 {checksum})"


def test_training_does_not_resume_from_a_checkpoint_with_the_name_of_another_step(tmp_path):
    np.savez(tmp_path / "train.npz", np.zeros((16, 64, 128), np.uint8), np.ones(16, int))
    train = open_training_patches(tmp_path / "train.npz")
    (tmp_path / "checkpoints").mkdir()
    renamed = save(tmp_path / "checkpoints", 5).rename(tmp_path / "checkpoints/step_00000007")
    with pytest.raises(InputError) as caught:
        train_in_folder(tmp_path, RECIPES["demo"], train, train, data={}, evaluate_batch=8)
    assert str(caught.value) == f"{renamed} holds step 5; rename it back, or move it away"


def test_a_published_file_that_a_killed_process_did_not_write_is_written_at_the_resume(tmp_path, capsys):
    np.savez(tmp_path / "train.npz", np.zeros((16, 64, 128), np.uint8), np.ones(16, int))
    train, recipe = open_training_patches(tmp_path / "train.npz"), replace(RECIPES["demo"], batch=8, epochs=1)
    hooks, rates = FolderHooks(tmp_path), {"fpr95": 0.5, "accuracy": 0.5}
    (tmp_path / "checkpoints").mkdir()
    trainer = Trainer(recipe, train)
    trainer.step()
    trainer.step()
    hooks.epoch_finished(trainer, EpochReport(1, 2, {"total": 1.0}, 0.002, 2, 1.5, rates, 0.1))
    published = tmp_path / "checkpoint_SDNet_1.ckpt"
    before = published.read_bytes()
    published.unlink()
    capsys.readouterr()
    for lines in (["resumed from", f"wrote {published} (SHA-256"], ["resumed from"]):
        train_in_folder(tmp_path, recipe, train, train, data={}, evaluate_batch=8)
        printed = capsys.readouterr().out.splitlines()
        assert printed.pop() == "all 1 epochs are done; nothing is left to train"
        assert all(line.startswith(begin) for line, begin in zip(printed, lines, strict=True))
        assert published.read_bytes() == before
