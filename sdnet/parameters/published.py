"""Reads SDNet's weights from files of other programs, with published names and other precisions.

Also writes `<name>.ckpt` with `<name>.ckpt.sha256`, which has the format of `sha256sum`.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdnet.errors import InputError
from sdnet.files import checksum_path, open_regular, put_with_checksum
from sdnet.parameters.parameter_file import ParameterFile, serialize
from sdnet.parameters.weights import State

PUBLISHED_PREFIX = {"features_opt": "model", "features_sar": "model", "embedding": "model",
                    "lower_opt": "model_L", "lower_sar": "model_L", "decoder": "model_D"}  # fmt: skip
_NETWORKS = frozenset(PUBLISHED_PREFIX.values())
# Published training code prefixes these names with its own wrappers (`optimizer.`, `network._backbone.`).
_PUBLISHED = re.compile(
    r"(?:(?:network|_backbone|optimizer(?:_[LD])?)\.)*model(?:_[LD])?\.([a-z]+(?:_[a-z]+)?\.\d+(?:\.[a-z_]+)+)"
)
_CONVERTED = ("Float16", "BFloat16", "Float64")
# The published weights stay below 41. A flipped exponent bit makes a weight larger than this.
_MOST = 1e6
# A block of 4096 bytes is 1024 float32 weights, and one that lies in two parameters leaves half of them in one.
_ZEROS_IN_A_ROW = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """Weights and where they come from.

    file_sha256: of the file's bytes, as `sha256sum` prints it.
    weights_sha256: see `digest`; it does not depend on the file.
    note: how they were converted, and whether a part may be lost; often empty.
    """

    state: State
    file: Path
    file_sha256: str
    weights_sha256: str
    note: str = ""

    @property
    def origin(self) -> dict[str, str]:
        """What identifies the weights in a result, as JSON values."""
        return {"checkpoint_sha256": self.file_sha256, "weights_sha256": self.weights_sha256}


def published_name(name: str) -> str:
    """Our parameter name as published checkpoints spell it."""
    return f"{PUBLISHED_PREFIX[name.split('.')[0]]}.{name}"


def own_name(published: str) -> str:
    """Our name of a parameter that a checkpoint of ours spells as `published_name` does. Raises KeyError."""
    name = published.partition(".")[2]
    if published != published_name(name):
        raise KeyError(published)
    return name


def digest(state: State) -> str:
    """SHA-256 of weights, independent of the file, in hexadecimal.

    It covers, for each parameter in ascending order of its name in this package: the name, a space, the shape
    as `64x32x3x3`, a newline, and the values as little-endian float32.
    """
    found = hashlib.sha256()
    for name in sorted(state):
        value = np.ascontiguousarray(state[name], dtype="<f4")
        found.update(f"{name} {'x'.join(map(str, value.shape))}\n".encode())
        found.update(value.data)
    return found.hexdigest()


def model_of(
    given: ParameterFile, shapes: Mapping[str, tuple[int, ...]], *, checked: bool = False
) -> LoadedModel:
    """SDNet's weights in a file, as float32; parameters of an optimizer are ignored.

    shapes: of each parameter by our name; the file must contain each once.
    checked: the file's checksum was verified, so values need only be finite and not blank.
    Raises InputError.
    """
    path = given.path
    sources = _sources(given, shapes)
    state: State = {}
    for name, shape in shapes.items():
        if name not in sources:
            raise InputError(f"{path} holds no {published_name(name)}; {_remedy(given, shapes)}")
        value, stored = given.parameters[sources[name]], given.formats[sources[name]]
        if value.shape != shape or stored not in ("Float32", *_CONVERTED):
            raise InputError(
                f"{path}: {published_name(name)} is {stored.lower()[:20]} {list(value.shape)}, "
                f"not float32 {list(shape)}; give a checkpoint of SDNet"
            )
        with np.errstate(over="ignore"):  # the check below refuses infinity
            state[name] = value.astype(np.float32)
        _check_values(path, name, state[name], checked)
    formats = sorted({given.formats[source].lower() for source in sources.values()} - {"float32"})
    notes = [f"{' and '.join(formats)} weights were converted to float32"] if formats else []
    notes += [] if checked else _note_on_zeros(state)
    return LoadedModel(
        state=state, file=path, file_sha256=given.sha256, weights_sha256=digest(state), note="; ".join(notes)
    )


def write_published(path: Path, model: State) -> str:
    """Write weights alone, as one file that the published code reads, and `<path>.sha256`.

    The file is written atomically. Returns its SHA-256. Raises OSError.
    """
    return put_with_checksum(serialize({published_name(name): value for name, value in model.items()}), path)


def verify_checksum(path: Path, found: str) -> bool:
    """Verify a file by its `.sha256` file; False when there is none. Raises InputError on a mismatch."""
    try:
        with open_regular(checksum_path(path)) as file:
            expected = file.read(64).decode("ascii", "replace").lower()
    except OSError:
        return False  # most published files have none
    if not re.fullmatch(r"[0-9a-f]{64}", expected):
        raise InputError(
            f"{checksum_path(path)} does not begin with a SHA-256; write one with sha256sum, or remove it"
        )
    if expected != found:
        raise InputError(
            f"{path} has SHA-256 {found}, not {expected} as {checksum_path(path).name} says; "
            "the file is corrupt or was replaced: copy both again"
        )
    return True


def _remedy(given: ParameterFile, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What to give instead of a file that lacks a parameter of the network."""
    if not any(_PUBLISHED.fullmatch(name) for name in given.parameters) and not _by_prefix(given, shapes):
        return "give a checkpoint of SDNet"
    return (
        "a single file is read as the published network; for another recipe, such as modern, give the checkpoint "
        "directory, whose state.json names the recipe"
    )


