"""Finds pairs with the same pixels, such as one place under two scene names: a split by scene cannot know them."""

from typing import Any

from sdnet.preparation.shards import Shard, ShardReport
from sdnet.preparation.work import Work, some_of


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
    names = manifest.get("copies", {}).get("in_train_and_test", [])
    if not names:
        return ()
    return (
        f"{len(names)} test pair(s) have the same pixels as a training pair, so the test is too easy: "
        f"{some_of(names)}; remove the copies, or put them on one side with data.split",
    )


def _pixels_by_name(shards: tuple[Shard, ...], reports: dict[str, ShardReport]) -> dict[str, str]:
    return {
        pair.name: pixels
        for shard in shards
        for pair, pixels in zip(shard.pairs, reports[shard.name].pixels, strict=False)
        if pixels
    }
