"""Converts the state of a training function to the files of a checkpoint, and back."""

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from orchestrator.engine.checkpoints import Encoded
from orchestrator.errors import CorruptData, InputError

# Names to NumPy arrays (any shape, any dtype but object) and JSON values.
State = dict[str, Any]

_ARRAYS, _VALUES = "arrays.npz", "values"


class StateFormat(Protocol):
    """Converts a state to files and back. The fields that `encode` returns are stored in `state.json`."""

    def encode(self, state: State, step: int, metrics: Mapping[str, float]) -> Encoded:
        """The checkpoint of this state. Raises InputError when the state cannot be stored."""

    def decode(self, encoded: Encoded) -> State:
        """The state of a checkpoint. Raises CorruptData."""


class NpzFormat:
    """The default: all arrays in `arrays.npz`, all other values in `state.json`."""

    def encode(self, state: State, step: int, metrics: Mapping[str, float]) -> Encoded:
        """See `StateFormat.encode`."""
        arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        values = {name: value for name, value in state.items() if name not in arrays}
        for name, array in arrays.items():
            if array.dtype.hasobject:
                raise InputError(f"state {name!r} is an array of objects; convert it to numbers")
        try:
            json.dumps(values, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"state has values that are neither arrays nor JSON ({error}); convert them with .asnumpy()"
            ) from None
        buffer = io.BytesIO()
        np.savez(buffer, **{f"a{number}": array for number, array in enumerate(arrays.values())})
        fields = {"step": step, "metrics": dict(metrics), "arrays": list(arrays), _VALUES: values}
        return Encoded({_ARRAYS: _without_times(buffer.getvalue())}, fields)

    def decode(self, encoded: Encoded) -> State:
        """See `StateFormat.decode`."""
        try:
            with np.load(io.BytesIO(encoded.files[_ARRAYS]), allow_pickle=False) as archive:
                arrays = {n: archive[f"a{number}"] for number, n in enumerate(encoded.fields["arrays"])}
            return {**arrays, **encoded.fields[_VALUES]}
        except (KeyError, ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
            raise CorruptData(
                "checkpoint", str(error), "it was written by another program; remove it"
            ) from error


def _without_times(archive: bytes) -> bytes:
    """The same zip archive with fixed times, so that equal states have equal bytes."""
    source, target = zipfile.ZipFile(io.BytesIO(archive)), io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
        for info in source.infolist():
            out.writestr(zipfile.ZipInfo(info.filename, (1980, 1, 1, 0, 0, 0)), source.read(info))
    return target.getvalue()
