"""One order of ranks, whatever order Ray started the workers in."""

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.control.generation import Member
from orchestrator.engine.control.rank_order import LocalRank, in_rank_order, local_ranks, numbered


def worker(host: str, pid: int, *npus: int) -> Member:
    return Member(rank=-1, host=host, node=f"node-{host}", pid=pid, npus=npus)


def ordered(workers: list[Member], server_ids: dict[str, str]) -> list[Member]:
    return [workers[index] for index in in_rank_order(workers, server_ids)]


def test_ranks_of_a_host_are_together_and_their_devices_ascend() -> None:
    started = [
        worker("10.0.0.2", 7, 3),
        worker("10.0.0.1", 8, 5),
        worker("10.0.0.2", 9, 0),
        worker("10.0.0.1", 6, 4),
    ]
    hosts = {"10.0.0.1": "10.0.0.1", "10.0.0.2": "10.0.0.2"}
    assert [(m.host, m.npus) for m in ordered(started, hosts)] == [
        ("10.0.0.1", (4,)), ("10.0.0.1", (5,)), ("10.0.0.2", (0,)), ("10.0.0.2", (3,)),
    ]  # fmt: skip


def test_hosts_follow_the_name_that_hccl_gives_them_and_not_their_address() -> None:
    started = [worker("10.0.0.1", 1, 0), worker("10.0.0.2", 2, 0)]
    super_pods = {"10.0.0.1": "9/10.0.0.1", "10.0.0.2": "1/10.0.0.2"}
    assert [member.host for member in ordered(started, super_pods)] == ["10.0.0.2", "10.0.0.1"]


def test_workers_without_a_device_follow_their_process_ids() -> None:
    started = [worker("a", 30), worker("a", 10), worker("a", 20)]
    assert [member.pid for member in ordered(started, {"a": "a"})] == [10, 20, 30]


def test_each_rank_knows_its_place_on_its_host() -> None:
    members = numbered([worker("a", 1), worker("a", 2), worker("b", 3)])
    assert [member.rank for member in members] == [0, 1, 2]
    assert local_ranks(members) == [LocalRank(0, 2, 0), LocalRank(1, 2, 0), LocalRank(0, 1, 1)]


PLACES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 7)), min_size=1, max_size=8, unique=True)


@given(places=PLACES, shuffle=st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_which_worker_started_first(
    places: list[tuple[str, int]], shuffle: Random
) -> None:
    workers = [worker(host, 100 + index, npu) for index, (host, npu) in enumerate(places)]
    shuffled = [replace(member) for member in workers]
    shuffle.shuffle(shuffled)
    hosts = {name: name for name in "abc"}
    assert ordered(shuffled, hosts) == ordered(workers, hosts)
