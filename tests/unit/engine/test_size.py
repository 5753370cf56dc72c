"""How many ranks fit on the hosts, where they are placed, and when an elastic group grows."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.control.size import Growth, RankNeeds, assign, room_of

CPUS = st.lists(st.integers(0, 8).map(lambda cpus: {"CPU": float(cpus)}), max_size=5)


def test_a_host_holds_as_many_ranks_as_its_scarcest_resource_allows() -> None:
    needs = RankNeeds({"CPU": 1.0, "NPU": 1.0})
    assert room_of([{"CPU": 96.0, "NPU": 8.0}, {"CPU": 4.0, "NPU": 8.0}, {"CPU": 9.0}], needs) == 12


def test_a_limit_for_each_host_leaves_room_unused() -> None:
    hosts = [{"CPU": 2.0}, {"CPU": 2.0}]
    assert room_of(hosts, RankNeeds({"CPU": 1.0}, per_host=1)) == 2
    assert room_of(hosts, RankNeeds({"CPU": 1.0})) == 4


def test_ranks_fill_hosts_in_order_and_no_host_gets_more_than_its_limit() -> None:
    hosts = {"a": {"CPU": 2.0}, "b": {"CPU": 2.0}, "c": {"CPU": 2.0}}
    assert assign(hosts, RankNeeds({"CPU": 1.0}), 3) == ["a", "a", "b"]
    assert assign(hosts, RankNeeds({"CPU": 1.0}, per_host=1), 3) == ["a", "b", "c"]
    assert assign(hosts, RankNeeds({"CPU": 1.0}, per_host=1), 4) is None


@given(hosts=CPUS, per_host=st.none() | st.integers(1, 4), ranks=st.integers(1, 12))
def test_an_assignment_exists_exactly_when_there_is_room(
    hosts: list[dict[str, float]], per_host: int | None, ranks: int
) -> None:
    needs = RankNeeds({"CPU": 1.0}, per_host)
    named = {f"h{number}": host for number, host in enumerate(hosts)}
    places = assign(named, needs, ranks)
    assert (places is not None) == (room_of(hosts, needs) >= ranks)
    for name in set(places or ()):
        assert (places or []).count(name) <= needs.room(named[name])


def test_a_group_grows_right_after_a_checkpoint_and_only_once_for_it() -> None:
    growth = Growth(most=3)
    assert growth.grown_size(2, None, lambda: 3) is None
    assert growth.grown_size(2, "step_00000010", lambda: 2) is None
    assert growth.grown_size(2, "step_00000010", lambda: 3) is None
    assert growth.grown_size(2, "step_00000020", lambda: 9) == 3


def test_a_group_of_full_size_never_counts_the_hosts() -> None:
    def count() -> int:
        raise AssertionError("this must not be called")

    assert Growth(most=2).grown_size(2, "step_00000010", count) is None
