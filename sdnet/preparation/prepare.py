"""Preprocesses a data set: makes all shards and merges them into train.npz and test.npz.

`sdnet prepare` makes one shard after another; the workers of the orchestrator make shards at the same time.
Both give the same bytes.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sdnet.data.augment import middle
from sdnet.data.store import PATCH_SHAPE, open_patches, read_images, write_patches
from sdnet.errors import InputError
from sdnet.files import make_folder, read_json, sha256_of, sweep, whole_file
from sdnet.images.decode import FEWEST_LEVELS
from sdnet.preparation.alignment import SceneShift
from sdnet.preparation.copies import copies_table, notes_on_copies
from sdnet.preparation.scenes import alignment_table, estimate_shifts, places_of
from sdnet.preparation.shards import Shard, ShardReport, make_shard, patches_path, read_good_shard
from sdnet.preparation.work import NO_PARTNER, Work, orphans, refuse_too_many, some_of

_SHARD = re.compile(r"(?:train|test)-\d{5,}\.(?:npz|json)")
_RESULTS = ("train.npz", "test.npz", "manifest.json")
_MANIFEST = {"pairs": int, "patches": dict, "scenes": dict, "skipped": list, "constant": dict, "files": dict}
_CHUNK = 4096  # patches in memory at once while merging: 32 MiB


def prepare(work: Work) -> dict[str, Any]:
    """Preprocess in this process, one shard after another; returns the manifest. Errors: as `finish`."""
    make_place(work)
    reports = {
        shard.name: read_good_shard(shard, work.directory, work.patches)
        or make_shard(shard, work.directory, work.patches)
        for shard in work.shards
    }
    return finish(work, reports)


def notes_on_result(manifest: dict[str, Any]) -> tuple[str, ...]:
    """Warnings about a result, one sentence each: images that could not be used or lost their contrast, and copies.

    Images without a partner are not named: `work.notes` names them before the work begins.
    """
    skipped = [item for item in manifest["skipped"] if item["reason"] != NO_PARTNER]
    bad = [f"{item['image']} {item['reason']}" for item in skipped]
    notes = [f"{len(bad)} image(s) cannot be used and are left out: {some_of(bad)}"] if bad else []
    few = [f"{item['image']} ({item['levels']})" for item in manifest.get("few_levels", ())]
    if few:
        notes.append(
            f"{len(few)} image(s) have fewer than {FEWEST_LEVELS} grey levels after the stretch to 8 bits, perhaps "
            "because of a no-data value; if so, declare it (gdal_edit.py -a_nodata) and prepare the data again: "
            f"{some_of(few)}"
        )
    return (*notes, *notes_on_copies(manifest))


def make_place(work: Work) -> None:
    """Create the folder of the shards. Raises InputError if its path, or that of a result, is already used."""
    for path in (work.out / name for name in _RESULTS):
        if path.is_dir():
            raise InputError(f"{path} is a folder, but must be a file; move it away")
    if work.directory.exists() and not work.directory.is_dir():
        raise InputError(f"{work.directory} is a file, but must be a folder; move it away")
    _refuse_foreign(work)
    make_folder(work.directory)


def _refuse_foreign(work: Work) -> None:
    """Raise InputError for results that somebody else put there: they would be lost."""
    if _is_ours(work):
        return
    for path in (work.out / name for name in _RESULTS):
        if os.path.lexists(path):
            raise InputError(
                f"{path} is there and was not made by this program; move it away, or give another folder"
            )


def _is_ours(work: Work) -> bool:
    """Whether this program worked in the folder before: it left a shard or a manifest."""
    if any(_SHARD.fullmatch(path.name) for path in work.directory.glob("t*-*")):
        return True
    try:
        return "fingerprint" in dict(read_json(work.out / _RESULTS[-1]))
    except (OSError, ValueError, TypeError):
        return False


def finish(work: Work, reports: dict[str, ShardReport]) -> dict[str, Any]:
    """Merge finished shards into train.npz, test.npz and, last, manifest.json; returns the manifest.

    Files of the same shards that match their checksums are kept. train.npz holds matches only. test.npz holds
    the matches, then for each of them `negatives` non-matches on average. A non-match is the optical patch of
    one match with the SAR patch of a random match of another scene (seeded).
    Raises InputError when too many images were bad, or a side has no patch; OSError when storage fails.
    """
    skipped = _skipped(work, reports)
    refuse_too_many(skipped, work)
    sweep(work.directory)
    sweep(work.out, _RESULTS)
    fingerprint = _fingerprint(work, reports)
    return _read_good_manifest(work.out, fingerprint) or _merge(work, reports, skipped, fingerprint)


def _merge(
    work: Work, reports: dict[str, ShardReport], skipped: list[dict[str, str]], fingerprint: str
) -> dict[str, object]:
    for name, shards in (("train", work.train), ("test", work.test)):
        _refuse_no_patch(name, [reports[shard.name] for shard in shards])
    shifts = estimate_shifts(work, reports) if work.patches.align else None
    with ThreadPoolExecutor() as pool:  # both files are copied and hashed at the same time
        train = pool.submit(_write_train, work, reports, shifts)
        test = pool.submit(_write_test, work, reports)
    counts, files = zip(train.result(), test.result(), strict=True)
    manifest = {
        "fingerprint": fingerprint,
        "pairs": len(work.listing.pairs),
        "patches": dict(zip(("train", "test"), counts, strict=True)),
        "scenes": {name: _scenes(shards) for name, shards in (("train", work.train), ("test", work.test))},
        "skipped": skipped,
        "constant": {
            "images": [path for shard in work.shards for path in reports[shard.name].constant_images],
            "windows": sum(reports[shard.name].constant_windows for shard in work.shards),
        },
        "few_levels": [
            {"image": image, "levels": levels}
            for shard in work.shards
            for image, levels in reports[shard.name].few_levels
        ],
        "copies": copies_table(work, reports),
        **({"alignment": alignment_table(work, shifts)} if shifts is not None else {}),
        "files": dict(zip(("train.npz", "test.npz"), files, strict=True)),
    }
    with whole_file(work.out / "manifest.json") as file:
        file.write((json.dumps(manifest, indent=2) + "\n").encode())
    return manifest


def _refuse_no_patch(side: str, reports: list[ShardReport]) -> None:
    if any(report.patches for report in reports):
        return
    constant = sum(len(report.constant_images) for report in reports)
    bad = [f"{image} {reason}" for report in reports for image, reason in report.skipped]
    why = f"{constant} of their images have one value only"
    if bad:
        why += f", {len(bad)} cannot be used: {bad[0]}" + ("; ..." if bad[1:] else "")
    raise InputError(
        f"the {side} scenes gave no patch ({why}); lower data.patches.min_distance_px, or look at the images"
    )


def _read_good_manifest(out: Path, fingerprint: str) -> dict[str, object] | None:
    """The manifest, if it comes from these shards and its files match their checksums; None otherwise."""
    try:
        manifest: dict[str, Any] = read_json(out / "manifest.json")
        same = manifest["fingerprint"] == fingerprint
        whole = (
            same
            and _is_manifest(manifest)
            and all(_size_and_sum(out / name) == known for name, known in manifest["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # missing or damaged: it is made again
    return manifest if whole else None


def _is_manifest(content: dict[str, Any]) -> bool:
    """Whether it has what readers of a manifest use. Older versions wrote no `copies`."""
    return (
        all(isinstance(content.get(key), kind) for key, kind in _MANIFEST.items())
        and all(isinstance(content["patches"].get(side), int) for side in ("train", "test"))
        and isinstance(content.get("copies", {}), dict)
        and isinstance(content.get("few_levels", []), list)
        and content["files"].keys() == {"train.npz", "test.npz"}
    )


def _fingerprint(work: Work, reports: dict[str, ShardReport]) -> str:
    """Hash of everything that determines the merged files, and of what was left out."""
    checksums = sorted(
        (name, report.sha256, report.skipped, report.constant_images, report.constant_windows)
        for name, report in reports.items()
    )
    return hashlib.sha256(json.dumps([work.patches.negatives, work.seed, checksums]).encode()).hexdigest()


def draw_negatives(scenes: np.ndarray, negatives: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose the matches for the optical and the SAR half of each non-match: int64 [round(negatives * N)] each.

    scenes: int64 [N], the scene of each match, ascending. Every match gives its optical patch floor or ceil of
    `negatives` times. The SAR patch is drawn uniformly from the matches of other scenes.
    """
    total, number = len(scenes), round(negatives * len(scenes))
    optical = np.arange(number) * total // max(number, 1)
    begins = np.searchsorted(scenes, scenes[optical], "left")
    sizes = np.searchsorted(scenes, scenes[optical], "right") - begins
    rng = np.random.Generator(np.random.PCG64([seed, total]))
    others = np.floor(rng.random(number) * (total - sizes)).astype(np.int64)
    return optical, np.where(others < begins, others, others + sizes)


