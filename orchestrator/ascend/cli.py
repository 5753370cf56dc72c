"""`sdnet-orchestrate rank-table`: build, merge, validate and show rank tables, without a cluster."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.inventory import ids_in_list, take_inventory
from orchestrator.ascend.placement import AscendHost, place
from orchestrator.ascend.rank_table import (
    RankTable,
    build_rank_table,
    merge_rank_tables,
    read_rank_table,
    read_table_text,
)
from orchestrator.ascend.rank_table_rules import faults_in_text
from orchestrator.run_directory import write_atomically
from orchestrator.spec import load_spec
from sdnet.errors import InputError
from sdnet.paths import path_option

rank_table_app = typer.Typer(
    help="Build, merge, validate and show HCCL rank tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console()

AnySocOption = Annotated[
    Soc | None,
    typer.Option("--soc", help="Apply this chip's group rules too; left out, only the general ones."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Write the table here (.json); left out, print it.", callback=path_option),
]
TableFile = Annotated[Path, typer.Argument(metavar="FILE", help="A rank table, .json.", callback=path_option)]


@rank_table_app.command(epilog="Example: sdnet-orchestrate rank-table build cluster.yaml --out hccl.json")
def build(
    job: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CLUSTER_YAML]",
            help="A job with `hosts`; left out, this host is asked.",
            callback=path_option,
        ),
    ] = None,
    address: Annotated[
        str, typer.Option(help="This host's address in the table, when it is asked.")
    ] = "127.0.0.1",
    devices: Annotated[
        str | None, typer.Option(help="Take only these of this host, by physical id, as 0-3,6.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Ranks; left out, the job's, or one for each device.")
    ] = None,
    soc: Annotated[Soc | None, typer.Option(help="The chip; left out, the job's, or 910b.")] = None,
    out: OutOption = None,
) -> None:
    """Build a table for the hosts of a job, or for this host as its tools describe it."""
    cluster = None if job is None else load_spec(job).cluster
    chip: Soc = soc or (cluster.soc if cluster else "910b")
    if cluster is not None and devices is not None:
        raise InputError(
            f"--devices {devices} is for this host alone; {job} names its devices in cluster.hosts"
        )
    if cluster is None:
        host = _this_host(address, devices)
        places = place([host], workers or len(host.usable), chip)
    elif cluster.hosts:
        hosts = [AscendHost.stated(host.address, host.devices) for host in cluster.hosts]
        places = place(hosts, workers or cluster.max_workers, chip, cluster.workers_per_host)
    else:
        raise InputError(f"{job} names no cluster.hosts; give them, or run `rank-table build` on each host")
    _emit(build_rank_table(places, chip), out)


@rank_table_app.command(
    epilog="Example: sdnet-orchestrate rank-table merge a.json b.json --out hccl_16p.json"
)
def merge(
    tables: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Tables of single servers.", callback=path_option)
    ],
    soc: AnySocOption = None,
    out: OutOption = None,
) -> None:
    """Make one table of several, numbered anew in dictionary order of server_id."""
    _emit(merge_rank_tables([read_rank_table(path) for path in tables], soc), out)


@rank_table_app.command(epilog="Example: sdnet-orchestrate rank-table validate hccl_8p.json --soc 910a")
def validate(
    table: TableFile,
    soc: AnySocOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Check a table against every rule of HCCL; exit code 2 and every fault when it breaks one."""
    faults = faults_in_text(read_table_text(table), soc)
    if as_json:
        listed = [
            {"code": fault.code, "path": fault.path, "value": repr(fault.value), "fix": fault.fix}
            for fault in faults
        ]
        print(json.dumps({"file": str(table), "legal": not faults, "faults": listed}))
    else:
        for fault in faults:
            print(f"{table}: {fault}")
        if not faults:
            print(f"{table}: legal{f' on {soc}' if soc else ''}")
    if faults:
        raise typer.Exit(2)


@rank_table_app.command(epilog="Example: sdnet-orchestrate rank-table show hccl_8p.json")
def show(table: TableFile) -> None:
    """Draw hosts, device groups and ranks."""
    read = read_rank_table(table)
    tree = Tree(
        f"{table.name}: version {read.version}, {read.world_size} ranks on {len(read.servers)} server(s)"
    )
    pod_of = {server: pod.super_pod_id for pod in read.super_pods for server in pod.server_ids}
    branches = {pod.super_pod_id: tree.add(f"super pod {pod.super_pod_id}") for pod in read.super_pods}
    rank = 0
    for server in read.servers:
        branch = branches[pod_of[server.server_id]] if read.super_pods else tree
        group = ",".join(str(device.device_id) for device in server.devices)
        host = "" if server.host_ip in (None, server.server_id) else f" ({server.host_ip})"
        drawn = Table("rank", "device", "address", *(["super device"] if read.super_pods else []))
        for device in server.devices:
            pod_cell = [str(device.super_device_id)] if read.super_pods else []
            drawn.add_row(str(rank), str(device.device_id), device.device_ip or "-", *pod_cell)
            rank += 1
        branch.add(f"server {server.server_id}{host}, devices {{{group}}}").add(drawn)
    console.print(tree)


def _this_host(address: str, devices: str | None) -> AscendHost:
    found = take_inventory(address)
    if not found.devices:
        raise InputError(
            "this host shows no Ascend device: " + ("; ".join(found.problems) or "no NPU listed")
        )
    if devices is not None:
        wanted = ids_in_list(devices)
        there = [device.device_id for device in found.devices]
        if not wanted or not set(wanted) <= set(there):
            raise InputError(f"--devices {devices}: this host has {there}; name some of them, as 0-3,6")
        found = found.only(wanted)
    return found.host(needs_network=True)


def _emit(table: RankTable, out: Path | None) -> None:
    if out is None:
        print(table.to_json(), end="")
        return
    if out.suffix != ".json":
        raise InputError(f"--out {out} does not end in .json; HCCL reads no other name")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, table.to_json())
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); give a writable path") from None
    print(f"wrote {out}: {table.world_size} ranks on {len(table.servers)} server(s)")
