"""Reads and writes MindSpore's `.ckpt` files: parameters by name, in protobuf messages without checksums.

Uses MindSpore's message class but not `load_checkpoint`, which skips unknown data and lets the last of two
equal names win. Here every byte must belong to exactly one whole parameter. A changed value that is still
plausible cannot be detected here: compare the file's SHA-256.
"""

import binascii
import hashlib
import math
import os
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from mindspore.train.checkpoint_pb2 import Checkpoint

from sdnet.errors import InputError
from sdnet.files import open_regular
from sdnet.parameters.weights import State

_DTYPES = {
    "Bool": np.bool_, "Int8": np.int8, "UInt8": np.uint8, "Int16": np.int16, "UInt16": np.uint16,
    "Int32": np.int32, "UInt32": np.uint32, "Int64": np.int64, "UInt64": np.uint64,
    "Float16": np.float16, "Float32": np.float32, "Float64": np.float64,
}  # fmt: skip
# Types that NumPy lacks or that SDNet never has. Such a parameter is of another program and is not read.
_FOREIGN = frozenset({"Complex64", "Complex128", "Float8E4M3FN", "Float8E5M2", "HiFloat8", "Int4", "str"})
_TYPES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
# `save_checkpoint(crc_check=True)` ends a file with this word and a CRC-32 in ten bytes.
_CRC_WORD, _CRC_BYTES = b"crc_num", 10
_MOST_BYTES = 1 << 31  # protobuf's own limit
_MOST_DIMS = 32  # NumPy's
_KINDS = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself; run `git lfs pull`"),
    (rb"\s*<(!doctype html|html|head)", "a web page; download the file itself, not the page about it"),
    (rb"\s*<\?xml", "an XML document, perhaps an error message of the server; download it again"),
    (rb"PK\x03\x04[\s\S]*?(data\.pkl|\.data/)", "a PyTorch file; convert it, or give a MindSpore .ckpt"),
    (rb"PK\x03\x04[\s\S]{26}[^\n]*\.npy", "a NumPy .npz archive; give a MindSpore .ckpt"),
    (rb"PK\x03\x04", "a zip archive; unpack it and give the .ckpt inside"),
    (rb"\x80[\x02-\x05]", "a Python pickle, perhaps of PyTorch; give a MindSpore .ckpt"),
    (rb"\x1f\x8b", "a gzip archive; unpack it and give the .ckpt inside"),
    (
        rb"BZh[1-9]1AY|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|7z\xbc\xaf",
        "a compressed file; unpack it and give the .ckpt inside",
    ),
    (rb"[\s\S]{257}ustar", "a tar archive; unpack it and give the .ckpt inside"),
    (rb"\x89HDF", "an HDF5 file; give a MindSpore .ckpt"),
    (rb"[\s\S]{7}\x00\{\"", "a safetensors file; give a MindSpore .ckpt"),
    (
        rb"\x0a[\x01-\x10][\s\S]{1,16}\x12\x09MindSpore",
        "a MindIR file; give the .ckpt that it was exported from",
    ),
    (rb"\x08[\x01-\x20](\x12|:|B)", "an ONNX file; give a MindSpore .ckpt"),
    (rb"\s*[{\[]", "a JSON document; give a MindSpore .ckpt"),
    (rb"[\t\r\n\x20-\x7e]{512}|[\t\r\n\x20-\x7e]+\Z", "a text file; give a MindSpore .ckpt"),
    # The block marks of `save_checkpoint(enc_key=...)`: AES-GCM, AES-CBC, SM4-CBC.
    (rb"[\xd8-\xda]\x5e\x3a\x7f", "an encrypted checkpoint; save it again without `enc_key`"),
)


@dataclass(frozen=True, slots=True)
class ParameterFile:
    """The content of a file. formats: stored type of each parameter; bfloat16 is widened to float32."""

    path: Path
    sha256: str
    parameters: State
    formats: dict[str, str]


def serialize(parameters: State) -> bytes:
    """The bytes of a `.ckpt` file with these parameters, the same as `mindspore.save_checkpoint` writes.

    Arrays have at least one value, of a type in `_DTYPES`, and less than 512 MB each: MindSpore cuts larger
    ones.
    """
    return b"".join(part for name, array in parameters.items() for part in _entry(name, array))