def _write_train(
    work: Work, reports: dict[str, ShardReport], shifts: dict[str, SceneShift] | None
) -> tuple[int, dict[str, object]]:
    """Write train.npz; returns its number of pairs, and its size and checksum."""
    path, places = work.out / "train.npz", places_of(work, work.train, reports)
    extras = places.extras()
    if shifts is not None:
        of_scene = np.array([[shifts[name].rows, shifts[name].columns] for name in places.scenes], np.int16)
        extras["shifts"] = of_scene[places.scene]
    total = len(places)
    write_patches(
        path,
        total,
        _stream(work, work.train, reports),
        np.ones(total, np.int32),
        edge=work.patches.stored_size,
        extras=extras,
    )
    return total, _size_and_sum(path)


def _write_test(work: Work, reports: dict[str, ShardReport]) -> tuple[int, dict[str, object]]:
    """Write test.npz; returns its number of pairs, and its size and checksum."""
    path = work.out / "test.npz"
    places = places_of(work, work.test, reports)
    scenes = places.scene
    if scenes[0] == scenes[-1]:
        raise InputError(
            "only one test scene gave patches; non-matches come from another scene, so add scenes"
        )
    optical, sar = draw_negatives(scenes, work.patches.negatives, work.seed)
    total = len(scenes) + len(optical)
    extras = places.rows(np.concatenate([np.arange(len(scenes)), optical])).extras()
    labels = np.concatenate([np.ones(len(scenes), np.int32), np.zeros(len(optical), np.int32)])
    # Random access needs the matches in one temporary file. It is read, not mapped: on a lost mount a
    # mapped page would kill the process.
    scratch = work.out / ".test-matches"
    try:
        with scratch.open("w+b") as matches:
            for chunk in _stream(work, work.test, reports):
                matches.write(np.ascontiguousarray(middle(chunk)).data)
            chunks = _with_negatives(matches, len(scenes), optical, sar)
            write_patches(path, total, chunks, labels, extras=extras)
    finally:
        scratch.unlink(missing_ok=True)
    return total, _size_and_sum(path)


