"""Finds pairs with the same pixels, such as one place under two scene names: a split by scene cannot know them."""

import hashlib
from typing import Any

import numpy as np

from sdnet.data.augment import middle
from sdnet.data.store import PatchFile, read_images
from sdnet.errors import InputError
from sdnet.preparation.shards import Shard, ShardReport
from sdnet.preparation.work import Work, some_of

_CHUNK = 1024  # pairs in memory at once: 8 to 32 MiB


def copies_table(work: Work, reports: dict[str, ShardReport]) -> dict[str, object]:
    """For the manifest. pairs: how many have the pixels of an earlier pair. in_train_and_test: test pairs, by name.

    Pairs without patches do not count, nor those of shards that an older version made.
    """
    train, test = (_pixels_by_name(shards, reports) for shards in (work.train, work.test))
    seen = {*train.values(), *test.values()}
    trained = set(train.values())
    return {
        "pairs": len(train) + len(test) - len(seen),
        "in_train_and_test": [name for name, pixels in test.items() if pixels in trained],
    }


def notes_on_copies(manifest: dict[str, Any]) -> tuple[str, ...]:
    """A warning if some test pairs are also training pairs; empty for a manifest that does not say it."""
    copies = manifest.get("copies", {})
    names = copies.get("in_train_and_test", [])
    if not names:
        return notes_on_useless_pairs(copies, manifest["patches"]["test"])
    return (
        f"{len(names)} test pair(s) have the same pixels as a training pair, so the test is too easy: "
        f"{some_of(names)}; remove the copies, or put them on one side with data.split",
    )


def useless_pairs(train: PatchFile, test: PatchFile) -> dict[str, int]:
    """Counts of pairs that teach or test nothing, by their middle 64 px, for the manifest. Reads both files once.

    test_pairs_in_train: pairs of test.npz that are also in train.npz. equal_halves: pairs of both files whose halves
    are the same image, such as zeros alone.
    Takes 8 bytes of memory a pair, and a few times that while they are compared.
    Raises InputError when all halves of a file are equal, OSError when storage fails.
    """
    (trained, equal_train), (tested, equal_test) = _hashes(train), _hashes(test)
    return {
        "test_pairs_in_train": int(np.isin(tested, trained).sum()),
        "equal_halves": equal_train + equal_test,
    }


def refuse_equal_halves(patches: PatchFile) -> None:
    """Raise InputError when the halves of all pairs are equal. Reads on only until two halves differ.

    Raises OSError when storage fails.
    """
    if all(_have_equal_halves(middle(chunk)).all() for chunk in read_images(patches, _CHUNK)):
        raise _all_equal(patches)


def notes_on_useless_pairs(counts: dict[str, int], tested: int) -> tuple[str, ...]:
    """Warnings for these counts of `useless_pairs`. tested: pairs of test.npz."""
    shared, equal = counts.get("test_pairs_in_train", 0), counts.get("equal_halves", 0)
    notes = []
    if shared:
        notes.append(
            f"{shared} of {tested} test pairs are also training pairs, so FPR95 is too good; "
            "leave them out of train.npz or test.npz"
        )
    if equal:
        notes.append(
            f"the two halves of {equal} pair(s) of train.npz and test.npz are equal, so these pairs teach nothing; "
            "leave them out"
        )
    return tuple(notes)


def _hashes(patches: PatchFile) -> tuple[np.ndarray, int]:
    """A hash of each pair's pixels, uint64 [N], and how many pairs have equal halves.

    Among a million pairs two equal hashes by chance are one in 10^7.
    """
    hashes, equal = bytearray(), 0
    for chunk in read_images(patches, _CHUNK):
        pairs = np.ascontiguousarray(middle(chunk))
        equal += int(_have_equal_halves(pairs).sum())
        for pair in pairs:
            hashes += hashlib.blake2b(pair.data, digest_size=8).digest()
    if equal == len(patches):
        raise _all_equal(patches)
    return np.frombuffer(hashes, np.uint64), equal


def _have_equal_halves(pairs: np.ndarray) -> np.ndarray:
    """Whether each of these pairs has twice the same image: bool [N] of uint8 [N, E, 2E]."""
    edge = pairs.shape[1]
    return np.asarray((pairs[:, :, :edge] == pairs[:, :, edge:]).all(axis=(1, 2)))


def _all_equal(patches: PatchFile) -> InputError:
    return InputError(
        f"{patches.path}: the two halves of all {len(patches)} pairs are equal; put optical into [:, :, :64] "
        "and SAR into [:, :, 64:]"
    )


def _pixels_by_name(shards: tuple[Shard, ...], reports: dict[str, ShardReport]) -> dict[str, str]:
    return {
        pair.name: pixels
        for shard in shards
        for pair, pixels in zip(shard.pairs, reports[shard.name].pixels, strict=False)
        if pixels
    }
