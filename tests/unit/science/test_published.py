"""Weights from files of other programs: SDNet's are read, everything else is refused by name."""

import os
from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore.train.checkpoint_pb2 import Checkpoint

from sdnet.errors import InputError
from sdnet.parameters import weights
from sdnet.parameters.checkpoint import load_model, read_model
from sdnet.parameters.parameter_file import ParameterFile, read_parameters, serialize
from sdnet.parameters.published import published_name, write_published

LARGEST = "embedding.14.weight"


@pytest.fixture(scope="module")
def whole(model: weights.State, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "a.ckpt"
    write_published(path, model)
    return path.read_bytes()


def put(path: Path, model: weights.State, **also: np.ndarray) -> Path:
    """A file of these weights; `also` by the names that the file shall have, dots written as __."""
    named = {published_name(name): value for name, value in model.items()}
    path.write_bytes(serialize(named | {name.replace("__", "."): value for name, value in also.items()}))
    return path


def refusal(path: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    with pytest.raises(InputError) as caught:
        load_model(path, shapes)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 + len(str(path))
    return str(caught.value)


def changed(model: weights.State, name: str, value: float) -> weights.State:
    array = model[name].copy()
    array.flat[array.size // 2] = value
    return model | {name: array}


def test_a_single_file_in_published_names_reads_back(model, shapes, tmp_path):
    path = tmp_path / "checkpoint_SDNet_5.ckpt"
    write_published(path, model)
    assert "model_L.lower_opt.0.weight" in ms.load_checkpoint(str(path))
    assert all((value == model[name]).all() for name, value in read_model(path, shapes).items())
    assert sorted(left.name for left in tmp_path.iterdir()) == [path.name, f"{path.name}.sha256"]


def test_sha256sum_accepts_the_checksum_file(model, shapes, tmp_path):
    path = tmp_path / "a b.ckpt"
    write_published(path, model)
    found = load_model(path, shapes)
    assert (tmp_path / "a b.ckpt.sha256").read_text() == f"{found.file_sha256}  a b.ckpt\n"


@pytest.mark.shared
def test_the_published_checkpoint_reads_by_its_own_names(shared, shapes):
    found = load_model(shared / "reference/checkpoint_SDNet_5.ckpt", shapes)
    assert {name: value.shape for name, value in found.state.items()} == shapes
    assert (found.file_sha256[:16], found.note) == ("75617f37053ecfa9", "")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [LARGEST, "embedding.2.moving_mean", "decoder.8.bias"])
def test_one_value_that_is_not_finite_is_refused_with_its_parameter(model, shapes, tmp_path, name, value):
    path = put(tmp_path / "a.ckpt", changed(model, name, value))
    said = refusal(path, shapes)
    assert published_name(name) in said and "has 1 of" in said and "not finite" in said


@pytest.mark.parametrize(("name", "value"), [(LARGEST, -7e8), ("embedding.2.moving_variance", -0.5)])
def test_a_value_that_no_training_gives_is_refused(model, shapes, tmp_path, name, value):
    said = refusal(put(tmp_path / "a.ckpt", changed(model, name, value)), shapes)
    assert published_name(name) in said and f"{value:.6g}" in said and "copy it again" in said


@pytest.mark.parametrize("has_checksum", [False, True])
@pytest.mark.parametrize(
    ("name", "value"), [(LARGEST, 0), ("decoder.9.weight", 0.5), ("lower_sar.1.moving_variance", 0)]
)
def test_weights_without_any_content_are_refused_by_name(model, shapes, tmp_path, name, value, has_checksum):
    blank = model | {name: np.full_like(model[name], value)}
    path = put(tmp_path / "a.ckpt", blank)
    if has_checksum:
        write_published(path, blank)
    assert refusal(path, shapes).endswith(
        f"{published_name(name)} is {value} everywhere, which trained weights never are; "
        "give the checkpoint of a trained network"
    )


@pytest.mark.parametrize(("zeros", "is_noted"), [(499, False), (500, True), (1024, True)])
def test_a_lost_block_of_a_file_without_a_checksum_is_noted_and_not_refused(
    model, shapes, tmp_path, zeros, is_noted
):
    lost = model[LARGEST].copy()
    lost.reshape(-1)[-zeros:] = 0
    also = model["embedding.1.weight"].copy()
    also.reshape(-1)[:400] = 0
    holed = model | {LARGEST: lost, "embedding.1.weight": also}
    path = put(tmp_path / "a.ckpt", holed)
    note = (
        f"model.{LARGEST} has {zeros} zeros in a row, which a lost part of a download also leaves; compare "
    )
    assert load_model(path, shapes).note.startswith(note) is is_noted
    write_published(path, holed)
    assert load_model(path, shapes).note == ""


def test_the_equal_values_that_training_starts_with_are_read(model, shapes, tmp_path):
    equal = {name for name, value in model.items() if value.size > 1 and (value == value.flat[0]).all()}
    assert {name.rpartition(".")[2] for name in equal} == {"gamma", "beta", "moving_mean", "moving_variance"}
    zeros = {name: np.zeros_like(model[name]) for name in model if name.endswith(("gamma", "bias"))}
    assert read_model(put(tmp_path / "a.ckpt", model | zeros), shapes).keys() == shapes.keys()


def test_the_same_name_twice_is_refused_also_side_by_side(whole, model, shapes, tmp_path):
    other, again = put(tmp_path / "b.ckpt", {}, x=np.ones(3, np.float32)).read_bytes(), tmp_path / "a.ckpt"
    again.write_bytes(whole + other + whole)
    assert "has parameter 'model.features_opt.0.weight' twice" in refusal(again, shapes)
    again.write_bytes(whole + other + other)
    assert "parameter 'x' is Float32 [3] in 24 bytes, which do not fit" in refusal(again, shapes)


def test_additional_parameters_are_ignored(model, shapes, tmp_path):
    adam = np.full(4, np.nan, np.float32)
    path = put(
        tmp_path / "a.ckpt", model, moment1__model__embedding__1__weight=adam, step=np.array(7, np.int32)
    )
    assert read_model(path, shapes).keys() == shapes.keys()


@pytest.mark.parametrize("stored", ["Complex64", "Float8E4M3FN", "Int4", "str"])
def test_additional_parameters_may_have_types_that_numpy_lacks(whole, model, shapes, tmp_path, stored):
    message = Checkpoint()
    message.ParseFromString(whole)
    entry = message.value.add()
    entry.tag, entry.tensor.tensor_type, entry.tensor.tensor_content = "scale", stored, bytes(3)
    entry.tensor.dims.extend([3])
    path = tmp_path / "a.ckpt"
    path.write_bytes(message.SerializeToString())
    assert read_model(path, shapes).keys() == shapes.keys()
    message.value[0].tensor.tensor_type = stored
    path.write_bytes(message.SerializeToString())
    assert f" is {stored.lower()} [" in refusal(path, shapes)


def test_the_crc_of_a_file_that_has_one_is_checked(model, shapes, tmp_path):
    path = tmp_path / "crc.ckpt"
    entries = [{"name": published_name(name), "data": ms.Tensor(value)} for name, value in model.items()]
    ms.save_checkpoint(entries, str(path), crc_check=True)
    assert all((value == model[name]).all() for name, value in read_model(path, shapes).items())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    assert "does not match its own CRC-32" in refusal(path, shapes)


@pytest.mark.parametrize("bit", [0, 22, 27, 30, 31])
def test_a_flipped_bit_of_a_weight_is_found_by_the_checksum_and_shows_in_the_result(
    whole, model, shapes, tmp_path, bit
):
    path = tmp_path / "a.ckpt"
    write_published(path, model)
    known = load_model(path, shapes)
    content = bytearray(whole)
    value = content.index(model[LARGEST].tobytes()[:64])
    content[value + bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    assert "has SHA-256" in refusal(path, shapes)
    (tmp_path / "a.ckpt.sha256").unlink()
    if bit == 30:  # the highest one of the exponent: 2 ** 128 times too large
        assert "which trained weights do not have" in refusal(path, shapes)
    else:  # a plausible value, and only the checksums in the result show it
        found = load_model(path, shapes)
        assert found.weights_sha256 != known.weights_sha256 and found.file_sha256 != known.file_sha256


def test_every_flipped_bit_outside_the_values_is_found_without_a_checksum(tmp_path):
    path = put(tmp_path / "a.ckpt", {}, ab=np.zeros(2, np.float32), c=np.zeros(1, np.float32))
    whole = path.read_bytes()
    known = read_parameters(path)
    values = [i for i in range(len(whole)) if whole[i : i + 1] == b"\0"]
    for where in set(range(len(whole))) - set(values):
        for bit in range(8):
            content = bytearray(whole)
            content[where] ^= 1 << bit
            path.write_bytes(content)
            try:
                found = read_parameters(path)
            except InputError:
                continue
            # A name, a format or a shape may have become another one: SDNet's are compared by name.
            assert described(found) != described(known)


def described(file: ParameterFile) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (file.formats[name], value.shape) for name, value in file.parameters.items()}


def cut_off(path: Path, model: weights.State) -> None:
    os.truncate(put(path, model), 100_001)


def with_a_tail(path: Path, model: weights.State) -> None:
    with put(path, model).open("ab") as file:
        file.write(b"\x12\x02ab")  # a message that the format does not know


def another_network(path: Path, model: weights.State) -> None:
    path.write_bytes(serialize({"fc.weight": np.ones((2, 2), np.float32)}))


def another_size(path: Path, model: weights.State) -> None:
    put(path, model | {"lower_opt.0.weight": np.ones((3, 32, 3, 3), np.float32)})


def whole_numbers(path: Path, model: weights.State) -> None:
    put(path, model | {"lower_opt.0.weight": model["lower_opt.0.weight"].astype(np.int64)})


def absent(path: Path, model: weights.State) -> None:
    assert not path.exists()


def pipe(path: Path, model: weights.State) -> None:
    os.mkfifo(path)


def one_layer_less(path: Path, model: weights.State) -> None:
    put(path, {name: value for name, value in model.items() if name != "features_opt.1.moving_mean"})


def folder(path: Path, model: weights.State) -> None:
    path.mkdir()


def below_a_file(path: Path, model: weights.State) -> None:
    path.symlink_to("/dev/null/x")


def too_many_dimensions(path: Path, model: weights.State) -> None:
    message = Checkpoint()
    entry = message.value.add()
    entry.tag, entry.tensor.tensor_type, entry.tensor.tensor_content = "a", "Float32", bytes(4)
    entry.tensor.dims.extend([1] * 33)
    path.write_bytes(message.SerializeToString())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            too_many_dimensions,
            "parameter 'a' is Float32 [1, 1, 1, 1, 1, 1, 1, 1] in 4 bytes, which do not fit",
        ),
        (cut_off, "is not a whole MindSpore checkpoint (its messages cannot be parsed); copy it again"),
        (with_a_tail, "is not a whole MindSpore checkpoint (it has bytes that belong to no parameter)"),
        (another_network, "holds no model.features_opt.0.weight; give a checkpoint of SDNet"),
        (
            one_layer_less,
            "holds no model.features_opt.1.moving_mean; a single file is read as the published network; "
            "for another recipe, such as modern, give the checkpoint directory",
        ),
        (another_size, "lower_opt.0.weight is float32 [3, 32, 3, 3], not float32 [2, 32, 3, 3]"),
        (whole_numbers, "lower_opt.0.weight is int64 [2, 32, 3, 3], not float32"),
        (absent, "is not there; give a checkpoint directory or a .ckpt file"),
        (pipe, "cannot be read (Not a regular file)"),
        (folder, "state.json is missing; give a checkpoint directory"),
        (below_a_file, "cannot be read (Not a directory)"),
    ],
)
def test_what_is_no_checkpoint_of_sdnet_is_refused_in_one_clean_line(
    make: Callable[[Path, weights.State], None], message, model, shapes, tmp_path, capfd
):
    make(tmp_path / "given.ckpt", model)
    assert message in refusal(tmp_path / "given.ckpt", shapes)
    assert capfd.readouterr() == ("", "")


def test_a_path_that_no_file_can_have_is_refused(shapes, tmp_path):
    assert "cannot be read (File name too long)" in refusal(tmp_path / ("a" * 300), shapes)


def test_an_invalid_checksum_file_is_reported(model, shapes, tmp_path):
    path = put(tmp_path / "a.ckpt", model)
    (tmp_path / "a.ckpt.sha256").write_text("MD5 (a.ckpt) = 4d7a\n")
    assert "a.ckpt.sha256 does not begin with a SHA-256" in refusal(path, shapes)
