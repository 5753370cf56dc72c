"""Checkpoints on mounts that lag, fail and lose replies, and writers that should be dead but still run."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.engine.checkpoints import (
    Encoded,
    checkpoint_names,
    newest_valid,
    read_checkpoint,
    write_checkpoint,
)
from orchestrator.engine.checkpoints.pruning import prune
from orchestrator.engine.state_format import NpzFormat
from orchestrator.storage import ObjectMissing, RunLost, StorageError
from tests.storage_mounts import Mount, Server
from tests.unit.engine.fakes import MemoryStorage

FORMAT = NpzFormat()
FOR_EVER = 1e9


def encoded(step: int, weight: float = 0.0) -> Encoded:
    return FORMAT.encode({"weight": np.full(3, weight)}, step, {})


class Interrupted(Mount):
    """Calls `between` before each operation of a writer."""

    between: Callable[[int], None]
    operations = 0

    def _reach(self, name: str) -> None:
        super()._reach(name)
        self.operations += 1
        self.between(self.operations)


@pytest.mark.parametrize("lag_s", [0.0, FOR_EVER], ids=["listings of now", "listings that lag"])
def test_two_writers_of_one_step_never_share_a_name_and_no_reader_sees_a_corrupt_checkpoint(
    lag_s: float,
) -> None:
    """A second writer, of a group that should be dead, does all its work before each operation of the first."""
    point, found = 0, 0
    while True:
        point += 1
        server = Server()
        earlier = write_checkpoint(Mount(server), encoded(5, 1.0))
        names: list[str] = []

        def between(operation: int, server: Server = server, earlier: str = earlier) -> None:
            reader = Mount(server)
            assert read_checkpoint(reader, earlier) == read_checkpoint(Mount(server, lag_s=lag_s), earlier)
            assert newest_valid(reader)[2] == []
            if operation == point:  # noqa: B023 - called in this round only
                names.append(write_checkpoint(Mount(server, lag_s=lag_s), encoded(5, 2.0)))  # noqa: B023

        first = Interrupted(server, lag_s=lag_s)
        first.between = between
        names.append(write_checkpoint(first, encoded(5, 3.0)))
        if len(names) == 1:
            break  # the first writer made fewer operations
        found += 1
        second_name, first_name = names
        assert len({earlier, *names}) == 3
        for name, weight in ((earlier, 1.0), (second_name, 2.0), (first_name, 3.0)):
            assert FORMAT.decode(read_checkpoint(Mount(server), name))["weight"][0] == weight
    assert found >= 5


def test_a_listing_that_still_shows_pruned_checkpoints_marks_none_corrupt() -> None:
    server = Server()
    here, there = Mount(server), Mount(server, lag_s=20.0)
    for step in (1, 2):
        write_checkpoint(here, encoded(step))
    server.clock.advance(30.0)
    for step in (3, 4):
        write_checkpoint(here, encoded(step))
    prune(here, keep=1)
    assert checkpoint_names(there) == ["step_00000001", "step_00000002"]  # both are gone
    assert newest_valid(there) == (None, None, []) and there.writes == []
    assert newest_valid(there, known="step_00000004")[0] == "step_00000004"


def test_a_checkpoint_that_is_pruned_while_it_is_read_is_not_corrupt() -> None:
    server = Server()
    name = write_checkpoint(Mount(server), encoded(1))

    class PrunedMeanwhile(Mount):
        def get(self, name: str) -> bytes:
            content = super().get(name)
            if name.endswith("state.json"):
                for path in list(server.objects):
                    Mount(server).delete(path)
            return content

    with pytest.raises(ObjectMissing):
        read_checkpoint(PrunedMeanwhile(server), name)


def test_a_recently_announced_name_is_retried_for_a_bounded_time() -> None:
    server = Server()
    mount = Mount(server, lag_s=FOR_EVER)
    pauses: list[float] = []

    def appears_after_two(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            write_checkpoint(Mount(server), encoded(9))

    name, _, _ = newest_valid(mount, known="step_00000009", wait=appears_after_two)
    assert name == "step_00000009" and len(pauses) == 2
    pauses.clear()
    assert newest_valid(mount, known="step_00000010", wait=pauses.append)[0] is None
    assert 0 < sum(pauses) < 3.0


def test_leftovers_of_a_killed_writer_are_pruned_with_older_checkpoints_and_never_by_a_listing_alone() -> (
    None
):
    server = Server()
    mount = Mount(server)
    mount.create("checkpoints/step_00000001/arrays.npz", b"half of")
    mount.create("checkpoints/step_00000009/arrays.npz", b"being written")
    names = [write_checkpoint(mount, encoded(step)) for step in (3, 5)]

    class HidesAState(Mount):
        def list(self, prefix: str) -> list[str]:
            return [name for name in super().list(prefix) if name != f"checkpoints/{names[0]}/state.json"]

    prune(HidesAState(server), keep=1)
    assert {name.split("/")[1] for name in mount.list("checkpoints/")} == {*names, "step_00000009"}
    prune(mount, keep=1)
    assert {name.split("/")[1] for name in mount.list("checkpoints/")} == {names[1], "step_00000009"}


FAULTS = st.sampled_from(["none", "fail", "lose a reply", "go away", "return", "lag"])


@settings(deadline=None)
@given(saves=st.lists(st.lists(FAULTS, max_size=4), min_size=1, max_size=6), keep=st.integers(1, 2))
def test_whatever_storage_does_the_newest_valid_checkpoint_is_one_that_was_saved_whole(
    saves: list[list[str]], keep: int
) -> None:
    server = Server()
    mount = Mount(server)
    stored = 0
    for step, faults in enumerate(saves, start=1):
        mount.failing = faults.count("fail")
        mount.lost_replies = faults.count("lose a reply")
        mount.away = "go away" in faults and "return" not in faults
        mount.lag_s = 5.0 if "lag" in faults else 0.0
        server.clock.advance(1.0)
        for _ in range(3):  # as the saver tries again
            try:
                name = write_checkpoint(mount, encoded(step, float(step)))
                stored = step
                prune(mount, keep)
                break
            except StorageError:
                continue
        reader = Mount(server)
        if stored:
            found, content, corrupt = newest_valid(reader)
            assert content is not None and content.step >= stored and not corrupt
            assert FORMAT.decode(content)["weight"][0] == content.step
        if stored == step:
            assert read_checkpoint(reader, name).step == step


def test_a_writer_whose_launch_lost_the_run_makes_no_checkpoint_valid() -> None:
    mount = Mount(Server())

    def lost() -> None:
        raise RunLost("/runs/j", "process 4 on h7")

    with pytest.raises(RunLost):
        write_checkpoint(mount, encoded(3), lost)
    assert checkpoint_names(mount) == []


VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        3,
        1e999,
        "x",
        [],
        {},
        {"a": 1},
        {"fpr95": "x"},
        {"fpr95": float("nan")},
        {"model.ckpt": 3},
        {"../x": {}},
    ]
)
FIELDS = st.fixed_dictionaries({}, optional={"files": VALUES, "step": VALUES, "metrics": VALUES})


def signed(fields: Any) -> bytes:
    checksum = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return json.dumps({**fields, "sha256": checksum}).encode()


@settings(max_examples=60, deadline=None)
@given(state=st.binary(max_size=12) | st.just(b"[" * 100_000) | FIELDS.map(signed))
def test_whatever_a_state_json_holds_every_reader_and_the_pruner_pass_it_by(state: bytes) -> None:
    storage = MemoryStorage()
    good = write_checkpoint(storage, Encoded({"model.ckpt": b"x"}, {"step": 3, "metrics": {"fpr95": 0.5}}))
    bad = "step_00000005"
    storage.objects |= {f"checkpoints/{bad}/state.json": state, f"checkpoints/{bad}/model.ckpt": b"x"}
    prune(storage, 2, "fpr95")
    assert newest_valid(storage)[0] == good
    assert write_checkpoint(storage, Encoded({"model.ckpt": b"y"}, {"step": 5, "metrics": {}})) == f"{bad}.2"
