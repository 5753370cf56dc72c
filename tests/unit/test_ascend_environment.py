"""The environment of a rank is compared whole: an extra variable is as wrong as a missing one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ascend.environment import (
    Timeouts,
    cpus_of_ranks,
    rank_environment,
    rendezvous_of,
    scheduler_environment,
    timeouts,
)
from orchestrator.ascend.inventory.host_inventory import take_inventory
from orchestrator.ascend.inventory.host_tools import AscendHostTools
from orchestrator.engine.rank.start import npu_numbers
from orchestrator.engine.start.ascend import physical_id
from orchestrator.errors import InputError
from tests.ascend_fakes.host import describe, install

ONE_THREAD = {"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
RANK_5_OF_16: dict[str, Any] = {
    "rank": 5,
    "local_rank": 1,
    "world_size": 16,
    "scheduler_host": "10.0.0.1",
    "scheduler_port": 8118,
    "threads": 1,
    "failure_budget_s": 300,
}
MEETING = {
    "MS_NODE_ID": "5",
    "MS_NODE_TIMEOUT": "300",
    "MS_ROLE": "MS_WORKER",
    "MS_SCHED_HOST": "10.0.0.1",
    "MS_SCHED_PORT": "8118",
    "MS_TOPO_TIMEOUT": "300",
    "MS_WORKER_NUM": "16",
}
IDENTITY = {"RANK_ID": "5", "RANK_SIZE": "16"}


def test_a_cpu_rank_joins_through_the_scheduler_and_has_no_hccl_variables():
    assert rank_environment(**RANK_5_OF_16, device="cpu") == {
        **ONE_THREAD, **MEETING, **IDENTITY, "DEVICE_ID": "1", "MS_CPU_COMM_OP_TIMEOUT": "300",
    }  # fmt: skip


def test_a_cpu_rank_that_joins_through_a_store_has_no_scheduler_variables():
    assert rank_environment(**RANK_5_OF_16, device="cpu", rendezvous="store") == {
        **ONE_THREAD, **IDENTITY, "DEVICE_ID": "1", "MS_CPU_COMM_OP_TIMEOUT": "300",
    }  # fmt: skip


def test_the_rendezvous_is_a_store_on_cpu_and_dynamic_cluster_on_ascend_unless_the_job_says_otherwise():
    assert [rendezvous_of("auto", device) for device in ("cpu", "ascend")] == ["store", "dynamic_cluster"]
    assert rendezvous_of("dynamic_cluster", "cpu") == "dynamic_cluster"
    assert rendezvous_of("rank_table", "ascend") == "rank_table"


def test_a_rank_isolated_by_ray_sees_one_device_and_calls_it_zero():
    environment = rank_environment(**RANK_5_OF_16, device="ascend", device_id=6, visible_devices=(6,))
    assert environment == {
        **ONE_THREAD, **MEETING, **IDENTITY, "DEVICE_ID": "0", "ASCEND_RT_VISIBLE_DEVICES": "6",
        "HCCL_CONNECT_TIMEOUT": "300", "HCCL_EXEC_TIMEOUT": "300",
    }  # fmt: skip


def test_a_rank_in_a_container_names_its_device_as_cann_counts_it_there(tmp_path):
    # /dev/davinci4 to 7 were given to the container; Ray and CANN call them 0 to 3.
    root = install(tmp_path, describe(1, devices=[4, 5, 6, 7]))
    host = take_inventory("10.0.0.1", tools=AscendHostTools(root))
    environment = rank_environment(**RANK_5_OF_16, device="ascend", device_id=2, visible_devices=(2,))
    assert (environment["ASCEND_RT_VISIBLE_DEVICES"], environment["DEVICE_ID"]) == ("2", "0")
    assert physical_id(host, 2) == 6
    everything = rank_environment(**RANK_5_OF_16, device="ascend", device_id=2)
    assert everything["DEVICE_ID"] == "2"


def test_a_number_that_cann_does_not_have_is_refused_with_those_that_it_has(tmp_path):
    host = take_inventory("10.0.0.1", tools=AscendHostTools(install(tmp_path, describe(1, devices=[4, 5]))))
    with pytest.raises(InputError) as refusal:
        physical_id(host, 4)
    assert str(refusal.value) == (
        "Ray gave a rank NPU 4 of 10.0.0.1, but CANN numbers the devices that the job may use there [0, 1]; "
        "set ASCEND_RT_VISIBLE_DEVICES to some of these before `ray start` there, or name the device in "
        "cluster.hosts"
    )


@pytest.mark.parametrize("shown", ["0-3", "", "x", "０", "-1"])
def test_ids_of_ray_that_are_no_numbers_are_refused_by_the_variable_they_come_from(shown):
    with pytest.raises(InputError, match="set ASCEND_RT_VISIBLE_DEVICES to numbers with commas"):
        npu_numbers(["0", shown], "10.0.0.1")
    assert npu_numbers(["7", "0"], "10.0.0.1") == (7, 0)


def test_a_rank_that_sees_every_device_names_its_own_by_the_physical_id():
    environment = rank_environment(
        **RANK_5_OF_16, device="ascend", device_id=6, soc="910a", rank_table_path="/runs/plan/rank_table.json"
    )
    assert environment == {
        **ONE_THREAD, **MEETING, **IDENTITY, "DEVICE_ID": "6",
        "HCCL_CONNECT_TIMEOUT": "300", "HCCL_EXEC_TIMEOUT": "272",
        "RANK_TABLE_FILE": "/runs/plan/rank_table.json",
    }  # fmt: skip


def test_a_rank_started_from_a_rank_table_has_no_scheduler():
    environment = rank_environment(
        **RANK_5_OF_16, device="ascend", rendezvous="rank_table", device_id=6, visible_devices=(2, 6),
        rank_table_path="/runs/plan/rank_table.json",
    )  # fmt: skip
    assert environment == {
        **ONE_THREAD, **IDENTITY, "DEVICE_ID": "1", "ASCEND_RT_VISIBLE_DEVICES": "2,6",
        "HCCL_CONNECT_TIMEOUT": "300", "HCCL_EXEC_TIMEOUT": "300",
        "RANK_TABLE_FILE": "/runs/plan/rank_table.json",
    }  # fmt: skip


def test_a_single_rank_needs_no_rendezvous():
    alone = {**RANK_5_OF_16, "rank": 0, "local_rank": 0, "world_size": 1, "scheduler_port": 0}
    assert rank_environment(**alone, device="cpu") == {
        **ONE_THREAD, "DEVICE_ID": "0", "RANK_ID": "0", "RANK_SIZE": "1",
    }  # fmt: skip


def test_the_scheduler_agrees_with_its_ranks():
    assert scheduler_environment(
        world_size=16, scheduler_host="10.0.0.1", scheduler_port=8118, failure_budget_s=300
    ) == {**{name: MEETING[name] for name in MEETING if name != "MS_NODE_ID"}, "MS_ROLE": "MS_SCHED"}


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        ({"device": "ascend"}, "rank 5 has no device"),
        ({"device": "ascend", "device_id": 3, "visible_devices": (6,)}, r"NPU 3, but sees only \[6\]"),
        ({"device": "ascend", "device_id": 3, "rank_table_path": "/t.txt"}, "does not end in .json"),
        ({"device": "ascend", "device_id": 3, "rank_table_path": "/a.json/t.json"}, "contains .json twice"),
        ({"device": "cpu", "rendezvous": "rank_table"}, "needs device ascend"),
        ({"device": "ascend", "device_id": 3, "rendezvous": "store"}, "store; it needs device cpu"),
        ({"device": "cpu", "rank": 16}, "ranks go from 0"),
        ({"device": "cpu", "threads": 0}, "threads is 0"),
        ({"device": "cpu", "scheduler_port": 0}, "port is 0"),
        ({"device": "cpu", "failure_budget_s": 0}, "failure budget is 0"),
    ],
)
def test_values_that_contradict_each_other_are_refused(change, reported):
    with pytest.raises(InputError, match=reported):
        rank_environment(**{**RANK_5_OF_16, **change})


@pytest.mark.parametrize(
    ("budget_s", "soc", "expected"),
    [
        (20, "910b", Timeouts(topology=120, heartbeat=20, hccl_connect=120, hccl_exec=20)),
        (20, "910a", Timeouts(topology=120, heartbeat=20, hccl_connect=120, hccl_exec=68)),
        (203.5, "910a", Timeouts(topology=204, heartbeat=204, hccl_connect=204, hccl_exec=204)),
        (203, "910a", Timeouts(topology=203, heartbeat=203, hccl_connect=203, hccl_exec=136)),
        (9000, "a3", Timeouts(topology=9000, heartbeat=9000, hccl_connect=7200, hccl_exec=9000)),
        (20_000, "910a", Timeouts(topology=20_000, heartbeat=20_000, hccl_connect=7200, hccl_exec=17_340)),
        (0.5, "910b", Timeouts(topology=120, heartbeat=5, hccl_connect=120, hccl_exec=1)),
    ],
)
def test_timeouts_follow_one_budget_within_hccls_ranges(budget_s, soc, expected):
    assert timeouts(budget_s, soc) == expected


def test_ranks_run_on_the_cpus_of_the_node_of_their_device():
    cpus = {0: [0, 1, 2, 3], 1: [4, 5, 6, 7, 8]}
    assert cpus_of_ranks(numa_cpus=cpus, rank_nodes=[1, 0, 1]) == [(4, 5), (0, 1, 2, 3), (6, 7, 8)]


def test_ranks_without_a_known_node_share_every_cpu():
    assert cpus_of_ranks(numa_cpus={0: [0, 1], 1: [2, 3]}, rank_nodes=[None, 7]) == [(0, 1), (2, 3)]


def test_more_ranks_than_cpus_all_run_somewhere():
    assert cpus_of_ranks(numa_cpus={0: [3]}, rank_nodes=[0, 0]) == [(3,), (3,)]


def test_a_host_without_cpus_is_refused():
    with pytest.raises(InputError, match="no CPU"):
        cpus_of_ranks(numa_cpus={0: []}, rank_nodes=[0])


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    nodes=st.lists(st.one_of(st.none(), st.integers(-1, 5)), min_size=1, max_size=16),
)
def test_every_rank_has_a_cpu_and_ranks_of_a_node_with_enough_never_share(sizes, nodes):
    numa = {node: [100 * node + cpu for cpu in range(size)] for node, size in enumerate(sizes)}
    if not any(sizes):
        return
    shares = cpus_of_ranks(numa_cpus=numa, rank_nodes=nodes)
    assert all(shares)
    for node, cpus in numa.items():
        on_node = [share for share, own in zip(shares, nodes, strict=True) if own == node and cpus]
        if 0 < len(on_node) <= len(cpus):
            assert sorted(cpu for share in on_node for cpu in share) == cpus
