"""Judges the facts about hosts: each finding is ok, a warning or a failure. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.ascend.inventory.device_report import DeviceReport, HostInventory, hosts_to_place_on, soc_of
from orchestrator.ascend.inventory.host_tools import CANN_PLACES
from orchestrator.ascend.placement import largest_group, place
from orchestrator.ascend.rank_table.table import build_rank_table
from orchestrator.check.facts import HCCL_BASE_PORT, HCCL_PORTS, HostFacts
from orchestrator.engine.control.size import RankNeeds, room_of
from orchestrator.engine.host.every_host import Answer
from orchestrator.errors import InputError
from orchestrator.job.spec.job_spec import ClusterSpec

State = Literal["ok", "warn", "fail"]

# Events of different hosts are sorted by their time of day.
_SKEW_WARN_S, _SKEW_FAIL_S = 1.0, 10.0
_SLOW_STORAGE_MB_S = 50.0
# Ray keeps objects there; below this it falls back to the disk.
_SHARED_MEMORY_BYTES = 2**30
_MUST_AGREE = ("python", "sdnet-orchestrator", "mindspore", "ray", "cann")


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes that the job needs: disk of its storage, and memory of each rank (estimates of `plan`)."""

    disk: int
    memory_per_rank: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the report: the host, the check, its result, what was seen, and what to do."""

    host: str
    check: str
    state: State
    seen: str
    remedy: str = ""


def judge_host(
    answer: Answer[HostFacts], reference: HostFacts | None, cluster: ClusterSpec, needs: Needs, several: bool
) -> Iterator[Finding]:
    """Findings about one host. reference: the facts of the first host, which the others must agree with."""
    host, facts = answer.address, answer.value
    if facts is None or reference is None:
        yield Finding(
            host, "answer", "fail", answer.error, "look at the host: is it up, and what does Ray's log say?"
        )
        return
    yield _versions(host, facts, reference)
    yield _clock(answer, facts)
    yield from _storage(host, facts, needs)
    yield from _room(host, facts, cluster, needs)
    yield _left_over(host, facts)
    if facts.inventory is not None:
        yield from _devices(host, facts.inventory, cluster, several)
        yield _ports(host, facts)


def judge_capacity(resources: Mapping[str, Mapping[str, float]], cluster: ClusterSpec) -> Finding:
    """Whether Ray's resources are enough for the job. resources: those of each host, as Ray counts them."""
    name, each = cluster.rank_resource
    counted = sum(int(found.get(name, 0)) for found in resources.values())
    room = room_of(list(resources.values()), RankNeeds({name: each}, cluster.workers_per_host))
    seen = f"{counted} {name}s on {len(resources)} host(s), the job takes {cluster.workers}"
    if each > 1:
        seen += f" times {each}"
    if room >= cluster.min_workers:
        return Finding("cluster", "Ray", "ok", seen)
    remedy = "lower cluster.workers or threads, raise workers_per_host, or add hosts"
    if name == "NPU" and not room:
        remedy = "Ray counts /dev/davinci*; in a container, ray start --resources='{\"NPU\": 8}'"
    return Finding("cluster", "Ray", "fail", seen, remedy)


def judge_group(inventories: Sequence[HostInventory], cluster: ClusterSpec) -> Finding:
    """Whether these hosts can form a legal group for the job. One below the job's maximum is a warning."""
    hosts = hosts_to_place_on(inventories)
    ranks = largest_group(hosts, cluster.max_workers, cluster.soc, cluster.workers_per_host)
    try:
        # An elastic job starts with the ranks that fit. A job of fixed size is refused with the reason.
        wanted = max(ranks, cluster.min_workers)
        places = place(hosts, wanted, cluster.soc, cluster.workers_per_host)
        table = build_rank_table(places, cluster.soc)
    except InputError as error:
        seen, _, remedy = str(error).rpartition("; ")
        return Finding("cluster", "group", "fail", seen or str(error), remedy)
    seen = f"{table.world_size} ranks on {len(table.servers)} host(s)"
    if table.world_size < cluster.max_workers:
        return Finding("cluster", "group", "warn", seen, f"the job could take {cluster.max_workers}")
    return Finding("cluster", "group", "ok", seen)


