"""Rank tables in the old group_list form, as `rank_table_cases`."""

from tests.unit.rank_table_builders import GONE, LEGAL, Case, changed, cloud, in_cloud, in_lab
from tests.unit.rank_tables import CLOUD_FORM, LAB_FORM, pod

LONE = cloud(
    group_list=[
        {
            "group_name": "g", "device_count": "2", "instance_count": "1",
            "instance_list": [
                {"pod_name": "p", "server_id": "a", "devices": [{"device_id": "1"}, {"device_id": "0"}]}
            ],
        }
    ]
)  # fmt: skip
TWO_GROUPS = cloud(
    group_count="2",
    group_list=[
        {**CLOUD_FORM["group_list"][0], "group_name": "x", "device_count": "1", "instance_count": "1",
         "instance_list": [pod("p1", "b", ("0", "10.1.1.2"))]},
        {**CLOUD_FORM["group_list"][0], "group_name": "y", "device_count": "1", "instance_count": "1",
         "instance_list": [pod("p2", "a", ("3", "10.1.1.1"))]},
    ],
)  # fmt: skip

CASES: dict[str, Case] = {
    # The old form as ModelArts writes it.
    "cloud": (CLOUD_FORM, "910a", "EI0014", "device"),
    "cloud on any chip": (CLOUD_FORM, None, LEGAL, ""),
    "cloud, several groups": (TWO_GROUPS, "910a", LEGAL, ""),
    "cloud, one pod without addresses": (LONE, None, LEGAL, ""),
    "cloud, initializing": (cloud(status="initializing", group_list=[]), None, "EI0014", "not ready"),
    "cloud, no status": (changed(CLOUD_FORM, "status", GONE), None, "EI0017", "status"),
    "cloud, no groups": (cloud(group_list=[]), None, "EI0014", "group_list"),
    "cloud, no group_count": (changed(CLOUD_FORM, "group_count", GONE), None, "EI0017", "group_count"),
    "cloud, wrong group_count": (cloud(group_count="2"), None, "EI0014", "group_count"),
    "cloud, group_count is a number": (cloud(group_count=1), None, "EI0017", "group_count"),
    "cloud, no group_name": (in_cloud("group_name", GONE), None, "EI0017", "group_name"),
    "cloud, group_name twice": (
        changed(TWO_GROUPS, "group_list/1/group_name", "x"), None, "EI0014", "group_name",
    ),
    "cloud, wrong instance_count": (in_cloud("instance_count", "1"), None, "EI0014", "instance_count"),
    "cloud, no instance_count": (in_cloud("instance_count", GONE), None, "EI0017", "instance_count"),
    "cloud, wrong device_count": (in_cloud("device_count", "8"), None, "EI0014", "device_count"),
    "cloud, device_count is a number": (in_cloud("device_count", 3), None, "EI0017", "device_count"),
    "cloud, no instance_list": (in_cloud("instance_list", GONE), None, "EI0017", "instance_list"),
    "cloud, no pod_name": (in_cloud("instance_list/0/pod_name", GONE), None, "EI0017", "pod_name"),
    "cloud, pod_name twice": (in_cloud("instance_list/0/pod_name", "job-0"), None, "EI0014", "pod_name"),
    "cloud, no server_id": (in_cloud("instance_list/0/server_id", GONE), None, "EI0017", "server_id"),
    "cloud, an instance is a string": (in_cloud("instance_list/0", "p"), None, "EI0017", "instance_list[0]"),
    "cloud, a device is a string": (
        in_cloud("instance_list/0/devices/0", "4"), None, "EI0017", "devices[0]",
    ),
    "cloud, a group is a string": (cloud(group_list=["g"]), None, "EI0017", "group_list[0]"),
    "cloud, no devices": (in_cloud("instance_list/0/devices", []), None, "EI0014", "devices"),
    "cloud, device 8": (in_cloud("instance_list/0/devices/0/device_id", "8"), "910b", "EI0014", "device_id"),
    "cloud, no device_ip": (
        in_cloud("instance_list/0/devices/0/device_ip", GONE), None, "EI0017", "device_ip",
    ),
    "cloud, device_ip twice": (
        in_cloud("instance_list/0/devices/0/device_ip", "192.1.25.6"), None, "EI0014", "device_ip",
    ),
    "cloud, two pods hold one device": (
        in_cloud("instance_list", [pod("p", "a", ("0", "10.1.1.1")), pod("q", "a", ("0", "10.1.1.2"))]),
        None, "EI0014", "device_id",
    ),
    # The old form with a deploy_mode.
    "lab": (LAB_FORM, "910a", LEGAL, ""),
    "lab, no group_name": (in_lab("group_name", GONE), None, "EI0017", "group_name"),
    "lab, no nic location": (
        changed(LAB_FORM, "para_plane_nic_location", GONE), None, "EI0017", "para_plane_nic_location",
    ),
    "lab, nic on the host": (
        changed(LAB_FORM, "para_plane_nic_location", "host"), None, "EI0014", "para_plane_nic_location",
    ),
    "lab, no device_num": (in_lab("device_num", GONE), None, "EI0017", "device_num"),
    "lab, wrong device_num": (in_lab("device_num", "8"), None, "EI0014", "device_num"),
    "lab, no server_num": (in_lab("server_num", GONE), None, "EI0017", "server_num"),
    "lab, wrong server_num": (in_lab("server_num", "2"), None, "EI0014", "server_num"),
    "lab, no rank_id": (in_lab("instance_list/0/rank_id", GONE), None, "EI0017", "rank_id"),
    "lab, rank_id twice": (in_lab("instance_list/0/rank_id", "1"), None, "EI0014", "rank_id"),
    "lab, two devices an instance": (
        in_lab("instance_list/0/devices", [{"device_id": "0", "device_ip": ""}] * 2),
        None, "EI0014", "devices",
    ),
    "lab, no device_ip": (in_lab("instance_list/0/devices/0/device_ip", GONE), None, "EI0017", "device_ip"),
    "cloud with a deploy_mode": (cloud(deploy_mode="cloud"), None, "EI0017", "para_plane_nic_location"),
}  # fmt: skip