def _entry(name: str, array: np.ndarray) -> tuple[bytes, memoryview]:
    """One parameter on the wire: everything before its values, and its values.

    Protobuf copies the values several times, which takes nine times longer than this. The values are the last field
    of the inner message, so the two outer lengths are all that must be written by hand: a key byte (field number
    times 8, plus 2 for bytes), then the length.
    """
    values = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    entry = Checkpoint().value.add()
    entry.tensor.tensor_type = _TYPES[array.dtype]
    entry.tensor.dims.extend(array.shape)
    tensor = entry.tensor.SerializePartialToString() + b"\x1a" + _varint(values.size)
    tag = name.encode()
    before = b"\x0a" + _varint(len(tag)) + tag + b"\x12" + _varint(len(tensor) + values.size) + tensor
    return b"\x0a" + _varint(len(before) + values.size) + before, values.data


def _varint(number: int) -> bytes:
    """Protobuf's variable-length integer: seven bits a byte, the lowest first; the top bit says that more follow."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def read_parameters(path: Path) -> ParameterFile:
    """Every tensor of a `.ckpt` by its name.

    Raises InputError, which says what the file is instead, or what is wrong with it.
    """
    return parse_parameters(_content(path), path)


def parse_parameters(content: bytes, path: Path) -> ParameterFile:
    """Every tensor in the bytes of a `.ckpt` by its name. path: for messages. Raises InputError."""
    payload = _without_crc(path, content)
    message = Checkpoint()
    try:
        message.ParseFromString(payload)
    except (DecodeError, ValueError, RecursionError):  # ValueError: a name that is not UTF-8
        raise InputError(_not_whole(path, content, "its messages cannot be parsed")) from None
    message.DiscardUnknownFields()
    # One of protobuf's two implementations checks required fields while it parses, the other does not.
    if not message.IsInitialized() or message.ByteSize() != len(payload):
        raise InputError(_not_whole(path, content, "it has bytes that belong to no parameter"))
    parameters: State = {}
    formats: dict[str, str] = {}
    for name, parts in groupby(message.value, key=lambda value: value.tag):
        if name in parameters:
            raise InputError(f"{path} has parameter {name[:80]!r} twice; give a checkpoint that has it once")
        tensors = [part.tensor for part in parts]
        parameters[name] = _array(path, name, tensors)
        formats[name] = tensors[0].tensor_type
    return ParameterFile(path, hashlib.sha256(content).hexdigest(), parameters, formats)


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size >= _MOST_BYTES:
                raise InputError(f"{path} has {size} bytes; a MindSpore .ckpt has less than {_MOST_BYTES}")
            content = file.read()
    except FileNotFoundError:
        raise InputError(f"{path} is not there; give a checkpoint directory or a .ckpt file") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); give a checkpoint directory or a .ckpt file"
        ) from None
    if not content:
        raise InputError(f"{path} is empty; copy it again")
    return content


def _without_crc(path: Path, content: bytes) -> bytes:
    begin = len(content) - len(_CRC_WORD) - _CRC_BYTES
    if begin < 0 or content[begin : begin + len(_CRC_WORD)] != _CRC_WORD:
        return content
    payload = content[:begin]
    if binascii.crc32(payload) != int.from_bytes(content[-_CRC_BYTES:], "big"):
        raise InputError(f"{path} does not match its own CRC-32; copy it again")
    return payload


def _not_whole(path: Path, content: bytes, found: str) -> str:
    """Message that says what the file is instead of a checkpoint, by its first bytes."""
    head = content[:4096]
    for pattern, kind in _KINDS:
        if re.match(pattern, head, re.IGNORECASE):
            return f"{path} is {kind}"
    return f"{path} is not a whole MindSpore checkpoint ({found}); copy it again"


def _array(path: Path, name: str, tensors: list[Checkpoint.Value]) -> np.ndarray:
    """One parameter; a large one comes in several parts."""
    dims, stored = list(tensors[0].dims), tensors[0].tensor_type
    dtype = np.dtype(np.uint16 if stored == "BFloat16" else _DTYPES.get(stored, np.void))
    content = b"".join(tensor.tensor_content for tensor in tensors)
    alike = all(list(tensor.dims) == dims and tensor.tensor_type == stored for tensor in tensors)
    shape = [] if dims == [0] and content else dims
    if stored in _FOREIGN:
        return np.frombuffer(content, np.uint8)
    size = math.prod(shape) * dtype.itemsize
    fits = len(shape) <= _MOST_DIMS and min(shape, default=0) >= 0 and size == len(content)
    if not (alike and dtype != np.void and fits):
        raise InputError(
            f"{path}: parameter {name[:80]!r} is {stored[:20]} {shape[:8]} in {len(content)} bytes, which do "
            "not fit; the file is corrupt, copy it again"
        )
    array = np.frombuffer(content, dtype).reshape(shape)
    if stored == "BFloat16":  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array
