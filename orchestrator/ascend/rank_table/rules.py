"""Every rule of HCCL and MindSpore for a rank table, checked before a launch.

A fault has HCCL's error code, the JSON path, the value and the fix. HCCL itself would log the fault only
minutes later, on every rank. Sources of rules and codes: HCCL's public documents and sources (rank
table configuration, error codes EI0001 to EI0019). HCCL of 2024 and 2025 logs EI0004 for most of them.
"""

import dataclasses
from collections.abc import Iterator

from orchestrator.ascend import device_groups
from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.rank_table.address_rules import unreachable_addresses
from orchestrator.ascend.rank_table.fault import (
    ABSENT,
    INVALID,
    MISSING,
    UNREADABLE,
    Fault,
    FaultyTable,
    Verdict,
    code_of_list,
    code_of_text,
    decimal,
)
from orchestrator.ascend.rank_table.group_list import is_lab, read_old_form
from orchestrator.ascend.rank_table.other_files import fault_of_other_file
from orchestrator.ascend.rank_table.server_rules import (
    ServerListRules,
    ServerSeats,
    order_warnings,
    server_list_faults,
)
from orchestrator.ascend.rank_table.super_pod_rules import (
    is_one_super_pod,
    lists_super_pods,
    super_pod_faults,
)
from orchestrator.ascend.rank_table.text import table_of_text

COMPLETED, INITIALIZING = "completed", "initializing"
_VERSIONS = ("1.0", "1.2")
_REFUSED_VERSIONS = {
    "1.1": "is the heterogeneous form, which is not supported; write version 1.0",
    "2.0": "is the rank-centric form of the 950, which is not supported yet; write version 1.0 or 1.2",
}


def judge_text(text: str, soc: Soc | None = None) -> Verdict:
    """What is wrong with the text of a rank table file; never raises."""
    try:
        return judge_table(table_of_text(text), soc)
    except FaultyTable as error:
        return Verdict((error.fault,))


def judge_table(table: object, soc: Soc | None = None) -> Verdict:
    """What is wrong with a parsed table, in the order of the file.

    soc: also check the rules of this chip: ids and groups of devices, super pods only on A3.
    """
    if not isinstance(table, dict):
        fault = Fault(UNREADABLE, "$", table, "a rank table is a JSON object; write a new table")
        return Verdict((fault,))
    if other := fault_of_other_file(table):
        return Verdict((other,))
    status = tuple(_status_faults(table))
    if table.get("status") == INITIALIZING:
        # Its writer has not written the rest of the table yet.
        return Verdict(status)
    if "version" not in table and "group_list" in table:
        verdict = _judge_old_form(table, soc)
    elif table.get("version") in _VERSIONS:
        verdict = _judge_server_list(table, soc)
    else:
        verdict = Verdict(tuple(_version_faults(table.get("version", ABSENT))))
    return Verdict(status + verdict.faults, verdict.warnings)


def faults_in_text(text: str, soc: Soc | None = None) -> list[Fault]:
    """The faults of `judge_text`; an empty list means legal."""
    return list(judge_text(text, soc).faults)


def faults_in_table(table: object, soc: Soc | None = None) -> list[Fault]:
    """The faults of `judge_table`; an empty list means legal."""
    return list(judge_table(table, soc).faults)


def is_ready(table: object) -> bool:
    """False for a table that its writer has not finished."""
    return not isinstance(table, dict) or table.get("status") == COMPLETED


def _status_faults(table: dict[str, object]) -> Iterator[Fault]:
    status = table.get("status", ABSENT)
    if isinstance(status, str) and status != COMPLETED:
        fix = (
            f'the table is not ready: wait until its writer has set "{COMPLETED}"; HCCL reads the file again '
            f"each second for 30 minutes, then fails with {UNREADABLE}"
        )
        yield Fault(INVALID, "$.status", status, fix)
    elif status != COMPLETED:
        yield Fault(MISSING, "$.status", status, f'write "{COMPLETED}"')


def _version_faults(version: object) -> Iterator[Fault]:
    fix = 'write "1.0" or "1.2"'
    if isinstance(version, str):
        fix = _REFUSED_VERSIONS.get(version, fix)
    yield Fault(code_of_text(version), "$.version", version, fix)