def _versions(host: str, facts: HostFacts, reference: HostFacts) -> Finding:
    seen = ", ".join(f"{name} {version or 'missing'}" for name, version in facts.versions.items())
    missing = [name for name in _MUST_AGREE if name in facts.versions and facts.versions[name] is None]
    if missing:
        remedy = f"install {', '.join(missing)}"
        if "cann" in missing:
            remedy += f", or source CANN's set_env.sh before Ray starts; looked in {', '.join(CANN_PLACES)}"
        return Finding(host, "versions", "fail", seen, remedy)
    other = [name for name in _MUST_AGREE if facts.versions.get(name) != reference.versions.get(name)]
    if other:
        versions = ", ".join(f"{name} {reference.versions.get(name)}" for name in other)
        return Finding(host, "versions", "fail", seen, f"the first host has {versions}; install the same")
    if facts.versions.get("driver") != reference.versions.get("driver"):
        remedy = f"the first host has driver {reference.versions.get('driver')}; use the same on every host"
        return Finding(host, "versions", "warn", seen, remedy)
    if facts.stale_cann:
        remedy = f"no CANN is at {', '.join(facts.stale_cann)}; source the set_env.sh of the installed CANN"
        return Finding(host, "versions", "warn", seen, remedy)
    return Finding(host, "versions", "ok", seen)


def _clock(answer: Answer[HostFacts], facts: HostFacts) -> Finding:
    """The clock's offset, computed as in NTP. Its uncertainty is half of the travel time of question and answer."""
    began, ended = facts.clock
    offset = ((began - answer.asked) + (ended - answer.answered)) / 2
    doubt = max(0.0, (answer.answered - answer.asked) - (ended - began)) / 2
    least = max(0.0, abs(offset) - doubt)
    seen = f"{offset:+.1f} s, give or take {doubt:.1f} s"
    if least < _SKEW_WARN_S:
        return Finding(answer.address, "clock", "ok", seen)
    state: State = "fail" if least >= _SKEW_FAIL_S else "warn"
    return Finding(answer.address, "clock", state, seen, "let chrony or ntpd set the clock")


def _storage(host: str, facts: HostFacts, needs: Needs) -> Iterator[Finding]:
    storage = facts.storage
    if storage.error:
        yield Finding(
            host, "storage", "fail", storage.error, "mount the same directory at the same path on every host"
        )
        return
    speed = f"writes {storage.write_mb_s:.0f} MB/s, reads {storage.read_mb_s:.0f} MB/s"
    slow = min(storage.write_mb_s, storage.read_mb_s) < _SLOW_STORAGE_MB_S
    remedy = "checkpoints and data will wait for it; use faster storage" if slow else ""
    yield Finding(host, "storage", "warn" if slow else "ok", speed, remedy)
    short = storage.free_bytes < needs.disk
    seen = f"{_gib(storage.free_bytes)} free on storage, {_gib(needs.disk)} needed"
    yield Finding(
        host, "disk", "fail" if short else "ok", seen, "free some, or give another `storage`" if short else ""
    )


def _room(host: str, facts: HostFacts, cluster: ClusterSpec, needs: Needs) -> Iterator[Finding]:
    small = facts.shared_memory_free < _SHARED_MEMORY_BYTES
    seen = f"{_gib(facts.shared_memory_free)} of {_gib(facts.shared_memory_total)} free"
    remedy = "give the container more, as --shm-size=8g" if small else ""
    yield Finding(host, "shared memory", "warn" if small else "ok", seen, remedy)
    ranks = cluster.workers_per_host or (cluster.max_workers if cluster.address == "local" else 1)
    wanted = ranks * needs.memory_per_rank
    short = facts.memory_total < wanted
    seen = f"{_gib(facts.memory_total)}, about {_gib(wanted)} for {ranks} rank(s)"
    remedy = "lower workers_per_host, or give the container more memory" if short else ""
    yield Finding(host, "memory", "warn" if short else "ok", seen, remedy)
    if facts.data_present is None:
        yield Finding(host, "data", "ok", "synthetic pairs, made when the job runs")
    elif facts.data_present:
        yield Finding(host, "data", "ok", "there")
    else:
        yield Finding(host, "data", "fail", "not there", "mount data.images at the same path on every host")


