"""The inventory of a cluster: a Ray task on every host reports its devices."""

from collections.abc import Collection, Mapping
from functools import partial

from orchestrator.ascend.inventory.device_report import HostInventory
from orchestrator.ascend.inventory.host_inventory import take_inventory
from orchestrator.engine.host.every_host import ask_every_host
from orchestrator.errors import OrchestratorError


class HostsDidNotAnswer(OrchestratorError):
    """Hosts of the cluster did not report. Example: a host died after Ray last checked it."""

    def __init__(self, reasons: Mapping[str, str]):
        super().__init__(dict(reasons))
        self.reasons = dict(reasons)

    def __str__(self) -> str:
        reasons = "; ".join(f"{address}: {reason}" for address, reason in self.reasons.items())
        return f"no inventory of {reasons}; look at those hosts with `sdnet-orchestrate check`"


def survey_hosts(
    stated: Mapping[str, Mapping[int, str]] | None = None, timeout_s: float = 120.0
) -> tuple[HostInventory, ...]:
    """Inventories of all hosts of the connected cluster, in dictionary order of their addresses.

    stated: addresses of devices by host address, as the job states them. If it is given, only its hosts count.
    Raises HostsDidNotAnswer unless all hosts that count have answered.
    """
    named = stated or {}
    answers = ask_every_host(partial(inventory_of_host, stated=named), timeout_s)
    wanted: Collection[str] = named or [answer.address for answer in answers]
    silent = {answer.address: answer.error for answer in answers if answer.value is None}
    silent |= {address: "not in the Ray cluster" for address in wanted if address not in
               {answer.address for answer in answers}}  # fmt: skip
    if missing := {address: silent[address] for address in wanted if address in silent}:
        raise HostsDidNotAnswer(missing)
    return tuple(answer.value for answer in answers if answer.value and answer.address in wanted)


def inventory_of_host(address: str, stated: Mapping[str, Mapping[int, str]]) -> HostInventory:
    """On a host: take its inventory. If the job names devices of this host, only these are returned."""
    found = take_inventory(address, stated.get(address))
    return found.only(stated[address]) if address in stated else found
