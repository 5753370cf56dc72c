"""Placement gives each rank a device, by HCCL's group rules, or refuses and says which size would fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ascend import device_groups
from orchestrator.ascend.placement import AscendHost, Npu, largest_group, place, places_of_workers
from orchestrator.errors import InputError


def host(number, devices=range(8), ill=(), pod=None):
    npus = tuple(
        Npu(
            device_id=device,
            device_ip=f"192.168.{number}.{device + 1}",
            super_device_id=None if pod is None else number * 16 + device,
            unusable="health Alarm" if device in ill else "",
        )
        for device in devices
    )
    return AscendHost(address=f"10.0.0.{number}", npus=npus, super_pod_id=pod)


def layout(places):
    return [(item.rank, item.local_rank, item.host.address, item.npu.device_id) for item in places]


def test_ranks_are_contiguous_by_host_in_dictionary_order():
    assert layout(place([host(9, [0, 1]), host(10, [0, 1])], 4, "910b")) == [
        (0, 0, "10.0.0.10", 0), (1, 1, "10.0.0.10", 1), (2, 0, "10.0.0.9", 0), (3, 1, "10.0.0.9", 1),
    ]  # fmt: skip


def test_the_fewest_hosts_are_taken():
    places = place([host(1), host(2), host(3)], 16, "910a")
    assert {item.host.address for item in places} == {"10.0.0.1", "10.0.0.2"}


def test_an_unhealthy_device_is_left_out_and_the_rest_of_its_ring_too_on_910a():
    places = place([host(1, ill=[2]), host(2)], 8, "910a", per_host=4)
    assert [item.npu.device_id for item in places] == [4, 5, 6, 7, 0, 1, 2, 3]


def test_four_devices_across_the_rings_are_taken_only_as_hccl_lists_them():
    assert [p.npu.device_id for p in place([host(1, [0, 2, 4, 6])], 4, "910a")] == [0, 2, 4, 6]
    with pytest.raises(InputError, match="set cluster.workers to 2"):
        place([host(1, [0, 1, 2, 4])], 4, "910a")


def test_hosts_of_unequal_size_form_a_group_on_910b_but_not_on_910a():
    hosts = [host(1), host(2, ill=[5, 6, 7])]
    assert [item.local_rank for item in place(hosts, 13, "910b")] == [*range(8), *range(5)]
    with pytest.raises(InputError) as refusal:
        place(hosts, 13, "910a")
    reported = str(refusal.value)
    assert "13 usable NPUs of 2 hosts; left out: 10.0.0.2 NPU 5 (health Alarm)" in reported
    assert reported.endswith("set cluster.workers to 8, the largest group that fits")


def test_a_cluster_without_usable_devices_is_reported_as_such():
    with pytest.raises(InputError, match="0 usable NPUs of 1 hosts; .* none fits"):
        place([host(1, [0], ill=[0])], 1, "910b")


def test_an_npu_above_the_ids_of_the_chip_is_left_out_by_name():
    with pytest.raises(InputError) as refusal:
        place([host(1, [10, 12, 14, 16])], 4, "910b", setting="--workers")
    assert str(refusal.value) == (
        "4 ranks do not fit 3 usable NPUs of 1 hosts; left out: 10.0.0.1 NPU 16 (910b has devices 0 to 15); "
        "set --workers to 3, the largest group that fits"
    )


def test_a_worker_on_an_npu_above_the_ids_of_the_chip_is_refused_by_name():
    with pytest.raises(InputError, match="runs on NPU 8 of 10.0.0.1, but 910a has devices 0 to 7; hide it"):
        places_of_workers([host(1, [0, 8])], [("10.0.0.1", 0), ("10.0.0.1", 8)], "910a")


def test_a_group_stays_in_the_smallest_super_pod_that_holds_it():
    hosts = [host(1, pod="0"), host(2, pod="1"), host(3, pod="1"), host(4, pod="0"), host(5, pod="0")]
    assert {item.host.super_pod_id for item in place(hosts, 16, "a3")} == {"1"}


def test_a_group_over_super_pods_keeps_each_pod_together():
    hosts = [host(1, pod="0"), host(2, pod="1"), host(3, pod="0")]
    assert [item.host.address for item in place(hosts, 24, "a3")[::8]] == ["10.0.0.1", "10.0.0.3", "10.0.0.2"]


@pytest.mark.parametrize(
    ("hosts", "workers", "reported"),
    [
        ([host(1), host(1)], 1, "10.0.0.1 is given twice"),
        ([host(1, [0, 0])], 1, "has a device twice"),
        ([host(1)], 0, "workers is 0"),
    ],
)
def test_contradictory_hosts_are_refused(hosts, workers, reported):
    with pytest.raises(InputError, match=reported):
        place(hosts, workers, "910b")


def test_running_workers_are_numbered_as_mindspore_numbers_them():
    workers = [("10.0.0.9", 1), ("10.0.0.10", 0), ("10.0.0.9", 0), ("10.0.0.10", 1)]
    assert [item.rank for item in places_of_workers([host(9), host(10)], workers, "910b")] == [3, 0, 2, 1]


@pytest.mark.parametrize(
    ("workers", "reported"),
    [
        ([("10.0.0.7", 0)], "NPU 0 of 10.0.0.7, which the inventory does not know"),
        ([("10.0.0.1", 9)], "NPU 9 of 10.0.0.1"),
        (
            [("10.0.0.1", 0), ("10.0.0.1", 0)],
            r"two workers hold NPU 0 of 10\.0\.0\.1; let ASCEND_RT_VISIBLE_DEVICES",
        ),
        ([("10.0.0.1", 3), ("10.0.0.1", 4)], r"hold NPUs \[3, 4\] of 10.0.0.1; 910A takes"),
        ([("10.0.0.1", 0), ("10.0.0.1", 1), ("10.0.0.2", 0)], "910A needs the same number"),
    ],
)
def test_workers_that_hccl_would_refuse_are_refused(workers, reported):
    with pytest.raises(InputError, match=reported):
        places_of_workers([host(1), host(2)], workers, "910a")


@pytest.mark.parametrize(
    ("there", "workers", "taken"),
    [
        (range(16), 16, list(range(16))),
        (range(16), 8, list(range(8))),
        ([0, 1, *range(8, 16)], 8, list(range(8, 16))),
        ([0, 1, 2, 8, 9, 10], 4, None),
        (range(16), 10, [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]),
        ([5, 6, 13, 14], 3, None),
        (range(16), 9, None),
        ([3, 9], 2, None),
    ],
)
def test_a_910b_host_with_two_halves_gives_one_half_or_more_than_eight_in_pairs(there, workers, taken):
    if taken is None:
        with pytest.raises(InputError, match="ranks do not fit .*; 910B takes 1 to 8 devices of one half"):
            place([host(1, there)], workers, "910b")
    else:
        assert [item.npu.device_id for item in place([host(1, there)], workers, "910b")] == taken


def test_910b_hosts_with_two_halves_give_eight_each_to_a_group_of_several():
    places = place([host(1, range(16)), host(2, range(16))], 16, "910b", per_host=8)
    assert [item.npu.device_id for item in places] == [*range(8), *range(8)]
    with pytest.raises(InputError, match="set cluster.workers to 16"):
        place([host(1, range(16)), host(2, range(16))], 24, "910b")
    assert largest_group([host(1, range(16)), host(2, range(3))], 32, "910b") == 16


def test_workers_that_share_the_halves_of_a_910b_host_without_pairs_are_refused():
    with pytest.raises(InputError, match=r"hold NPUs \[1, 8\] .*that pair i with i \+ 8"):
        places_of_workers([host(1, range(16))], [("10.0.0.1", 1), ("10.0.0.1", 8)], "910b")


def clusters(soc):
    # Some ids are above those of the chip.
    ids = st.integers(0, device_groups.highest_id(soc) + 4)
    return st.lists(st.sets(ids), min_size=1, max_size=4).map(
        lambda sets: [host(number, sorted(devices)) for number, devices in enumerate(sets, start=1)]
    )


@given(
    data=st.data(),
    workers=st.integers(1, 40),
    soc=st.sampled_from(device_groups.SOCS),
    each=st.none() | st.integers(1, 16),
)
def test_every_placement_is_legal_and_what_is_refused_is_larger_than_what_is_offered(
    data, workers, soc, each
):
    hosts = data.draw(clusters(soc))
    offered = largest_group(hosts, workers, soc, each)
    if offered < workers:
        with pytest.raises(
            InputError, match=f"set cluster.workers to {offered}," if offered else "none fits"
        ):
            place(hosts, workers, soc, each)
    if not offered:
        return
    places = place(hosts, offered, soc, each)
    assert [item.rank for item in places] == list(range(offered))
    per_host: dict[str, list[int]] = {}
    for item in places:
        per_host.setdefault(item.host.address, []).append(item.npu.device_id)
    alone = len(per_host) == 1
    assert all(device_groups.is_legal(devices, soc, alone=alone) for devices in per_host.values())
    assert list(per_host) == sorted(per_host)
    assert soc != "910a" or len({len(devices) for devices in per_host.values()}) == 1
