"""Where a run's data are: in the run, or at the paths that its reference names."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import CorruptData
from orchestrator.job.data.files import data_files, followed, refer_to, use_own_files
from orchestrator.job.data.inputs import prepared_files
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec, spec_from_dict
from orchestrator.job.stages.preprocess import preprocess
from sdnet.data.augment import middle
from sdnet.errors import InputError
from sdnet.preparation.prepare import notes_on_result

LABELS = {"train.npz": [1, 1, 1, 1], "test.npz": [0, 1, 0, 1]}


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    folder = tmp_path / "prepared"
    folder.mkdir()
    for name, labels in LABELS.items():
        np.savez(folder / name, np.tile(np.arange(128, dtype=np.uint8), (4, 64, 1)), np.array(labels))
    return folder


def a_run(tmp_path: Path, name: str = "mine") -> RunDirectory:
    run = RunDirectory.of(str(tmp_path), name)
    run.create()
    return run


def job(tmp_path: Path, prepared: Path) -> JobSpec:
    return spec_from_dict(
        {"name": "mine", "storage": str(tmp_path), "data": {"prepared": str(prepared)}}, "test"
    )


def test_a_run_uses_its_own_files_unless_it_refers_to_others(tmp_path: Path, prepared: Path) -> None:
    run = a_run(tmp_path)
    assert data_files(run) == (run.train_npz, run.test_npz)
    refer_to(run, prepared / "train.npz", prepared / "test.npz")
    assert data_files(run) == (prepared / "train.npz", prepared / "test.npz")
    use_own_files(run)
    assert data_files(run) == (run.train_npz, run.test_npz)


@pytest.mark.parametrize("edge", [64, 66])
def test_patches_of_train_npz_that_are_also_in_test_npz_are_counted(tmp_path, prepared, edge):
    stored = np.random.default_rng(0).integers(0, 256, (4, edge, 2 * edge), np.uint8)
    unshared = np.random.default_rng(1).integers(0, 256, (4, 64, 128), np.uint8)
    np.savez(prepared / "train.npz", stored, np.ones(4, int))
    for shared in (0, 3):
        tested = np.concatenate([middle(stored[:shared]), unshared[shared:]])
        np.savez(prepared / "test.npz", tested, np.array(LABELS["test.npz"]))
        notes = notes_on_result(preprocess(job(tmp_path, prepared), a_run(tmp_path), lambda event: None))
        assert [note.partition(";")[0] for note in notes] == [
            "3 of 4 test pairs are also training pairs, so FPR95 is too good"
        ][:shared]


@pytest.mark.parametrize("half", [np.arange(64 * 64).reshape(64, 64) % 251, np.zeros((64, 64))])
def test_pairs_whose_halves_are_equal_are_counted_and_a_file_of_them_is_refused(tmp_path, prepared, half):
    equal = np.tile(np.concatenate([half, half], axis=1).astype(np.uint8), (4, 1, 1))
    for count, name in ((1, "train.npz"), (4, "test.npz"), (4, "train.npz")):
        pairs = np.random.default_rng(count).integers(0, 256, (4, 64, 128), np.uint8)
        pairs[:count] = equal[:count]
        np.savez(prepared / name, pairs, np.array(LABELS[name]))
        if count == 1:
            notes = notes_on_result(preprocess(job(tmp_path, prepared), a_run(tmp_path), lambda event: None))
            assert any(note.startswith("the two halves of 1 pair(s) of") for note in notes)
            continue
        with pytest.raises(
            InputError, match=rf"{name}: the two halves of all 4 pairs are equal; put optical"
        ):
            preprocess(job(tmp_path, prepared), a_run(tmp_path), lambda event: None)


def test_prepared_data_leave_a_reference_with_checksums_and_no_link(tmp_path: Path, prepared: Path) -> None:
    run = a_run(tmp_path)
    assert preprocess(job(tmp_path, prepared), run, lambda event: None)["patches"] == {"train": 4, "test": 4}
    assert [path.name for path in run.data.iterdir()] == ["reference.json"]
    assert json.loads((run.data / "reference.json").read_text()) == {
        name: {
            "path": str(prepared / name),
            "sha256": hashlib.sha256((prepared / name).read_bytes()).hexdigest(),
        }
        for name in LABELS
    }


def test_the_data_folder_of_another_run_can_be_given_although_it_only_refers(
    tmp_path: Path, prepared: Path
) -> None:
    other = a_run(tmp_path, "other")
    refer_to(other, prepared / "train.npz", prepared / "test.npz")
    assert prepared_files(str(other.data)) == (prepared / "train.npz", prepared / "test.npz")
    assert followed(other.test_npz) == prepared / "test.npz"
    assert followed(prepared / "test.npz") == prepared / "test.npz"
    assert followed(tmp_path / "nowhere" / "test.npz") == tmp_path / "nowhere" / "test.npz"


def test_files_that_are_no_patches_are_refused_and_nothing_is_referred_to(
    tmp_path: Path, prepared: Path
) -> None:
    run = a_run(tmp_path)
    (prepared / "test.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match="test.npz is not a whole .npz"):
        preprocess(job(tmp_path, prepared), run, lambda event: None)
    assert list(run.data.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"train.npz": {"path": 3}}', '{"train.npz": 1}', "\x00"]
)
def test_a_damaged_reference_is_named_and_can_be_made_again(tmp_path: Path, content: str) -> None:
    run = a_run(tmp_path)
    (run.data / "reference.json").write_text(content)
    with pytest.raises(CorruptData, match="reference.json is corrupt .*delete it, and launch again"):
        data_files(run)
