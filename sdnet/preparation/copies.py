"""Finds pairs with the same pixels, such as one place under two scene names: a split by scene cannot know them."""

import hashlib
from typing import Any

import numpy as np

from sdnet.data.augment import middle
from sdnet.data.store import PatchFile, read_images
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
        return note_on_shared_pairs(copies.get("test_pairs_in_train", 0), manifest["patches"]["test"])
    return (
        f"{len(names)} test pair(s) have the same pixels as a training pair, so the test is too easy: "
        f"{some_of(names)}; remove the copies, or put them on one side with data.split",
    )


def shared_pairs(train: PatchFile, test: PatchFile) -> int:
    """How many pairs of test.npz have the middle 64 px of a pair of train.npz. Reads both files once.

    Takes 8 bytes of memory a pair, and a few times that while they are compared. Raises OSError when storage fails.
    """
    return int(np.isin(_hashes(test), _hashes(train)).sum())


def note_on_shared_pairs(shared: int, tested: int) -> tuple[str, ...]:
    """A warning if `shared` of the `tested` pairs of test.npz are also in train.npz; empty if none."""
    if not shared:
        return ()
    return (
        f"{shared} of {tested} test pairs are also training pairs, so FPR95 is too good; "
        "leave them out of train.npz or test.npz",
    )


def _hashes(patches: PatchFile) -> np.ndarray:
    """A hash of each pair's pixels: uint64 [N]. Among a million pairs two equal ones by chance are one in 10^7."""
    hashes = bytearray()
    for chunk in read_images(patches, _CHUNK):
        for pair in np.ascontiguousarray(middle(chunk)):
            hashes += hashlib.blake2b(pair.data, digest_size=8).digest()
    return np.frombuffer(hashes, np.uint64)


def _pixels_by_name(shards: tuple[Shard, ...], reports: dict[str, ShardReport]) -> dict[str, str]:
    return {
        pair.name: pixels
        for shard in shards
        for pair, pixels in zip(shard.pairs, reports[shard.name].pixels, strict=False)
        if pixels
    }
