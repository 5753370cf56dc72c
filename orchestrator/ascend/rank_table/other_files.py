"""Files that contain rank tables without being one. HCCL would only say that a key is missing."""

import shlex

from orchestrator.ascend.rank_table.fault import ABSENT, MISSING, Fault

# MindCluster's ConfigMap of a job has the first, that of ModelArts the second.
_TABLES_OF_CONFIG_MAPS = ("hccl.json", "jobstart_hccl.json")
_OF_GROUPS = "server_group_list"
_OF_ROLES = ("prefill_device_list", "decode_device_list")


def fault_of_other_file(table: dict[str, object]) -> Fault | None:
    """What another file is, and how to get a rank table from it; None for any file that may be a table."""
    if _OF_GROUPS in table and "server_list" not in table:
        fix = (
            f"this is the global table of an inference service (MindIE, vLLM), whose {_OF_GROUPS} has a group for "
            "each role; write a table of one group: copy its server_list, with rank_id from 0, below status and "
            "version"
        )
        return Fault(MISSING, "$.server_list", ABSENT, fix)
    roles = [key for key in _OF_ROLES if key in table]
    if roles and "server_list" not in table:
        fix = (
            f"this is a table of an inference service (vLLM), and the devices of {' and '.join(roles)} have no ranks; "
            "build a rank table with `rank-table build` on each host, then `rank-table merge`"
        )
        return Fault(MISSING, "$.server_list", ABSENT, fix)
    listed = table.get("items")
    if table.get("kind") == "List" and isinstance(listed, list):
        table = next((item for item in listed if isinstance(item, dict) and _table_key(item)), table)
    return _fault_of_config_map(table)


def _table_key(table: dict[str, object]) -> str | None:
    """The key of a ConfigMap's data, or of the data alone, under which the table is."""
    data = table.get("data", table)
    return next((key for key in _TABLES_OF_CONFIG_MAPS if isinstance(data, dict) and key in data), None)


def _fault_of_config_map(table: dict[str, object]) -> Fault | None:
    """A ConfigMap of Kubernetes, or only its data."""
    key, kind = _table_key(table), table.get("kind")
    if key is None and kind not in ("ConfigMap", "List"):
        return None
    what = (
        f"this is {'a' if kind else 'the data of a'} Kubernetes {'List' if kind == 'List' else 'ConfigMap'}"
    )
    if key is None:
        fix = f"{what} without {' and '.join(_TABLES_OF_CONFIG_MAPS)}; give a rank table file"
        return Fault(MISSING, "$.status", ABSENT, fix)
    path = "{.data." + key.replace(".", "\\.") + "}"
    command = f"kubectl get configmap {_name(table)} -o jsonpath={shlex.quote(path)} > {key}"
    fix = f"{what}, and the table is the text of its key {key}; write that text to a file: {command}"
    return Fault(MISSING, "$.status", ABSENT, fix)


def _name(config_map: dict[str, object]) -> str:
    """Name and namespace for kubectl, as far as the file states them."""
    metadata = config_map.get("metadata")
    stated = metadata if isinstance(metadata, dict) else {}
    # Names of Kubernetes are short and need no quotes.
    name, namespace = (str(stated.get(key, ""))[:253] for key in ("name", "namespace"))
    return (shlex.quote(name) if name else "NAME") + (f" -n {shlex.quote(namespace)}" if namespace else "")
