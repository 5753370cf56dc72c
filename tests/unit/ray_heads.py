"""Stand-ins for Ray's head, with and without TLS."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

TOKEN = "a" * 64
Head = Callable[[str | None], str]


class FakeHead(grpc.GenericRpcHandler):
    """Answers one request as Ray's head, for callers with the token; None: for all callers."""

    def __init__(self, token: str | None):
        self._token = token

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != "/ray.rpc.NodeInfoGcsService/CheckAlive":
            return None
        brought = dict(details.invocation_metadata).get("authorization")

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            if self._token is not None and brought != f"Bearer {self._token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def fake_heads(credentials: Callable[[], grpc.ServerCredentials] | None = None) -> Iterator[Head]:
    """A function that starts a head for a token, or for none, and gives its address. credentials: of TLS."""
    servers = []

    def start(token: str | None) -> str:
        server = grpc.server(ThreadPoolExecutor(2), handlers=(FakeHead(token),))
        servers.append(server)
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials())
        server.start()
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0).wait()
