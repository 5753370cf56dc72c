"""Weights of half or double precision are converted to float32."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from sdnet.parameters import weights
from sdnet.parameters.checkpoint import load_model
from sdnet.parameters.published import published_name
from tests.unit.science.test_published import refusal


@pytest.mark.parametrize("half", [ms.float16, ms.bfloat16], ids=str)
def test_weights_of_half_precision_are_converted_with_a_note(model, shapes, tmp_path, half):
    path = tmp_path / "half.ckpt"
    halves = {name: ms.Tensor(value).astype(half) for name, value in model.items()}
    entries = [{"name": published_name(name), "data": value} for name, value in halves.items()]
    ms.save_checkpoint(entries, str(path))
    found = load_model(path, shapes)
    assert found.note == f"{str(half).lower()} weights were converted to float32"
    for name, value in halves.items():
        assert found.state[name].dtype == np.float32
        np.testing.assert_array_equal(found.state[name], value.astype(ms.float32).asnumpy())


def doubles(path: Path, model: weights.State, factor: float) -> dict[str, np.ndarray]:
    """Writes weights of double precision, `factor` times those of the model; returns them."""
    named = {name: value.astype(np.float64) * factor for name, value in model.items()}
    ms.save_checkpoint(
        [{"name": published_name(key), "data": ms.Tensor(value)} for key, value in named.items()], str(path)
    )
    return named


def test_weights_of_double_precision_are_rounded_to_float32_with_a_note(model, shapes, tmp_path):
    written = doubles(tmp_path / "a.ckpt", model, 1 + 1e-12)
    found = load_model(tmp_path / "a.ckpt", shapes)
    assert found.note == "float64 weights were converted to float32"
    for name, value in written.items():
        np.testing.assert_array_equal(found.state[name], value.astype(np.float32))


def test_weights_of_double_precision_that_float32_cannot_hold_are_refused(model, shapes, tmp_path):
    doubles(tmp_path / "a.ckpt", model, 1e300)
    assert published_name(next(iter(model))) in refusal(tmp_path / "a.ckpt", shapes)
