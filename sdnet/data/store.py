"""Patches on disk: `.npz` files written as a stream and read in place.

An `.npz` holds `arr_0`, uint8 [N, E, 2E] (left half optical, right half SAR, E even and at least 64), and
`arr_1`, int32 [N] (1 match, 0 non-match), uncompressed, so that the images can be memory-mapped in place, and
all ranks of a host share one copy in the page cache. It may have more arrays, which are small: see
`extra_array`.
"""

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from sdnet.data.mapped_file import MappedFile
from sdnet.data.npz_member import Member, corrupt_member, find_member, read_member, short
from sdnet.errors import InputError
from sdnet.files import is_permanent, whole_file

PATCH_SHAPE = (64, 128)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # time of every entry, so that equal data make equal files
_LFS_POINTER = b"version https://git-lfs"

# What the parsers of zip files and of NumPy's headers raise for damaged bytes.
_NOT_WHOLE = (
    OSError, EOFError, ValueError, NotImplementedError, SyntaxError, tokenize.TokenError, struct.error,
    zipfile.BadZipFile, TypeError, OverflowError, RecursionError, MemoryError, KeyError, IndexError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PatchFile:
    """An open `.npz`: images uint8 [N, E, 2E], memory-mapped and read-only; labels int32 [N].

    shifts: int16 [N, 2], rows and columns by which SAR is shifted against optical in each pair's scene; None if
    the file has none.
    ground: integers [N, 2], scene and pair of images of each optical patch; None if the file does not say.
    mapped: the open file; None for patches in memory.
    """

    path: Path
    images: np.ndarray
    labels: np.ndarray
    shifts: np.ndarray | None = None
    ground: np.ndarray | None = None
    mapped: MappedFile | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def refuse_changed(self, sha256: str | None) -> None:
        """See `MappedFile.refuse_changed`."""
        if self.mapped is not None:
            self.mapped.refuse_changed(sha256)


def write_patches(
    path: Path,
    num_patches: int,
    chunks: Iterable[np.ndarray],
    labels: np.ndarray,
    sync: bool = True,
    edge: int = PATCH_SHAPE[0],
    extras: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Stream `num_patches` patches to an `.npz`, atomically.

    chunks: uint8 [n, edge, 2 edge] each, `num_patches` in total.
    labels: integers [num_patches].
    extras: more arrays by their names, for `extra_array`.
    sync: see `whole_file`. Files above 4 GB are zip64. The same patches always make the same bytes.
    """
    with whole_file(path, sync) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _write_images(archive, num_patches, chunks, (edge, 2 * edge))
        for name, array in {"arr_1": np.ascontiguousarray(labels, np.int32), **(extras or {})}.items():
            with archive.open(_entry(f"{name}.npy"), "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)


def open_patches(path: Path) -> PatchFile:
    """Map an `.npz` in place.

    Raises InputError for a file that neither this program nor `numpy.savez` wrote, and OSError for a storage
    failure that may pass, such as EIO.
    """
    with _refusing_damage(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(f"{path} is a pipe or a device; give a file")
        file = MappedFile(path)
        with zipfile.ZipFile(path) as archive:
            images = find_member(path, archive, "arr_0.npy")
            labels = find_member(path, archive, "arr_1.npy")
        _check(path, images, labels)
        found = read_member(path, labels)
        _check_labels(path, found)
        shifts = extra_array(path, "shifts", "i", (len(found), 2))
        places = extra_array(path, "places", "i", (len(found), 4))
        ground = None if places is None else places[:, :2]
        return PatchFile(path, file.map(images), found.astype(np.int32), shifts, ground, file)


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    """Raise InputError for whatever the parsers say of damaged bytes; OSError only if it may pass."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        of_run = path.parent / "data"
        remedy = f"give {of_run}" if (of_run / path.name).exists() else "give another path"
        raise InputError(f"{path} is not there; make it with `preprocess`, or {remedy}") from None
    except _NOT_WHOLE as error:
        if isinstance(error, OSError) and not is_permanent(error):
            raise
        raise InputError(_not_whole(path, error)) from None


def _not_whole(path: Path, error: Exception) -> str:
    if isinstance(error, zipfile.BadZipFile):
        with path.open("rb") as file:
            head = file.read(len(_LFS_POINTER))
        if head == _LFS_POINTER:
            return f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull`"
        if head.startswith(npy.MAGIC_PREFIX):
            return f"{path} is a single array (.npy); write it with numpy.savez(file, patches, labels)"
    if isinstance(error, NotADirectoryError):
        return f"{path} cannot be read: {path.parent} is a file; give the folder with train.npz and test.npz"
    if isinstance(error, OSError):
        return f"{path} cannot be read ({error.strerror or error}); it must be a readable .npz file"
    return f"{path} is not a whole .npz ({_line(error)}); make or copy it again"


def extra_array(path: Path, name: str, kind: str, shape: tuple[int | None, ...]) -> np.ndarray | None:
    """Read one more array of an `.npz` of patches; None if the file does not have it.

    kind: the dtype's, such as `i` for integers or `U` for text.
    shape: required; None allows any length.
    Raises InputError for an array of another kind or shape.
    """
    with _refusing_damage(path), zipfile.ZipFile(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            return None
        member = find_member(path, archive, f"{name}.npy")
    fits = len(member.shape) == len(shape) and all(
        want in (None, length) for want, length in zip(shape, member.shape, strict=True)
    )
    if member.fortran:
        raise InputError(f"{path}: {name} is in Fortran order; write it with numpy.ascontiguousarray")
    if member.dtype.kind != kind or not fits:
        raise InputError(
            f"{path}: {name} is {short(member.dtype)} {short(list(member.shape))}, not of kind {kind} and "
            f"shape {['any' if want is None else want for want in shape]}; prepare the data again"
        )
    return read_member(path, member)


def open_training_patches(path: Path) -> PatchFile:
    """As `open_patches`, for training: also raises InputError if any pair is not a match.

    The loss treats each pair of the file as a match, and takes its negatives from the batch.
    """
    patches = open_patches(path)
    non_matches = len(patches) - int(patches.labels.sum())
    if non_matches:
        raise InputError(
            f"{path} holds {non_matches} non-matches (label 0) among {len(patches)} pairs; "
            "training takes matches only: leave them out"
        )
    return patches


def read_images(patches: PatchFile, most: int) -> Iterator[np.ndarray]:
    """All images in order, uint8 [at most `most`, E, 2E] each, read, not mapped: for files on shared storage.

    Raises OSError when storage fails, where a mapped page would kill the process.
    """
    assert isinstance(patches.images, np.memmap), type(patches.images)
    begin, shape = patches.images.offset, patches.images.shape[1:]
    with patches.path.open("rb") as file:
        file.seek(begin)
        for start in range(0, len(patches), most):
            count = min(most, len(patches) - start)
            content = bytearray(file.read(count * math.prod(shape)))
            yield np.frombuffer(content, np.uint8).reshape(count, *shape)


def refuse_corrupt(path: Path) -> None:
    """Compare the arrays with their CRC-32, which mapping them does not do. Raises InputError, OSError."""
    try:
        with zipfile.ZipFile(path) as archive:
            corrupt = corrupt_member(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(_not_whole(path, error)) from None
    if corrupt:
        raise InputError(
            f"{path} is corrupt: {short(corrupt)} does not match its CRC-32; make or copy it again"
        )


def _write_images(
    archive: zipfile.ZipFile, num_patches: int, chunks: Iterable[np.ndarray], shape: tuple[int, int]
) -> None:
    written = 0
    with archive.open(_entry("arr_0.npy"), "w", force_zip64=True) as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (num_patches, *shape)}
        npy.write_array_header_1_0(member, header)
        for chunk in chunks:
            assert chunk.dtype == np.uint8 and chunk.shape[1:] == shape, (chunk.dtype, chunk.shape)
            member.write(np.ascontiguousarray(chunk).data)
            written += len(chunk)
    assert written == num_patches, (written, num_patches)


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, date_time=_EPOCH)


def _check(path: Path, images: Member, labels: Member) -> None:
    """Check the headers alone, so that an invalid shape is neither mapped nor allocated."""
    if images.dtype != np.uint8 or len(images.shape) != 3 or not _is_pair(*images.shape[1:]):
        raise InputError(
            f"{path}: arr_0 is {short(images.dtype)} {short(list(images.shape))}; it must be uint8 "
            "[N, 64, 128], optical left and SAR right (or [N, E, 2E], E even and from 64 to 128)"
        )
    if images.fortran:
        raise InputError(f"{path}: arr_0 is in Fortran order; write it with numpy.ascontiguousarray")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise InputError(
            f"{path}: arr_1 is {short(labels.dtype)} {short(list(labels.shape))}; it must be integers "
            f"[{images.shape[0]}], one label per patch"
        )
    if images.shape[0] == 0:
        raise InputError(f"{path} holds no patches; look at its source images")


def _is_pair(rows: int, columns: int) -> bool:
    return columns == 2 * rows and rows % 2 == 0 and PATCH_SHAPE[0] <= rows <= 2 * PATCH_SHAPE[0]


def _check_labels(path: Path, labels: np.ndarray) -> None:
    strange = labels[(labels != 0) & (labels != 1)]
    if strange.size:
        raise InputError(
            f"{path}: {strange.size} of {labels.size} labels in arr_1 are neither 1 (match) nor 0 "
            f"(non-match), such as {strange[0]}; correct them"
        )


def _line(error: Exception) -> str:
    return short(" ".join(str(error).split()) or type(error).__name__)
