"""Converts the state of a training function to the files of a checkpoint, and back."""

import io
import json
import math
import reprlib
import zipfile
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from orchestrator.engine.checkpoints import Encoded
from orchestrator.errors import CorruptData, InputError

# Names to NumPy arrays (any shape, any dtype but object) and JSON values.
State = dict[str, Any]

ARRAYS, _VALUES = "arrays.npz", "values"
# Names of dtypes that another package adds to NumPy, by array. A NumPy archive keeps their bytes, but not their type.
_ADDED = "added_dtypes"


class StateFormat(Protocol):
    """Converts a state to files and back. The fields that `encode` returns are stored in `state.json`."""

    def encode(self, state: State, step: int, metrics: Mapping[str, float]) -> Encoded:
        """The checkpoint of this state. Raises InputError when the state would not come back as it is."""

    def decode(self, encoded: Encoded) -> State:
        """The state of a checkpoint. Raises CorruptData."""


class NpzFormat:
    """The default: all arrays in `arrays.npz`, all other values in `state.json`."""

    def encode(self, state: State, step: int, metrics: Mapping[str, float]) -> Encoded:
        """See `StateFormat.encode`."""
        _check(state)
        arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        values = {name: value for name, value in state.items() if name not in arrays}
        added = {name: array.dtype.name for name, array in arrays.items() if _is_added(array.dtype)}
        buffer = io.BytesIO()
        np.savez(buffer, **{f"a{number}": array for number, array in enumerate(arrays.values())})
        fields: dict[str, Any] = {
            "step": step,
            # JSON has no NaN and no infinity.
            "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
            "arrays": list(arrays),
            _VALUES: values,
        }
        if added:
            fields[_ADDED] = added
        return Encoded({ARRAYS: _without_times(buffer.getvalue())}, fields)

    def decode(self, encoded: Encoded) -> State:
        """See `StateFormat.decode`."""
        try:
            with np.load(io.BytesIO(encoded.files[ARRAYS]), allow_pickle=False) as archive:
                arrays = {n: archive[f"a{number}"] for number, n in enumerate(encoded.fields["arrays"])}
            for name, dtype in encoded.fields.get(_ADDED, {}).items():
                arrays[name] = arrays[name].view(np.dtype(dtype))
            return {**arrays, **encoded.fields[_VALUES]}
        except (KeyError, ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
            raise CorruptData(
                "checkpoint", str(error), "it was written by another program; remove it"
            ) from error


def _check(state: State) -> None:
    """Refuse a state that would not come back as it is. Raises InputError."""
    if not isinstance(state, Mapping):
        raise InputError(f"state is a {type(state).__name__}; return a dictionary of arrays and JSON values")
    if not state:
        raise InputError("state is empty, so a resume would begin with new weights; return them by name")
    for name, value in state.items():
        if not isinstance(name, str):
            raise InputError(f"state has the key {name!r}; use text, such as parameter.name")
        if isinstance(value, np.ndarray):
            _check_array(name, value)
        else:
            _check_value(name, value)


def _check_array(name: str, array: np.ndarray[Any, Any]) -> None:
    if array.dtype.hasobject:
        raise InputError(f"state {name!r} is an array of objects; convert it to numbers")
    if isinstance(array, np.ma.MaskedArray):
        raise InputError(f"state {name!r} is a masked array; give its data and its mask as two arrays")
    if _is_added(array.dtype) and not _has_name(array.dtype):
        raise InputError(f"state {name!r} has the dtype {array.dtype}, which is not NumPy's; convert it")


def _check_value(name: str, value: object) -> None:
    try:
        comes_back = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"state {name!r} is neither an array nor a JSON value ({error}); make it a NumPy array, "
            "such as tensor.asnumpy()"
        ) from None
    if comes_back != value:
        raise InputError(
            f"state {name!r} would come back from JSON as {reprlib.repr(comes_back)}; use lists, and text for keys"
        )


def _is_added(dtype: np.dtype[Any]) -> bool:
    """Whether another package than NumPy defines the dtype. Example: MindSpore's bfloat16."""
    return np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype)) != dtype


def _has_name(dtype: np.dtype[Any]) -> bool:
    """Whether NumPy finds the dtype by its name."""
    try:
        return np.dtype(dtype.name) == dtype
    except TypeError:
        return False


def _without_times(archive: bytes) -> bytes:
    """The same zip archive with fixed times, so that equal states have equal bytes."""
    source, target = zipfile.ZipFile(io.BytesIO(archive)), io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
        for info in source.infolist():
            out.writestr(zipfile.ZipInfo(info.filename, (1980, 1, 1, 0, 0, 0)), source.read(info))
    return target.getvalue()
