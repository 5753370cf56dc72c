"""Distances have the same bits for any number of ranks; exported files compute the same."""

import contextlib
import errno
import os
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdnet import export
from sdnet.cli.messages import exported_line
from sdnet.config import Recipe
from sdnet.data.places import Places
from sdnet.data.store import PatchFile
from sdnet.errors import InputError
from sdnet.evaluation.evaluate import Evaluation, chunks_of_rank, merge, num_chunks, training_threshold
from sdnet.export import ExportDiffers, export_checkpoint
from sdnet.files import checksum_path, put_with_checksum, sha256_of
from sdnet.network.model import SDNet
from sdnet.parameters import checkpoint, weights
from sdnet.parameters.published import write_published
from sdnet.training.trainer import Trainer

pytestmark = pytest.mark.networks

CHUNK = 6  # 40 pairs: the last chunk is filled up


@pytest.mark.parametrize("world_size", [1, 2, 3, 9])
def test_distances_are_bit_equal_for_any_number_of_ranks(evaluation, patches, world_size):
    alone = evaluation.distances(patches, CHUNK, range(num_chunks(len(patches), CHUNK)))
    shares = [
        evaluation.distances(patches, CHUNK, chunks_of_rank(len(patches), CHUNK, rank, world_size))
        for rank in range(world_size)
    ]
    merged = merge(shares, len(patches), CHUNK)
    assert merged.dtype == np.float64
    np.testing.assert_array_equal(merged, alone)


def test_a_distance_is_that_of_the_pair_in_its_place(evaluation, patches):
    opt, sar = evaluation.embed(patches.images[:CHUNK])
    expected = np.linalg.norm(opt.astype(np.float64) - sar, axis=1)
    np.testing.assert_allclose(evaluation.distances(patches, CHUNK, [0]), expected, rtol=1e-12)


def test_embeddings_have_unit_length_also_of_constant_patches(evaluation):
    pairs = np.random.default_rng(0).integers(0, 256, (CHUNK, 64, 128), np.uint8)
    pairs[0] = 77
    for embedding in evaluation.embed(pairs):
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1)[1:], 1, rtol=1e-5)
        assert np.isfinite(embedding).all()


@given(st.integers(1, 50), st.integers(1, 10), st.integers(1, 6))
def test_every_pair_is_in_its_place_for_any_shares(num_pairs, batch, world_size):
    shares = []
    for rank in range(world_size):
        chunks = chunks_of_rank(num_pairs, batch, rank, world_size)
        rows = [row for chunk in chunks for row in range(chunk * batch, min((chunk + 1) * batch, num_pairs))]
        shares.append(np.array(rows, float))
    np.testing.assert_array_equal(merge(shares, num_pairs, batch), np.arange(num_pairs))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "given.ckpt"
    write_published(path, weights.initial(SDNet(Recipe(), training=False), seed=1))
    return path


def test_an_exported_file_computes_what_the_checkpoint_does(published, tmp_path):
    out = tmp_path / "sdnet.mindir"
    exported = export_checkpoint(published, out)
    assert exported.difference <= 1e-5
    assert exported.model.origin == checkpoint.load_model(published, _shapes()).origin
    assert exported.sha256 == sha256_of(out)
    assert exported_line(tmp_path / "a\nb.mindir", exported).count("\n") == 1
    assert (tmp_path / "sdnet.mindir.sha256").read_text() == f"{exported.sha256}  sdnet.mindir\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sdnet.mindir", "sdnet.mindir.sha256"]


@pytest.mark.parametrize("temporary", ["plain", "über (1)"])
def test_any_path_can_be_exported_to(published, tmp_path, monkeypatch, temporary):
    """MindSpore itself takes only some ASCII characters in a path."""
    scratch, folder = tmp_path / temporary, tmp_path / "été 地物"
    scratch.mkdir()
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    export_checkpoint(published, folder / "a b+c.mindir")
    assert sorted(path.name for path in folder.iterdir()) == ["a b+c.mindir", "a b+c.mindir.sha256"]
    assert list(scratch.iterdir()) == []


def test_the_checksum_of_a_name_that_is_not_utf_8_names_its_bytes(tmp_path):
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xd6.mindir"))
    found = put_with_checksum(b"content", out)
    assert checksum_path(out).read_bytes() == found.encode() + b"  \xd6.mindir\n"


def test_a_checksum_that_cannot_be_written_is_refused_before_the_export(published, tmp_path):
    (tmp_path / "sdnet.mindir.sha256").mkdir()
    for name, reason in (("sdnet", "Is a directory"), ("y" * 245, "File name too long")):
        with pytest.raises(
            InputError, match=rf"\.mindir\.sha256 cannot be written \({reason}\); name a file"
        ):
            export_checkpoint(published, tmp_path / f"{name}.mindir")
    assert [path.name for path in tmp_path.iterdir()] == ["sdnet.mindir.sha256"]


