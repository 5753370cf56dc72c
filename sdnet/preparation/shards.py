"""A shard of preprocessing: consecutive pairs in, one file of patches and a report out.

The content of a shard depends only on its pairs and the settings, not on the worker or the time. The
report is written after the patches, so a shard without a matching report is made again.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sdnet.config import PatchConfig
from sdnet.data.store import write_patches
from sdnet.files import read_json, sha256_of, whole_file
from sdnet.images.decode import BadImage, levels_if_few, most_bytes, read_pair
from sdnet.preparation.alignment import REACH_PX, agreement
from sdnet.preparation.patches import Cut, cut_patches, is_constant
from sdnet.preparation.sen12 import Pair

# Increase it when the same pairs and settings give other patches than before.
_VERSION = 4
_DIGITS = 16  # of a SHA-256 in hexadecimal: enough to distinguish millions of pairs
_FEWEST_PAIRS, _MOST_PAIRS, _SHARDS_AIMED_AT = 8, 256, 64


@dataclass(frozen=True, slots=True)
class Shard:
    """Pairs that one task preprocesses.

    name: unique in the job.
    root: image paths are reported relative to it.
    max_pixels: the limit for an image.
    """

    name: str
    root: Path
    pairs: tuple[Pair, ...]
    max_pixels: int


@dataclass(frozen=True, slots=True)
class ShardReport:
    """The result of a shard.

    sha256: of its file. skipped: bad images with their reasons. constant_images: images of one value
    only, whose pairs give no patch. constant_windows: windows left out for the same reason. pixels: a hash of
    each pair's pixels, empty without patches; no hash at all in reports of older versions. contents: as
    `contents_of`; empty in reports of older versions. few_levels: images in which the stretch left few grey levels,
    and how many.
    """

    fingerprint: str
    sha256: str
    patches_per_pair: tuple[int, ...]
    skipped: tuple[tuple[str, str], ...]
    constant_images: tuple[str, ...]
    constant_windows: int
    pixels: tuple[str, ...] = ()
    contents: str = ""
    few_levels: tuple[tuple[str, int], ...] = ()

    @property
    def patches(self) -> int:
        return sum(self.patches_per_pair)


def pairs_per_shard(num_pairs: int) -> int:
    """Few enough pairs to balance the workers and to lose little, enough to be worth a task."""
    return min(max(-(-num_pairs // _SHARDS_AIMED_AT), _FEWEST_PAIRS), _MOST_PAIRS)


def cut_into_shards(
    name: str, root: Path, pairs: tuple[Pair, ...], size: int, max_pixels: int
) -> list[Shard]:
    """Shards of at most `size` pairs each, in order."""
    starts = range(0, len(pairs), size)
    return [
        Shard(f"{name}-{start // size:05d}", root, pairs[start : start + size], max_pixels)
        for start in starts
    ]


def patches_path(directory: Path, shard: Shard) -> Path:
    """The path of a shard's patches."""
    return directory / f"{shard.name}.npz"


def make_shard(shard: Shard, directory: Path, config: PatchConfig) -> ShardReport:
    """Cut the patches of every pair that can be read, write them, then write the report.

    Raises OSError when storage fails.
    """
    # Before the images are read, so that a later change is noticed.
    known, contents = fingerprint(shard, config), contents_of(shard, config)
    cuts, surfaces, skipped, constant, pixels, few_levels = [], [], [], [], [], []
    for pair in shard.pairs:
        surface, images = np.full((2 * REACH_PX + 1, 2 * REACH_PX + 1), np.nan, np.float32), None
        try:
            images = read_pair(pair.optical, pair.sar, shard.max_pixels)
            cut, without_texture = _cut_pair(pair, images, shard, config)
            few_levels += _few_levels(pair, images, shard)
            if config.align and not without_texture:
                surface = agreement(*images)
        except BadImage as error:
            skipped.append((_relative(error.path, shard.root), error.reason))
            cut, without_texture = Cut.nothing(config), []
        cuts.append(cut)
        pixels.append(_hash(*images) if images is not None and len(cut.patches) else "")
        surfaces.append(surface)
        constant += without_texture
    counts = tuple(len(cut.patches) for cut in cuts)
    path = patches_path(directory, shard)
    extras = {"centres": np.concatenate([np.empty((0, 2), np.int32), *(cut.centres for cut in cuts)])}
    if config.align:
        extras["surfaces"] = np.stack(surfaces)
    # Not synced: readers verify the checksum of a shard, so the worker need not wait for the disk.
    write_patches(
        path,
        sum(counts),
        (cut.patches for cut in cuts),
        np.ones(sum(counts), np.int32),
        sync=False,
        edge=config.stored_size,
        extras=extras,
    )
    report = ShardReport(
        known,
        sha256_of(path),
        counts,
        tuple(skipped),
        tuple(constant),
        sum(cut.constant for cut in cuts),
        tuple(pixels),
        contents,
        tuple(few_levels),
    )
    _write_report(asdict(report), shard, directory)
    return report


def _cut_pair(
    pair: Pair, images: tuple[np.ndarray, np.ndarray], shard: Shard, config: PatchConfig
) -> tuple[Cut, list[str]]:
    """The patches of a pair, and which of its images are constant. Raises BadImage."""
    paths = (pair.optical, pair.sar)
    rows, columns = images[0].shape
    if min(rows, columns) < config.size:
        raise BadImage(pair.optical, f"is {columns} x {rows} px, smaller than a patch of {config.size} px")
    constant = [path for path, image in zip(paths, images, strict=True) if is_constant(image)]
    if constant:
        return Cut.nothing(config), [_relative(path, shard.root) for path in constant]
    try:
        return cut_patches(*images, config), []
    except (cv2.error, MemoryError) as error:
        reason = getattr(error, "err", "") or "not enough memory"
        raise BadImage(pair.optical, f"has {images[0].size} px, and keypoints failed ({reason})") from None