def _judge_old_form(table: dict[str, object], soc: Soc | None) -> Verdict:
    old = read_old_form(table)
    rules = ServerListRules(soc=soc, needs_address=len(old.servers) > 1, super_pods=False)
    faults, servers = server_list_faults(old.servers, rules)
    group_faults, warnings = _judge_groups(servers, soc)
    # HCCL itself numbers the ranks of the cloud form, so they always ascend.
    warnings += order_warnings(servers) if is_lab(table) else ()
    warnings += unreachable_addresses(old.servers)

    def located(found: list[Fault]) -> tuple[Fault, ...]:
        return tuple(dataclasses.replace(fault, path=old.original_path(fault.path)) for fault in found)

    known = {fault.path for fault in old.faults}
    shared = [fault for fault in located(faults + group_faults) if fault.path not in known]
    return Verdict((*old.faults, *shared), located(warnings))


def _judge_server_list(table: dict[str, object], soc: Soc | None) -> Verdict:
    servers = table.get("server_list", ABSENT)
    faults = []
    if table["version"] == "1.2" and soc not in (None, "a3"):
        faults.append(Fault(INVALID, "$.version", "1.2", f"{soc} has no super pods; write version 1.0"))
    if not isinstance(servers, list) or not servers:
        fix = "list at least one server with its devices"
        return Verdict((*faults, Fault(code_of_list(servers), "$.server_list", servers, fix)))
    count = table.get("server_count", ABSENT)
    if count is not ABSENT and decimal(count) != len(servers):
        fix = f'write "{len(servers)}", the length of server_list, or leave it out'
        faults.append(Fault(code_of_text(count), "$.server_count", count, fix))
    several, one_pod = len(servers) > 1, is_one_super_pod(table)
    rules = ServerListRules(
        soc=soc, needs_address=several and not one_pod, super_pods=lists_super_pods(table)
    )
    server_faults, seats = server_list_faults(servers, rules)
    group_faults, warnings = _judge_groups(seats, soc)
    faults += server_faults + group_faults
    if lists_super_pods(table):
        faults += super_pod_faults(table["super_pod_list"], servers)
    warnings += order_warnings(seats)
    warnings += unreachable_addresses(servers)
    warnings += _address_warnings(servers, soc, in_one_pod=several and one_pod)
    return Verdict(tuple(faults), tuple(warnings))


def _judge_groups(servers: list[ServerSeats], soc: Soc | None) -> tuple[list[Fault], list[Fault]]:
    """Faults and warnings about the sets of devices."""
    faults: list[Fault] = []
    warnings: list[Fault] = []
    if soc is None:
        return faults, warnings
    alone = len(servers) == 1
    first = len(servers[0].ids) if servers else 0
    for server in servers:
        path, ids = f"{server.path}.device", sorted(server.ids)
        if len(set(ids)) < len(ids) or (ids and ids[-1] > device_groups.highest_id(soc)):
            continue
        if not device_groups.is_accepted(ids, soc, alone=alone):
            faults.append(Fault(INVALID, path, ids, device_groups.rule(soc)))
        elif soc == "910a" and len(ids) != first:
            fix = f"910A takes the same number of devices on each server; the first has {first}"
            faults.append(Fault(INVALID, path, ids, fix))
        elif why := device_groups.against_documents(ids, soc):
            warnings.append(Fault(INVALID, path, ids, why))
    return faults, warnings


def _address_warnings(servers: list[object], soc: Soc | None, *, in_one_pod: bool) -> Iterator[Fault]:
    """A warning for the first device without an address, if HCCL's documents or older CANN require one."""
    alone = soc == "910a" and len(servers) == 1
    if not alone and not in_one_pod:
        return
    who = "HCCL's documents want it on 910A" if alone else "older CANN needs it in a super pod too"
    for index, server in enumerate(servers):
        devices = server.get("device") if isinstance(server, dict) else None
        for place, device in enumerate(devices if isinstance(devices, list) else ()):
            value = device.get("device_ip", ABSENT) if isinstance(device, dict) else ""
            if isinstance(device, dict) and value in (ABSENT, ""):
                path = f"$.server_list[{index}].device[{place}].device_ip"
                yield Fault(MISSING, path, value, f"{who}; add the address of each device")
                return
