"""The rendezvous store of ranks on CPU listens on a port that no other program uses."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from orchestrator.engine.rank import store
from tests.integration.jobs import listening_addresses

pytestmark = pytest.mark.integration

_JOINS = """
import sys
import mindspore
from orchestrator.engine.rank.store import connect_store, join_through_store, open_store
rank, world_size = int(sys.argv[1]), int(sys.argv[2])
mindspore.set_device("CPU")
if rank == 0:
    store, (host, port) = open_store("127.0.0.1", world_size, 60)
    print(port, flush=True)
    sys.stdin.readline()
else:
    sys.stdin.readline()
    store = connect_store(("127.0.0.1", int(sys.argv[3])), world_size, 60)
join_through_store(store, rank, world_size, 60)
from mindspore.communication import get_group_size, get_rank
print(get_rank(), get_group_size(), flush=True)
sys.stdin.readline()
"""

_CHOOSES = """
import sys
from orchestrator.engine.rank import store
chosen = map(int, sys.argv[1:])
store.free_port = lambda host: next(chosen)
print(*store.open_store("127.0.0.1", 2, 60)[1], flush=True)
"""


@pytest.fixture
def thief() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def rank_process(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _JOINS, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def go_on(*processes: "subprocess.Popen[str]") -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return next(line.strip() for line in process.stdout if line.strip()[:1].isdigit())


def test_ranks_keep_their_numbers_although_rank_zero_joins_last() -> None:
    first = rank_process("0", "3")
    port = line_of(first)
    others = [rank_process(rank, "3", port) for rank in ("2", "1")]
    ranks = [*others, first]
    go_on(*ranks)
    assert [line_of(process) for process in ranks] == ["2 3", "1 3", "0 3"]
    # Neither the store nor the collectives can be reached through another address than the one it was given.
    assert set().union(*(listening_addresses(process.pid) for process in ranks)) == {"127.0.0.1"}
    go_on(*ranks)
    assert [process.wait() for process in ranks] == [0, 0, 0]
    for process in ranks:
        process.communicate()


def test_a_port_taken_between_choosing_and_binding_costs_one_retry(thief: int) -> None:
    # In a process of its own, since MindSpore keeps a store's port for as long as its process lives.
    free = store.free_port("127.0.0.1")
    opened = subprocess.run(
        [sys.executable, "-c", _CHOOSES, str(thief), str(free)], capture_output=True, text=True, check=True
    )
    assert opened.stdout.splitlines() == [f"127.0.0.1 {free}"]


def test_a_store_that_finds_no_port_is_an_error_that_names_the_host(
    thief: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "free_port", lambda host: thief)
    with pytest.raises(store.StoreDidNotOpen, match=r"could not open a port on 127\.0\.0\.1 \(.*\)"):
        store.open_store("127.0.0.1", 2, timeout_s=10)
