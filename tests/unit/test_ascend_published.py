"""A rank table and a folder make the job that the published run_train.sh ran."""

import pytest

from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.placement import AscendHost, Npu, place
from orchestrator.ascend.rank_table.merge import merge_rank_tables
from orchestrator.ascend.rank_table.table import build_rank_table
from orchestrator.errors import InputError
from orchestrator.job.planned_ranks import ascend_places
from orchestrator.job.spec.job_spec import spec_from_dict
from orchestrator.job.spec.published import job_of_rank_table


def table(number, devices, ip="192.168.{}.{}", pod=None):
    npus = tuple(
        Npu(
            device_id=d,
            device_ip=ip and ip.format(number, d + 1),
            super_device_id=None if pod is None else 16 * number + d,
        )
        for d in devices
    )
    soc: Soc = "910b" if pod is None else "a3"
    host = AscendHost(address=f"10.0.0.{number}", npus=npus, super_pod_id=pod)
    return build_rank_table(place([host], len(npus), soc), soc)


@pytest.fixture
def data(tmp_path):
    for name in ("train.npz", "test.npz"):
        (tmp_path / name).touch()
    return tmp_path


def test_eight_devices_of_one_host_train_as_published(data):
    spec = spec_from_dict(job_of_rank_table(table(1, range(8)), data), "--rank-table")
    cluster = spec.cluster
    assert (cluster.address, cluster.device, cluster.soc) == ("local", "ascend", "910a")
    assert (cluster.workers, cluster.workers_per_host) == (8, 8)
    assert cluster.hosts[0].address == "10.0.0.1"
    assert cluster.hosts[0].devices[7] == "192.168.1.8"
    assert (spec.train.epochs, spec.train.batch, spec.train.lr) == (20, 500, 0.01)
    assert (spec.data.prepared, spec.data.images) == (str(data), None)


def test_hosts_of_a_merged_table_join_one_ray_cluster(data):
    both = merge_rank_tables([table(1, range(3)), table(2, range(4))])
    cluster = spec_from_dict(job_of_rank_table(both, data), "--rank-table").cluster
    assert (cluster.address, cluster.workers, cluster.workers_per_host, cluster.soc) == ("auto", 7, 4, "910b")


def test_a_super_pod_is_an_a3_job(data):
    assert job_of_rank_table(table(1, range(2), pod="0"), data)["cluster"]["soc"] == "a3"


def test_a_folder_without_npz_files_is_a_tree_of_images(tmp_path):
    job = job_of_rank_table(table(1, [0]), tmp_path)
    assert (job["data"], job["train"]["lr"]) == ({"images": str(tmp_path)}, 0.004)


def test_what_cannot_be_run_is_refused(data):
    with pytest.raises(InputError, match="nowhere is not a directory"):
        job_of_rank_table(table(1, [0]), data / "nowhere")


def test_a_device_without_an_address_is_legal_on_the_only_server(data):
    job = job_of_rank_table(table(1, [0], ip=None), data)
    hosts = spec_from_dict(job, "--rank-table").cluster.hosts
    assert [dict(host.devices) for host in hosts] == [{0: ""}]
    (place,) = ascend_places(spec_from_dict(job, "--rank-table").cluster)
    built = build_rank_table([place], "910a").to_dict()
    assert built["server_list"][0]["device"] == [{"device_id": "0", "rank_id": "0"}]


def test_a_pod_of_servers_without_addresses_is_refused_by_name(data):
    pods = [table(number, [0], ip=None, pod="0") for number in (1, 2)]
    with pytest.raises(InputError, match=r"device 0 of server 0/10.0.0.1 has no device_ip"):
        job_of_rank_table(merge_rank_tables(pods), data)


@pytest.mark.parametrize(
    ("devices", "soc"), [([0, 1], "910a"), ([3, 4], "910b"), ([0, 1, 2], "910b"), (range(16), "910b")]
)
def test_the_chip_is_the_oldest_that_may_build_the_groups(data, devices, soc):
    assert job_of_rank_table(table(1, devices), data)["cluster"]["soc"] == soc