def test_an_export_does_not_replace_its_own_checkpoint(published, tmp_path):
    named = tmp_path / "given.mindir"
    named.write_bytes(published.read_bytes())
    with pytest.raises(InputError, match=r"given\.mindir is an input, and the result would replace it"):
        export_checkpoint(named, named)
    assert sha256_of(named) == sha256_of(published)


def test_a_full_temporary_folder_is_named(published, tmp_path, monkeypatch):
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as MindSpore does, without a name

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(export.ms, "export", full)
    with pytest.raises(OSError, match="No space left on device: '.*/sdnet-export-"):
        export_checkpoint(published, tmp_path / ".mindir")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_older_file_with_its_checksum(tmp_path):
    out = tmp_path / "sdnet.mindir"
    put_with_checksum(b"before", out)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with largest_file(1), pytest.raises(OSError, match="File too large"):
        put_with_checksum(b"content", out)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@contextlib.contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Let writes fail, as on a full disk, when a file would become larger."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def test_an_export_that_fails_leaves_what_was_there(published, tmp_path, monkeypatch):
    out = tmp_path / "sdnet.mindir"
    out.write_bytes(b"before")
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(ExportDiffers, match="not kept"):
        export_checkpoint(published, out)
    assert out.read_bytes() == b"before" and list(tmp_path.iterdir()) == [out]


def _shapes() -> dict[str, tuple[int, ...]]:
    return weights.shapes(SDNet(Recipe(), training=False))


@pytest.mark.parametrize(
    ("out", "file_format", "message"),
    [
        ("sdnet.air", "air", "needs an Ascend host"),
        ("sdnet.onnx", "onnx", "format onnx is not known"),
        ("sdnet.bin", "mindir", "does not end in .mindir"),
        ("nowhere/sdnet.mindir", "mindir", "nowhere/sdnet.mindir cannot be written"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(published, tmp_path, out, file_format, message):
    with pytest.raises(InputError, match=message):
        export_checkpoint(published, tmp_path / out, file_format)
    assert list(tmp_path.iterdir()) == []


def test_two_files_of_patches_share_one_network(evaluation, patches):
    half = PatchFile(patches.path, patches.images[:12], patches.labels[:12])
    whole = evaluation.distances(patches, CHUNK, [0, 1])
    np.testing.assert_array_equal(evaluation.distances(half, CHUNK, [0, 1]), whole)


@pytest.fixture(scope="module")
def modern(patches: PatchFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained network that is not the published one."""
    recipe = Recipe(
        batch=8, objective="contrastive", normalisation="modality", orientation_channels=4, flips=True
    )
    path = tmp_path_factory.mktemp("modern") / "step_0"
    Trainer(recipe, patches).snapshot().write(path)
    return path


def test_a_checkpoint_says_which_network_it_is_of_and_exports_as_it_computes(modern, tmp_path):
    assert checkpoint.read_recipe(modern).orientation_channels == 4
    exported = export_checkpoint(modern, tmp_path / "modern.mindir")
    assert exported.difference <= 1e-5
    assert exported.model.origin == checkpoint.read_origin(modern)


def test_weights_alone_of_another_network_are_refused_in_one_line(modern):
    with pytest.raises(InputError, match=r"model\.ckpt.*give a checkpoint of SDNet"):
        Evaluation.of_checkpoint(modern / "model.ckpt")


def test_a_checkpoint_with_a_field_of_a_later_version_is_refused_by_its_name(modern, monkeypatch):
    state = checkpoint.read_state(modern)
    later = replace(state, recipe={**state.recipe, "warp": 1})
    monkeypatch.setattr(checkpoint, "read_state", lambda _: later)
    with pytest.raises(InputError, match="was trained with warp, which this version does not know"):
        Evaluation.of_checkpoint(modern)


def test_larger_patches_are_evaluated_by_their_middle(evaluation, patches):
    wide = np.random.default_rng(1).integers(0, 256, (CHUNK, 96, 192), np.uint8)
    wide[:, 16:80, 16:80] = patches.images[:CHUNK, :, :64]
    wide[:, 16:80, 112:176] = patches.images[:CHUNK, :, 64:]
    for found, expected in zip(evaluation.embed(wide), evaluation.embed(patches.images[:CHUNK]), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_threshold_of_training_pairs_is_between_their_distances(evaluation, patches):
    number = len(patches)
    places = Places(("a", "b"), np.repeat([0, 1], number // 2), np.arange(number), np.zeros((number, 2), int))
    threshold = training_threshold(evaluation, patches, places, CHUNK)
    assert 0 <= threshold <= 2
    alone = Places(("a",), np.zeros(number, int), np.arange(number), np.zeros((number, 2), int))
    with pytest.raises(InputError, match="has one scene only"):
        training_threshold(evaluation, patches, alone, CHUNK)
