"""A job that does what the published `run_train.sh RANK_TABLE_FILE DATA_PATH` did."""

from pathlib import Path
from typing import Any

from orchestrator.ascend.device_groups import Soc
from orchestrator.ascend.rank_table.rules import faults_in_table
from orchestrator.ascend.rank_table.table import RankTable, TableServer, has_legal_groups
from orchestrator.errors import InputError

# The learning rate of the published configuration, and that of its log with eight devices.
_LR, _LR_ON_EIGHT = 0.004, 0.01


def job_of_rank_table(table: RankTable, data: Path) -> dict[str, Any]:
    """The values of a job (for `spec_from_dict`) on the table's hosts and devices.

    data: a folder with train.npz and test.npz, as for the published scripts, or a SEN1-2
    tree. One server starts Ray itself; several join the Ray cluster that this host is in.
    Raises InputError for a missing folder, or, with several servers, a device without an address.
    """
    if not data.is_dir():
        raise InputError(f"--data {data} is not a directory; give one with train.npz and test.npz, or SEN1-2")
    prepared = all((data / name).is_file() for name in ("train.npz", "test.npz"))
    ranks = table.world_size
    return {
        "name": f"sdnet-{ranks}p",
        "cluster": {
            "address": "local" if len(table.servers) == 1 else "auto",
            "device": "ascend",
            "soc": _soc(table),
            "workers": ranks,
            "workers_per_host": max(len(server.devices) for server in table.servers),
            "hosts": [_host(server, len(table.servers) == 1) for server in table.servers],
        },
        "data": {"prepared" if prepared else "images": str(data)},
        "train": {"recipe": "sen1_2", "lr": _LR_ON_EIGHT if ranks == 8 else _LR},
    }


def _soc(table: RankTable) -> Soc:
    """The oldest chip for which the table is legal. Its rules and time-outs also suit the newer ones."""
    if table.version == "1.2":
        return "a3"
    candidates: tuple[Soc, ...] = ("910a", "910b")
    legal = (
        soc
        for soc in candidates
        if has_legal_groups(table, soc) and not faults_in_table(table.to_dict(), soc)
    )
    return next(legal, "a3")


def _host(server: TableServer, alone: bool) -> dict[str, object]:
    """The host as a job states it; a device without an address is legal on the only server."""
    devices = {}
    for device in server.devices:
        if device.device_ip is None and not alone:
            raise InputError(
                f"device {device.device_id} of server {server.server_id} has no device_ip in the rank table; "
                "add it (hccn_tool -i <device> -ip -g shows it)"
            )
        devices[device.device_id] = device.device_ip or ""
    return {"address": server.host_ip or server.server_id, "devices": devices}
