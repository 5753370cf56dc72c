"""Merges rank tables of several hosts into one. Pure."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.rank_table.fault import one_line
from orchestrator.ascend.rank_table.rules import faults_in_table, judge_table
from orchestrator.ascend.rank_table.table import RankTable, SuperPod
from orchestrator.errors import InputError


def merge_rank_tables(
    tables: Sequence[RankTable], soc: Soc | None = None, files: Sequence[Path] = ()
) -> RankTable:
    """One table of all servers, with new ranks in the order of the tables.

    The devices of the first table are the first ranks. HCCL wants the servers of a super pod together, so a
    server moves up to its pod if an earlier table has servers of that pod. Raises InputError when the result
    breaks a rule: a server twice, an address twice, a missing address, tables with and without super pods.
    files: where the tables come from, for that message.
    """
    names = [str(file) for file in files] or [f"table {number + 1}" for number in range(len(tables))]
    _refuse_mixed(tables, names)
    source_of = _sources_of_servers(tables, names)
    servers = [server for table in tables for server in table.servers]
    pods: dict[str, list[str]] = {}
    for table in tables:
        for pod in table.super_pods:
            pods.setdefault(pod.super_pod_id, []).extend(pod.server_ids)
    place_of = {server_id: place for place, ids in enumerate(pods.values()) for server_id in ids}
    merged = RankTable(
        # sorted() is stable: without super pods the order does not change.
        servers=tuple(sorted(servers, key=lambda server: place_of.get(server.server_id, -1))),
        super_pods=tuple(
            SuperPod(super_pod_id=pod_id, server_ids=tuple(ids)) for pod_id, ids in pods.items()
        ),
    )
    if faults := faults_in_table(merged.to_dict(), soc):
        text = one_line(faults, "merged rank table")
        raise InputError(text + _sources_named_in(text, [source_of[s.server_id] for s in merged.servers]))
    return merged


def warnings_in_merged(
    merged: RankTable, tables: Sequence[RankTable], soc: Soc | None, files: Sequence[Path]
) -> Iterator[str]:
    """The warnings of `judge_table` for a merged table, with the files that the servers come from."""
    source_of = _sources_of_servers(tables, [str(file) for file in files])
    sources = [source_of[server.server_id] for server in merged.servers]
    for warning in judge_table(merged.to_dict(), soc).warnings:
        yield f"{warning}{_sources_named_in(str(warning), sources)}"


def _sources_of_servers(tables: Sequence[RankTable], names: Sequence[str]) -> dict[str, str]:
    """The name of the table of each server, by server_id. Raises InputError if two tables contain one server."""
    source_of: dict[str, str] = {}
    for table, name in zip(tables, names, strict=True):
        for server in table.servers:
            if first := source_of.get(server.server_id):
                # On every host 127.0.0.1 is the default of `rank-table build`.
                raise InputError(
                    f"{first} and {name} both contain the server {server.server_id}; "
                    "leave one out, or build each table with the --address of its host"
                )
            source_of[server.server_id] = name
    return source_of


def _sources_named_in(text: str, sources: Sequence[str]) -> str:
    """Where the servers come from that the text names by their place in the merged table; for its end."""
    places = sorted({int(place) for place in re.findall(r"\$\.server_list\[([0-9]+)\]", text)})
    named = [f"server_list[{place}] is from {sources[place]}" for place in places if place < len(sources)]
    return f"; {', '.join(named)}" if named else ""


def _refuse_mixed(tables: Sequence[RankTable], names: Sequence[str]) -> None:
    """Raise InputError if only some tables have super pods, or numbers of dies. A file's version does not decide."""
    first = tables[0]
    for table, name in zip(tables, names, strict=True):
        for has, other, what in (
            (first.super_pods, table.super_pods, "a super_pod_list"),
            (first.version == "1.2", table.version == "1.2", "dies with a super_device_id"),
        ):
            if bool(has) != bool(other):
                one, another = (names[0], name) if has else (name, names[0])
                raise InputError(f"{one} has {what}, {another} has none; build them alike")
