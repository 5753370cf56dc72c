"""The rendezvous of ranks on CPU: a key-value store of their addresses in rank 0's process.

It replaces MindSpore's scheduler, which needs another process with all its imports, and up to one heartbeat (3 s)
until the ranks know that all have joined. A rank publishes the address from which it reaches the store. See ADR 5.
"""

from datetime import timedelta

from orchestrator.engine.rank.scheduler import free_port
from orchestrator.errors import ClusterError

_PORT_TRIES = 5


class StoreDidNotOpen(ClusterError):
    """The store could not bind a port. Example: another program takes each port before the store binds it."""

    def __init__(self, host: str, detail: str):
        super().__init__(host, detail)
        self.host, self.detail = host, detail

    def __str__(self) -> str:
        return (
            f"the rendezvous store could not open a port on {self.host} ({self.detail}); "
            "find out what takes its ports, for example with `ss -ltnp`"
        )


def open_store(host: str, world_size: int, timeout_s: float) -> tuple[object, tuple[str, int]]:
    """On rank 0's worker: open the group's store on a free port of `host`; returns it and its address.

    The store lives as long as the returned object. Another program may take the port before the store binds it; then
    another port is tried. Raises StoreDidNotOpen.
    """
    detail = ""
    for _ in range(_PORT_TRIES):
        port = free_port(host)
        try:
            return _tcp_store((host, port), world_size, timeout_s, is_master=True), (host, port)
        except RuntimeError as error:
            detail = next(iter(str(error).splitlines()), "")
    raise StoreDidNotOpen(host, detail)


def connect_store(address: tuple[str, int], world_size: int, timeout_s: float) -> object:
    """On every other worker: connect to the group's store. Raises RuntimeError."""
    return _tcp_store(address, world_size, timeout_s, is_master=False)


def join_through_store(store: object, rank: int, world_size: int, timeout_s: float) -> None:
    """Find the other ranks and initialise `mindspore.communication`.

    Raises RuntimeError with MindSpore's message if not all ranks joined within the time-out; `join_group` turns it
    into RendezvousFailed.
    """
    from mindspore.communication import management

    # Private in MindSpore 2.10: the public function supports only HCCL. The lock file pins the version.
    management._init_with_store(
        backend="mccl", timeout=timedelta(seconds=timeout_s), world_size=world_size, rank=rank, store=store
    )


def _tcp_store(address: tuple[str, int], world_size: int, timeout_s: float, *, is_master: bool) -> object:
    from mindspore.mint.distributed import TCPStore

    timeout = timedelta(seconds=timeout_s)
    # By its documentation only the server needs world_size, but a client without it initialises a group of one.
    return TCPStore(*address, world_size, is_master, timeout, wait_for_workers=False)
