"""`sdnet-orchestrate rank-table`: build, merge, validate and show rank tables, without a cluster."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from orchestrator.ascend.device_groups import SOCS, Soc
from orchestrator.ascend.inventory.device_ids import note_on_visible
from orchestrator.ascend.inventory.device_report import HostInventory, is_another_chip, meant_chip, soc_of
from orchestrator.ascend.inventory.host_inventory import take_inventory
from orchestrator.ascend.inventory.id_lists import stated_ids
from orchestrator.ascend.placement import AscendHost, place
from orchestrator.ascend.rank_table.fault import Fault
from orchestrator.ascend.rank_table.merge import merge_rank_tables, warnings_in_merged
from orchestrator.ascend.rank_table.rules import judge_text
from orchestrator.ascend.rank_table.table import (
    RankTable,
    TableDevice,
    TableServer,
    build_rank_table,
    read_rank_table,
)
from orchestrator.ascend.rank_table.text import read_table_text, resolved_path, why_hccl_skips_path
from orchestrator.cli.options import AsJson, console
from orchestrator.errors import InputError
from orchestrator.job.run_directory import write_atomically
from orchestrator.job.spec.job_spec import load_spec
from sdnet.cli.path_option import path_option
from sdnet.errors import one_line
from sdnet.files import check_place, refuse_replaced_input

rank_table_app = typer.Typer(
    help="Build, merge, validate and show HCCL rank tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_THIS_HOST = "127.0.0.1"
# For 10,000 ranks rich needs 6 s of CPU to draw boxes.
_MOST_BOXED = 512
_CHIPS = f"<{'|'.join(SOCS)}>"


def _chip_option(text: str) -> Soc:
    """Parser of `--soc`; a refused value gets the same hint as `cluster.soc` of a job."""
    chip = next((soc for soc in SOCS if soc == text), None)
    if chip is None:
        must = f"it must be {', '.join(map(repr, SOCS[:-1]))} or {SOCS[-1]!r}"
        raise InputError(f"{text[:80]!r}; {meant_chip(text) or must}")
    return chip


AnySocOption = Annotated[
    Soc | None,
    typer.Option(
        "--soc",
        metavar=_CHIPS,
        parser=_chip_option,
        help="Apply this chip's group rules too; left out, only the general ones.",
    ),
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
        str | None,
        typer.Option(help="This host's address in the table, when it is asked.", show_default=_THIS_HOST),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(help="Take only these, by physical id (/dev/davinci*), as 0-3,6."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Ranks; left out, the job's, or one for each device.")
    ] = None,
    soc: Annotated[
        Soc | None,
        typer.Option(
            metavar=_CHIPS, parser=_chip_option, help="The chip; left out, the job's or this host's."
        ),
    ] = None,
    out: OutOption = None,
) -> None:
    """Build a table for the hosts of a job, or for this host as its tools describe it."""
    cluster = None if job is None else load_spec(job).cluster
    chip: Soc = soc or (cluster.soc if cluster else "910b")
    for option, value, key in (("--devices", devices, "devices"), ("--address", address, "addresses")):
        if cluster is not None and value is not None:
            raise InputError(
                f"{option} {value} is for this host alone; {job} names its {key} in cluster.hosts"
            )
    if cluster is None:
        found = _this_host(address or _THIS_HOST, devices)
        chip = _chip_of(found, soc)
        # A single host needs no cables. `check` tests whether hosts reach each other.
        host = found.host(needs_network=False).on_chip(chip)
        # If none is usable, ask for all: the error then says why each is left out.
        ranks = workers or len(host.usable) or len(host.npus)
        places = place([host], ranks, chip, setting="--workers")
        _warn_of_missing(found, host)
    elif cluster.hosts:
        hosts = [AscendHost.stated(host.address, host.devices) for host in cluster.hosts]
        setting = "--workers" if workers else "cluster.workers"
        ranks = workers or cluster.max_workers
        places = place(hosts, ranks, chip, cluster.workers_per_host, setting=setting)
    else:
        raise InputError(f"{job} names no cluster.hosts; give them, or run `rank-table build` on each host")
    _emit(build_rank_table(places, chip), out, *(() if job is None else (job,)))


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
    """Merge several tables into one; ranks are renumbered in the order of the files."""
    read = [read_rank_table(path) for path in tables]
    merged = merge_rank_tables(read, soc, tables)
    for warning in warnings_in_merged(merged, read, soc, tables):
        typer.echo(f"merged rank table: warning: {warning}", err=True)
    _emit(merged, out, *tables)


@rank_table_app.command(epilog="Example: sdnet-orchestrate rank-table validate hccl_8p.json --soc 910a")
def validate(
    table: TableFile,
    soc: AnySocOption = None,
    as_json: AsJson = False,
) -> None:
    """Check a table against every rule of HCCL; exit code 2 and every fault when it breaks one.

    Warnings are for tables that HCCL accepts against its own documents, or that older CANN reads
    otherwise; they do not change the exit code.
    """
    verdict = judge_text(read_table_text(table), soc)
    if as_json:
        report = {"file": str(table), "legal": not verdict.faults}
        findings = {"faults": _as_json(verdict.faults), "warnings": _as_json(verdict.warnings)}
        print(json.dumps({**report, **findings}))
    else:
        for fault in verdict.faults:
            print(f"{table}: {fault}")
        for warning in verdict.warnings:
            print(f"{table}: warning: {warning}")
        if not verdict.faults:
            print(f"{table}: legal{f' on {soc}' if soc else ''}")
    if verdict.faults:
        raise typer.Exit(2)


@rank_table_app.command(epilog="Example: sdnet-orchestrate rank-table show hccl_8p.json")
def show(table: TableFile) -> None:
    """Draw hosts, device groups and ranks; a table of more than 512 ranks as plain lines."""
    read = read_rank_table(table)
    size = f"version {read.version}, {read.world_size} ranks on {len(read.servers)} server(s)"
    tree = Tree(Text(f"{table.name}: {size}"))
    pod_of = {server: pod.super_pod_id for pod in read.super_pods for server in pod.server_ids}
    branches = {pod.super_pod_id: tree.add(_text(f"super pod {pod.super_pod_id}")) for pod in read.super_pods}
    lay_out = _boxed if read.world_size <= _MOST_BOXED else _plain
    rank = 0
    for server in read.servers:
        branch = branches[pod_of[server.server_id]] if read.super_pods else tree
        branch.add(_server_title(server)).add(lay_out(_rows(server, rank)))
        rank += len(server.devices)
    console.print(tree)


def _as_json(findings: tuple[Fault, ...]) -> list[dict[str, str]]:
    return [
        {"code": found.code, "path": found.path, "value": repr(found.value), "fix": found.fix}
        for found in findings
    ]


def _server_title(server: TableServer) -> Text:
    group = ",".join(str(device.device_id) for device in server.devices)
    host = "" if server.host_ip in (None, server.server_id) else f" ({server.host_ip})"
    return _text(f"server {server.server_id}{host}, devices {{{group}}}")


def _rows(server: TableServer, first_rank: int) -> list[list[str]]:
    """The titles, then a row for each device; a column for each key that at least one of them has."""
    extras = list(dict.fromkeys(key for device in server.devices for key, _ in device.extras))
    numbered = any(device.super_device_id is not None for device in server.devices)
    titles = ["rank", "device", "address", *(["super device"] if numbered else []), *extras]
    devices = enumerate(server.devices, start=first_rank)
    return [titles, *(_cells(rank, device, numbered, extras) for rank, device in devices)]


def _boxed(rows: list[list[str]]) -> Table:
    table = Table()
    for title in rows[0]:
        table.add_column(_text(title))
    for row in rows[1:]:
        table.add_row(*map(_text, row))
    return table


def _plain(rows: list[list[str]]) -> Text:
    """Aligned columns without lines between them, which rich needs a tenth of the time for."""
    shown = [[_text(cell).plain for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in shown)
    return Text("\n".join(lines), no_wrap=True, overflow="ignore")


def _text(shown: str) -> Text:
    """Text of a file for the terminal: brackets are no markup, and control characters do nothing."""
    return Text(shown if shown.isprintable() else repr(shown))


def _cells(rank: int, device: TableDevice, numbered: bool, extras: list[str]) -> list[str]:
    pod = [str(device.super_device_id)] if numbered else []
    kept = dict(device.extras)
    return [str(rank), str(device.device_id), device.device_ip or "-", *pod] + [
        str(kept.get(key, "-")) for key in extras
    ]


def _chip_of(found: HostInventory, stated: Soc | None) -> Soc:
    """The chip whose rules the table of this host follows. Raises InputError when it is not the stated one."""
    # Other chips are left out of the table, with that reason.
    named = sorted({device.model for device in found.devices if not is_another_chip(device.model)})
    models = {soc_of(model): model for model in named}
    families = sorted(family for family in models if family is not None)
    if stated is not None and families and families != [stated]:
        other = next(family for family in families if family != stated)
        raise InputError(f"--soc is {stated}, but this host has {models[other]}, a {other}; leave --soc out")
    if stated is None and named and len(families) != 1:
        typer.echo(
            f"rank table: warning: the model {', '.join(named)} names no single chip family, so this is "
            "a table of a 910b; give --soc",
            err=True,
        )
    return stated or (families[0] if len(families) == 1 else "910b")


def _this_host(address: str, devices: str | None) -> HostInventory:
    wanted = None if devices is None else stated_ids(devices, "--devices")
    found = take_inventory(address)
    if not found.devices:
        raise InputError(
            "this host shows no Ascend device: " + ("; ".join(found.problems) or "no NPU listed")
        )
    if wanted is None:
        if note := note_on_visible(os.environ, found):
            typer.echo(f"rank table: note: {note}", err=True)
    else:
        there = [device.device_id for device in found.devices]
        if not set(wanted) <= set(there):
            raise InputError(f"--devices {devices}: this host has {there}; name some of them, as 0-3,6")
        found = found.only(wanted)
    return found


def _warn_of_missing(found: HostInventory, host: AscendHost) -> None:
    """Report what the table lacks: devices that are left out, and what the tools could not tell."""
    left_out = [f"NPU {npu.device_id} is left out ({npu.unusable})" for npu in host.npus if npu.unusable]
    for text in [f"{host.address}: {text}" for text in left_out] + list(found.problems):
        typer.echo(f"rank table: warning: {text}", err=True)


def _emit(table: RankTable, out: Path | None, *inputs: Path) -> None:
    if out is None:
        print(table.to_json(), end="")
        return
    if why := why_hccl_skips_path(resolved_path(out)):
        raise InputError(f"--out {out} {why}")
    refuse_replaced_input(out, *inputs)
    check_place(out)
    try:
        write_atomically(out, table.to_json())
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); give a writable path") from None
    print(f"wrote {one_line(str(out))}: {table.world_size} ranks on {len(table.servers)} server(s)")
