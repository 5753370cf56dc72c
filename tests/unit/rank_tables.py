"""Rank tables that HCCL takes, and hosts to build more of them from."""

from typing import Any

from orchestrator.ascend.placement import AscendHost, Npu, place
from orchestrator.ascend.rank_table.table import build_rank_table


def host(number, devices=range(8), pod=None, ip="192.168.{}.{}"):
    npus = tuple(
        Npu(
            device_id=device,
            device_ip=ip.format(number % 250, number // 250 * 20 + device + 1),
            super_device_id=None if pod is None else number * 16 + device,
        )
        for device in devices
    )
    return AscendHost(address=f"172.16.{number // 250}.{number % 250}", npus=npus, super_pod_id=pod)


def built(hosts, workers, soc="910b"):
    return build_rank_table(place(hosts, workers, soc), soc)


def device(device_id, ip, rank, **more):
    return {"device_id": device_id, "device_ip": ip, **more, "rank_id": rank}


TWO_SERVERS: dict[str, Any] = {
    "status": "completed",
    "version": "1.0",
    "server_count": "2",
    "server_list": [
        {
            "server_id": "172.16.0.110",
            "host_ip": "172.16.0.110",
            "device": [device("0", "192.168.110.1", "0"), device("1", "192.168.110.2", "1")],
        },
        {
            "server_id": "172.16.0.111",
            "host_ip": "172.16.0.111",
            "device": [device("0", "192.168.111.1", "2"), device("1", "192.168.111.2", "3")],
        },
    ],
}
TWO_PODS: dict[str, Any] = {
    "status": "completed",
    "version": "1.2",
    "server_count": "3",
    "server_list": [
        {
            "server_id": f"{pod}/172.16.0.{number}",
            "host_ip": f"172.16.0.{number}",
            "device": [
                device("0", f"192.168.{number}.1", str(2 * index), super_device_id=str(16 * number)),
                device("1", f"192.168.{number}.2", str(2 * index + 1), super_device_id=str(16 * number + 1)),
            ],
        }
        for index, (pod, number) in enumerate([("0", 2), ("0", 3), ("1", 1)])
    ],
    "super_pod_list": [
        {
            "super_pod_id": "0",
            "server_list": [{"server_id": "0/172.16.0.2"}, {"server_id": "0/172.16.0.3"}],
        },
        {"super_pod_id": "1", "server_list": [{"server_id": "1/172.16.0.1"}]},
    ],
}
# As MindSpore's early hccl_tools wrote it: a `deploy_mode`, and a rank for each device.
LAB_FORM: dict[str, Any] = {
    "board_id": "0x0020",
    "chip_info": "910",
    "deploy_mode": "lab",
    "group_count": "1",
    "group_list": [
        {
            "device_num": "2",
            "server_num": "1",
            "group_name": "",
            "instance_count": "2",
            "instance_list": [
                {
                    "devices": [{"device_id": str(i), "device_ip": f"192.{i}.27.6"}],
                    "rank_id": str(i),
                    "server_id": "10.1.1.4",
                }
                for i in (0, 1)
            ],
        }
    ],
    "para_plane_nic_location": "device",
    "para_plane_nic_name": ["eth0", "eth1"],
    "para_plane_nic_num": "2",
    "status": "completed",
}


def pod(name, server_id, *devices):
    """An instance of the cloud form; a device is (device_id, device_ip)."""
    return {
        "pod_name": name,
        "server_id": server_id,
        "devices": [{"device_id": number, "device_ip": ip} for number, ip in devices],
    }


# As ModelArts writes jobstart_hccl.json; HCCL numbers it by (server_id, device_id).
CLOUD_FORM: dict[str, Any] = {
    "status": "completed",
    "group_count": "1",
    "group_list": [
        {
            "group_name": "job-trainjob",
            "device_count": "3",
            "instance_count": "2",
            "instance_list": [
                pod("job-1", "192.168.0.27", ("5", "192.1.27.5"), ("4", "192.1.27.4")),
                pod("job-0", "192.168.0.25", ("6", "192.1.25.6")),
            ],
        }
    ],
}
