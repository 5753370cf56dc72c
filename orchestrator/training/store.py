"""The rendezvous of ranks on CPU: a store of their addresses in rank 0's process, which ends with it.

MindSpore's scheduler costs a process, its imports, and up to a heartbeat of 3 s until the ranks know that all
are there; the store costs none of it. A rank tells the others the address from which it reaches the store.
"""

from datetime import timedelta
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.training.scheduler import free_port

_PORT_TRIES = 5

# This process's end of the store; that of rank 0 serves the others for as long as its process lives.
_store: Any = None


class StoreDidNotOpen(OrchestratorError):
    """No port of the host could be had. Example: a program takes each port before it is bound."""

    def __init__(self, host: str, detail: str):
        super().__init__(host, detail)
        self.host, self.detail = host, detail

    def __str__(self) -> str:
        return (
            f"the store through which ranks meet could not open a port on {self.host} ({self.detail}); "
            "look at what takes its ports, for example with `ss -ltnp`"
        )


def open_store(host: str, world_size: int, timeout_s: float) -> tuple[str, int]:
    """On rank 0's worker: open the group's store on a free port of `host`, and say where it listens.

    A port that somebody takes between choosing and binding costs one more try. Raises StoreDidNotOpen.
    """
    global _store
    detail = ""
    for _ in range(_PORT_TRIES):
        port = free_port(host)
        try:
            _store = _connect(host, port, world_size, timeout_s, is_master=True)
            return host, port
        except RuntimeError as error:
            detail = next(iter(str(error).splitlines()), "")
    raise StoreDidNotOpen(host, detail)


def meet(address: tuple[str, int], rank: int, world_size: int, timeout_s: float) -> None:
    """On every worker: find the other ranks through the store, and initialise `mindspore.communication`.

    Raises RuntimeError, of MindSpore's words, when not all have come within the time-out.
    """
    global _store
    from mindspore.communication import management

    if rank > 0:
        _store = _connect(*address, world_size, timeout_s, is_master=False)
    # Private in MindSpore 2.10, whose public way into it takes HCCL only; the lock pins the version.
    management._init_with_store(
        backend="mccl", timeout=timedelta(seconds=timeout_s), world_size=world_size, rank=rank, store=_store
    )


def _connect(host: str, port: int, world_size: int, timeout_s: float, *, is_master: bool) -> Any:
    from mindspore.mint.distributed import TCPStore

    timeout = timedelta(seconds=timeout_s)
    # Documented as the server's only, but a rank that leaves world_size out initialises a group of one.
    return TCPStore(host, port, world_size, is_master, timeout, wait_for_workers=False)