def _few_levels(pair: Pair, images: tuple[np.ndarray, np.ndarray], shard: Shard) -> list[tuple[str, int]]:
    both = zip((pair.optical, pair.sar), images, strict=True)
    found = [(_relative(path, shard.root), levels_if_few(path, image)) for path, image in both]
    return [(image, levels) for image, levels in found if levels is not None]


def _hash(optical: np.ndarray, sar: np.ndarray) -> str:
    digest = hashlib.sha256(str(optical.shape).encode())
    for image in (optical, sar):
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:_DIGITS]


def read_good_shard(shard: Shard, directory: Path, config: PatchConfig) -> ShardReport | None:
    """The report of a shard on disk that is complete and has these pairs and settings; None otherwise."""
    try:
        raw = _read_report(shard, directory)
        report = ShardReport(
            raw["fingerprint"],
            raw["sha256"],
            tuple(raw["patches_per_pair"]),
            tuple((image, reason) for image, reason in raw["skipped"]),
            tuple(raw["constant_images"]),
            raw["constant_windows"],
            tuple(raw.get("pixels", ())),
            raw.get("contents", ""),
            tuple((image, levels) for image, levels in raw.get("few_levels", ())),
        )
        whole = report.fingerprint == fingerprint(shard, config) and report.sha256 == sha256_of(
            patches_path(directory, shard)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing or damaged: it is made again
    return report if whole else None


def fingerprint(shard: Shard, config: PatchConfig) -> str:
    """Hash of everything that determines a shard's patches. It covers the path, size and modification time of files.

    It begins with the version of the rules, so that only fingerprints of one version are compared.
    """
    return f"{_VERSION}-{_hash_of(shard, config, map(_size_and_time, _files(shard)))}"


def contents_of(shard: Shard, config: PatchConfig, each: Callable[..., Iterable[Any]] = map) -> str:
    """The same with the bytes of the files instead of their times: equal for a copy. Reads every file.

    each: calls a function for every file, in order. Threads help only where storage answers slowly.
    """
    most = most_bytes(shard.max_pixels)
    return _hash_of(shard, config, each(lambda path: _size_and_checksum(path, most), _files(shard)))


def _files(shard: Shard) -> list[Path]:
    return [path for pair in shard.pairs for path in (pair.optical, pair.sar)]


def _hash_of(shard: Shard, config: PatchConfig, described: Iterable[tuple[int, object]]) -> str:
    """Hash of the rules, the settings and the files. described: what identifies each file besides its path."""
    files = [
        (_relative(path, shard.root), *about) for path, about in zip(_files(shard), described, strict=True)
    ]
    cut = [config.size, config.per_pair, config.detect_on, float(config.min_distance_px)]
    cut += [config.stored_size, config.align]
    decisive = [_VERSION, shard.name, cut, shard.max_pixels, files]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def is_known(shard: Shard, directory: Path) -> bool:
    """Whether it is on record what a shard was made of, by the current rules."""
    return str(_read_report(shard, directory).get("fingerprint", "")).startswith(f"{_VERSION}-")


def is_outdated(shard: Shard, directory: Path, config: PatchConfig) -> bool:
    """Whether a shard was made by the current rules from other files or settings. Reads no image."""
    made_of = _read_report(shard, directory).get("fingerprint")
    return is_known(shard, directory) and made_of != fingerprint(shard, config)


def gives_other_patches(shard: Shard, directory: Path, config: PatchConfig) -> bool:
    """Whether an outdated shard has other patches now. If not, its report is updated.

    The files are compared first. Only if their bytes differ is the shard made again.
    """
    before = _read_report(shard, directory)
    now = fingerprint(shard, config)  # before the files are read, as in `make_shard`
    with ThreadPoolExecutor() as pool:
        contents = contents_of(shard, config, pool.map)
    if before.get("contents") == contents:
        _write_report({**before, "fingerprint": now}, shard, directory)
        return False
    with tempfile.TemporaryDirectory() as elsewhere:
        made = make_shard(shard, Path(elsewhere), config)
    same = made.sha256 == before.get("sha256")
    if same:
        _write_report(asdict(made), shard, directory)
    return not same


def _read_report(shard: Shard, directory: Path) -> dict[str, Any]:
    """A report as stored; empty when it is missing or damaged."""
    try:
        raw = read_json(_report_path(directory, shard))
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _write_report(report: dict[str, Any], shard: Shard, directory: Path) -> None:
    with whole_file(_report_path(directory, shard), sync=False) as file:
        file.write(json.dumps(report).encode())


def _report_path(directory: Path, shard: Shard) -> Path:
    return directory / f"{shard.name}.json"


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (-1, -1)  # gone since it was listed; the shard reports it as unreadable
    return found.st_size, found.st_mtime_ns


def _size_and_checksum(path: Path, most: int) -> tuple[int, str]:
    """Without a checksum for a file of more than `most` bytes, which no shard reads, or one that cannot be read."""
    size, _ = _size_and_time(path)
    try:
        return size, sha256_of(path) if size <= most else ""
    except OSError:
        return size, ""


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
