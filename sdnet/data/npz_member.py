"""Locates an array inside an `.npz` archive, so that it can be read or mapped in place."""

import io
import math
import struct
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from sdnet.errors import InputError

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field
_HEADER_BYTES = 1 << 16  # limits what is read; no header of ours or NumPy's is longer
_READ_BYTES = 1 << 20
_ENCRYPTED = 1  # bit of a member's flags
_LONGEST_SHOWN = 120
# NumPy parses headers with `ast`, which Python 3.11 cannot do in two threads at once (gh-106905).
_PARSING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Member:
    """The header of an array in an archive. begin: offset of its data in the file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    begin: int


def find_member(path: Path, archive: zipfile.ZipFile, name: str) -> Member:
    """Read the header of one member, not its data. Raises InputError; ValueError for a damaged header."""
    found = [info for info in archive.infolist() if info.filename == name]
    if len(found) != 1:
        names = ", ".join(archive.namelist()[:5])
        raise InputError(
            f"{path} has {'no' if not found else len(found)} {name.removesuffix('.npy')}, but "
            f"{short(names) or 'nothing'}; write it with numpy.savez(file, patches, labels), without names"
        )
    info = found[0]
    if info.flag_bits & _ENCRYPTED:
        raise InputError(f"{path} is encrypted; write it with numpy.savez")
    if info.compress_type != zipfile.ZIP_STORED:
        raise InputError(f"{path} is compressed and cannot be mapped; write it with numpy.savez")
    with path.open("rb") as file:
        file.seek(info.header_offset)
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if signature != b"PK\x03\x04":
            raise ValueError(f"no entry where {name} should begin")
        begin = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        file.seek(begin)
        header = io.BytesIO(file.read(_HEADER_BYTES))
    shape, fortran, dtype = _npy_header(header)
    if dtype.hasobject:
        raise InputError(
            f"{path} holds pickled objects in {name}; write it as plain numbers, without dtype object"
        )
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"{name} has the shape {short(shape)}")
    size = math.prod(shape) * dtype.itemsize
    if header.tell() + size != info.file_size:
        raise ValueError(f"{name} should hold {short(size)} bytes after its header")
    return Member(shape, dtype, fortran, begin + header.tell())


def corrupt_member(archive: zipfile.ZipFile) -> str | None:
    """The first member whose bytes do not match its CRC-32; None if all do.

    Compressed members are left out. `find_member` refuses them, and a few MB of a zip bomb decompress to terabytes.
    """
    for info in archive.infolist():
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & _ENCRYPTED:
            try:
                with archive.open(info) as member:
                    while member.read(_READ_BYTES):
                        pass
            except zipfile.BadZipFile:
                return info.filename
    return None


def read_member(path: Path, member: Member) -> np.ndarray:
    """Read a small array. On a lost mount a read raises OSError, where a mapped page raises SIGBUS."""
    with path.open("rb") as file:
        file.seek(member.begin)
        content = bytearray(file.read(math.prod(member.shape) * member.dtype.itemsize))
    return np.frombuffer(content, member.dtype).reshape(member.shape)


def _npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with _PARSING:
        shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def short(value: object) -> str:
    """A value of a file, shortened for a message."""
    text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