def _with_negatives(
    matches: BinaryIO, count: int, optical: np.ndarray, sar: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield the matches, then the non-matches. matches: `count` patches. optical, sar: which give each half."""
    half = PATCH_SHAPE[1] // 2
    for start in range(0, count, _CHUNK):
        yield _patches_at(matches, np.arange(start, min(start + _CHUNK, count)))
    for start in range(0, len(optical), _CHUNK):
        chunk = _patches_at(matches, optical[start : start + _CHUNK])
        chunk[:, :, half:] = _patches_at(matches, sar[start : start + _CHUNK])[:, :, half:]
        yield chunk


def _patches_at(file: BinaryIO, indices: np.ndarray) -> np.ndarray:
    """The patches at these places of the file: uint8 [n, 64, 128]."""
    size = PATCH_SHAPE[0] * PATCH_SHAPE[1]
    content = bytearray()
    for index in indices.tolist():
        file.seek(index * size)
        content += file.read(size)
    return np.frombuffer(content, np.uint8).reshape(len(indices), *PATCH_SHAPE)


def _stream(work: Work, shards: Sequence[Shard], reports: dict[str, ShardReport]) -> Iterator[np.ndarray]:
    for shard in shards:
        if reports[shard.name].patches:
            yield from read_images(open_patches(patches_path(work.directory, shard)), _CHUNK)


def _scenes(shards: Sequence[Shard]) -> list[str]:
    return list(dict.fromkeys(pair.scene for shard in shards for pair in shard.pairs))


def _skipped(work: Work, reports: dict[str, ShardReport]) -> list[dict[str, str]]:
    bad = [
        {"image": image, "reason": reason}
        for shard in work.shards
        for image, reason in reports[shard.name].skipped
    ]
    return bad + orphans(work)


def _size_and_sum(path: Path) -> dict[str, object]:
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}