def _left_over(host: str, facts: HostFacts) -> Finding:
    if not facts.left_over:
        return Finding(host, "left-over processes", "ok", "none")
    named = ", ".join(f"{item.pid} {item.name} of {item.run}" for item in facts.left_over)
    if facts.cleaned:
        return Finding(host, "left-over processes", "ok", f"ended {named}")
    return Finding(host, "left-over processes", "fail", named, "end them: check --clean")


def _devices(host: str, inventory: HostInventory, cluster: ClusterSpec, several: bool) -> Iterator[Finding]:
    for problem in inventory.problems:
        yield Finding(
            host, "tools", "warn", problem.removeprefix(f"{host}: "), "see docs/cluster_yaml.md, hosts"
        )
    if not inventory.devices:
        yield Finding(host, "devices", "fail", "none", "is the driver installed, and npu-smi on PATH?")
        return
    judged = [_device(host, device, cluster, several) for device in inventory.devices]
    well = sum(finding.state == "ok" for finding in judged)
    models = Counter(device.model for device in inventory.devices)
    seen = f"{well} of {len(judged)} well: " + ", ".join(
        f"{count} x {model}" for model, count in models.items()
    )
    yield Finding(host, "devices", "ok" if well else "fail", seen, "" if well else "see the rows below")
    links = Counter(device.link or "unknown" for device in inventory.devices)
    seen = ", ".join(f"{count} {link}" for link, count in sorted(links.items()))
    # The ranks of one host reach each other without the devices' own ports.
    sound = not several or set(links) == {"UP"}
    remedy = "" if sound else "hccn_tool -i <device> -link -g; cable?"
    yield Finding(host, "links", "ok" if sound else "warn", seen, remedy)
    yield from (finding for finding in judged if finding.state != "ok")


def _device(host: str, device: DeviceReport, cluster: ClusterSpec, several: bool) -> Finding:
    check = f"NPU {device.device_id}"
    same = device.number_in_cann == device.device_id
    number = "" if same else f"{device.number_in_cann} for CANN and Ray, "
    memory = "" if device.hbm_total_mb is None else f", {device.hbm_used_mb} of {device.hbm_total_mb} MB HBM"
    link = f", link {device.link or 'unknown'}, network {device.net_health or 'unknown'}"
    codes = "".join(f", {fault} ({fault.level.name})" for fault in device.faults)
    seen = f"{number}{device.model}, {device.health}{codes}{memory}, {device.address or 'no address'}{link}"
    worst = next(iter(device.faults_of_interest(needs_network=several)), None)
    if reason := device.unusable(needs_network=several):
        return Finding(host, check, "fail", seen, f"{reason}: {worst.level.action}" if worst else reason)
    if device.address is None and several and device.super_pod_id is None:
        return Finding(
            host, check, "fail", seen, "HCCL needs its address: hccn_tool, /etc/hccn.conf, or `hosts`"
        )
    family = soc_of(device.model)
    if family not in (None, cluster.soc):
        return Finding(host, check, "fail", seen, f"this is a {family}; set cluster.soc to it")
    if family is None:
        return Finding(host, check, "warn", seen, "this model is not known; make sure of cluster.soc")
    return Finding(host, check, "warn" if worst else "ok", seen, worst.level.action if worst else "")


def _ports(host: str, facts: HostFacts) -> Finding:
    last = HCCL_BASE_PORT + HCCL_PORTS - 1
    if not facts.busy_ports:
        return Finding(host, "ports", "ok", f"{HCCL_BASE_PORT}-{last} free")
    seen = "taken: " + ", ".join(f"{port} {status}" for port, status in facts.busy_ports.items())
    if "LISTEN" in facts.busy_ports.values():
        return Finding(host, "ports", "fail", seen, "end what listens there, or set HCCL_IF_BASE_PORT")
    # Unless these ports are reserved, the kernel may give them to any outgoing connection.
    remedy = f"sysctl net.ipv4.ip_local_reserved_ports={HCCL_BASE_PORT}-{last}"
    return Finding(host, "ports", "warn", seen, remedy)


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
