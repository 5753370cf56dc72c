"""The names under which a single file may hold the parameters of the network."""

import re
from pathlib import Path

import numpy as np
import pytest

from sdnet.parameters import weights
from sdnet.parameters.checkpoint import read_model
from sdnet.parameters.parameter_file import serialize
from sdnet.parameters.published import published_name
from tests.unit.science.test_published import put, refusal


def test_a_parameter_under_two_published_names_is_refused_with_both(model, shapes, tmp_path):
    value = model["embedding.1.weight"]
    path = put(tmp_path / "a.ckpt", model, network__model__embedding__1__weight=value)
    said = refusal(path, shapes)
    assert "holds embedding.1.weight twice, as model.embedding.1.weight and as network.model.emb" in said


def renamed(path: Path, model: weights.State, *prefixes: str, published: bool = False) -> Path:
    """A file in which each prefix stands before every name: ours, or the published one."""
    names = {name: published_name(name) if published else name for name in model}
    path.write_bytes(
        serialize({f"{prefix}{names[name]}": model[name] for prefix in prefixes for name in model})
    )
    return path


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("prefix", ["", "backbone.", "module.", "network.", "train.0._backbone.", "model."])
def test_our_names_behind_any_one_prefix_are_read(model, shapes, tmp_path, prefix, published):
    found = read_model(renamed(tmp_path / "a.ckpt", model, prefix, published=published), shapes)
    assert all((value == model[name]).all() for name, value in found.items())


def test_a_network_under_two_prefixes_and_a_parameter_under_two_names_are_refused(model, shapes, tmp_path):
    said = refusal(renamed(tmp_path / "a.ckpt", model, "student.", "teacher."), shapes)
    assert "holds a network twice, as student.features_opt.0.weight and as teacher.features_opt.0.wei" in said
    other = {"module.model.embedding.1.weight": model["embedding.1.weight"]}
    (tmp_path / "a.ckpt").write_bytes(serialize({f"module.{name}": model[name] for name in model} | other))
    said = refusal(tmp_path / "a.ckpt", shapes)
    assert "holds embedding.1.weight twice, as module.embedding.1.weight and as module.model.embeddi" in said


def test_parameters_of_two_prefixes_are_not_put_together(model, shapes, tmp_path):
    halves = {f"{'ab'[number % 2]}.{name}": model[name] for number, name in enumerate(model)}
    (tmp_path / "a.ckpt").write_bytes(serialize(halves))
    assert re.search(r"holds no model\.\S+; a single file is read", refusal(tmp_path / "a.ckpt", shapes))
    # Beside a whole network, moments of an optimizer are ignored under any name.
    moments = {f"moment1.module.{name}": np.full(3, np.nan, np.float32) for name in list(model)[:9]}
    (tmp_path / "a.ckpt").write_bytes(serialize({f"module.{name}": model[name] for name in model} | moments))
    assert read_model(tmp_path / "a.ckpt", shapes).keys() == shapes.keys()


def test_of_a_network_with_one_parameter_too_few_that_one_is_named(model, shapes, tmp_path):
    missing = list(model)[3]
    (tmp_path / "a.ckpt").write_bytes(serialize({name: model[name] for name in model if name != missing}))
    assert f"holds no model.{missing}; a single file is read" in refusal(tmp_path / "a.ckpt", shapes)