def _sources(given: ParameterFile, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The name in the file of each of our parameters: a published one, or ours behind one prefix for all."""
    sources: dict[str, str] = {}
    for published in given.parameters:
        match = _PUBLISHED.fullmatch(published)
        if match and match[1] in shapes:
            _put(sources, match[1], published, given)
    if sources.keys() == shapes.keys():
        return sources
    by_prefix = _by_prefix(given, shapes)
    whole = {prefix: names for prefix, names in by_prefix.items() if {*names.values()} == {*shapes}}
    if len(whole) > 1:
        first, second, *_ = (f"{prefix}{next(iter(shapes))}"[-80:] for prefix in whole)
        raise InputError(
            f"{given.path} holds a network twice, as {first} and as {second}; remove one of them"
        )
    nearest = max(whole.values() or by_prefix.values(), key=len, default={})
    if whole or len(nearest) > len(sources):  # a part is taken to name what is missing in it
        sources = {}
        for name, own in nearest.items():
            _put(sources, own, name, given)
    return sources


def _put(sources: dict[str, str], own: str, name: str, given: ParameterFile) -> None:
    """Note that our parameter has this name in the file. Raises InputError if it has another one, too."""
    if sources.setdefault(own, name) != name:
        raise InputError(
            f"{given.path} holds {own} twice, as {sources[own][:80]} and as {name[:80]}; remove one of them"
        )


def _by_prefix(given: ParameterFile, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, str]]:
    """The names in the file that end with one of ours, which is their value, by what is before it.

    `save_checkpoint(net.model)` writes our names alone, and wrappers such as `backbone.` come before them.
    """
    found: dict[str, dict[str, str]] = {}
    for name in given.parameters:
        parts = name.split(".")
        for start in range(len(parts)):
            own = ".".join(parts[start:])
            if own in shapes:
                before = parts[: start - 1] if start and parts[start - 1] in _NETWORKS else parts[:start]
                found.setdefault("".join(f"{part}." for part in before), {})[name] = own
                break
    return found


def _note_on_zeros(state: State) -> list[str]:
    """Names the kernel with the most zeros in a row: a lost block of a download, or a pruned network."""
    kernels = {name: value for name, value in state.items() if value.ndim > 1}
    zeros, name = max((_zeros_in_a_row(value), name) for name, value in kernels.items())
    if zeros < _ZEROS_IN_A_ROW:
        return []
    return [
        f"{published_name(name)} has {zeros} zeros in a row, which a lost part of a download also leaves; compare "
        "weights_sha256 with the source's, or download the file again"
    ]


def _zeros_in_a_row(value: np.ndarray) -> int:
    others = np.flatnonzero(value)
    return int(np.diff(others, prepend=-1, append=value.size).max()) - 1


def _check_values(path: Path, name: str, value: np.ndarray, checked: bool) -> None:
    bad = np.count_nonzero(~np.isfinite(value))
    if bad:
        raise InputError(
            f"{path}: {published_name(name)} has {bad} of {value.size} values that are not finite; "
            "give an earlier checkpoint, or copy the file again"
        )
    # Gamma, beta, biases and moving means may be equal: that is how training starts.
    is_kernel = name.endswith(".weight") and value.size > 1
    first = value.flat[0]
    if (is_kernel or (name.endswith("moving_variance") and first == 0)) and (value == first).all():
        raise InputError(
            f"{path}: {published_name(name)} is {first:.6g} everywhere, which trained weights never are; "
            "give the checkpoint of a trained network"
        )
    if checked:
        return
    lowest, highest = float(value.min(initial=0)), float(value.max(initial=0))
    least = 0.0 if name.endswith("moving_variance") else -_MOST
    if lowest < least or highest > _MOST:
        worst = lowest if lowest < least else highest
        raise InputError(
            f"{path}: {published_name(name)} has the value {worst:.6g}, which trained weights do not have; "
            "the file is probably corrupt, copy it again"
        )
