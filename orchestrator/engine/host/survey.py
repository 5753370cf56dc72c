"""The inventory of a whole cluster: every host is asked at once, through Ray."""

from collections.abc import Collection, Mapping
from functools import partial

from orchestrator.ascend.inventory.device_report import HostInventory
from orchestrator.ascend.inventory.host_inventory import take_inventory
from orchestrator.engine.host.every_host import ask_every_host
from orchestrator.errors import OrchestratorError


class HostsDidNotAnswer(OrchestratorError):
    """Hosts of the cluster could not be asked. Example: a host died since Ray last looked."""

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

    stated: addresses of devices by host address, as the job gives them. When given, only the
    hosts it names count. Raises HostsDidNotAnswer unless every one of those has answered.
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
    """On a host: take its inventory; a job that names devices of this host wants no others."""
    found = take_inventory(address, stated.get(address))
    return found.only(stated[address]) if address in stated else found
