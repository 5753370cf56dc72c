"""Checks a running Ray cluster before a job joins it: whether it answers, and which token it accepts."""

import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.ray_cluster.tls import (
    check_certificates,
    connected,
    grpc_credentials,
    missing_tls,
    no_tls,
    other_host,
    speaks_tls,
    uses_tls,
)
from sdnet.errors import InputError

if TYPE_CHECKING:
    import grpc

logger = logging.getLogger(__name__)

_ANSWER_S = 10.0
_LONGEST_TOKEN = 4096  # gRPC refuses headers of more than 8 kB
# Parts of gRPC's errors for a certificate of another host.
_OF_ANOTHER_HOST = ("SSL server name", "Hostname Verification")
_ASKED = "/ray.rpc.NodeInfoGcsService/CheckAlive"


class NoClusterAnswers(InputError):
    """No Ray head answers at an address. Example: the cluster has ended. name: what the user calls the address."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return (
            f"cluster.address is {self.name} and no Ray cluster answers there ({self.reason}); "
            "start one with `ray start --head`, give its host:port, or use address: local"
        )


def check_cluster(address: str, name: str) -> bool:
    """Check that a job can join the Ray head at `address` (host:port); Ray itself would retry for minutes.

    Returns whether the cluster asks for a token. name: what the user calls the address.
    Raises NoClusterAnswers when nothing or something else answers there, and InputError when our token is missing or
    refused, when RAY_AUTH_MODE is token and the cluster accepts calls without one, and when only one side uses TLS or
    one side refuses the other's certificate.
    """
    _knock(address, name)
    if uses_tls():
        check_certificates(address, name)
    if _accepts(address, "", name):
        _refuse_open_cluster(name)
        return False
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        raise InputError(
            f"cluster.address is {name} and that cluster asks for a token, which is not sent because "
            "RAY_AUTH_MODE is disabled; set RAY_AUTH_MODE to token, or unset it"
        )
    token = our_token(name)
    if not token:
        raise InputError(
            f"cluster.address is {name} and its token is not known here; put it in ~/.ray/auth_token "
            "(mode 0600), or set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        )
    if not _accepts(address, token, name):
        raise InputError(
            f"cluster.address is {name} and it refuses the token of {_token_source(os.environ)}; "
            "give the token that the cluster was started with"
        )
    return True


def warn_of_readable_token(environment: Mapping[str, str]) -> None:
    """Warn when other users of this host can read the file with our token."""
    if environment.get("RAY_AUTH_TOKEN"):
        return
    path = token_file(environment)
    try:
        found = None if path is None else path.stat()
    except OSError:
        return  # a missing file is reported where the token is needed
    if found is None or not stat.S_ISREG(found.st_mode) or not found.st_size:
        return  # what is no token is reported there, too
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        logger.warning(
            "%s contains the Ray token, and other users can read it (mode %04o); run `chmod 600 %s`",
            path, mode, path,
        )  # fmt: skip


def token_file(environment: Mapping[str, str]) -> Path | None:
    """Where Ray looks for a token that is not in RAY_AUTH_TOKEN; None for a user without a home."""
    given = environment.get("RAY_AUTH_TOKEN_PATH")
    if given:
        return Path(given)
    try:
        return Path.home() / ".ray" / "auth_token"
    except RuntimeError:
        return None


def _refuse_open_cluster(name: str) -> None:
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        raise InputError(
            f"cluster.address is {name} and that cluster asks for no token: anybody who reaches it can run "
            "code there; restart it with RAY_AUTH_MODE=token, or set RAY_AUTH_MODE=disabled here to join it "
            "anyway"
        )


def warn_of_open_cluster(name: str) -> None:
    """Warn of a cluster that asks for no token. name: what the user calls its address."""
    logger.warning("the cluster at %s asks for no token: anybody who reaches it can run code there", name)


def our_token(name: str) -> str:
    """The token that Ray would send; empty if the user has none.

    name: what the user calls the cluster's address. Raises InputError for one that Ray cannot use.
    """
    import ray

    from orchestrator.engine.ray_train.ray_core import find_token

    path = None if os.environ.get("RAY_AUTH_TOKEN") else token_file(os.environ)
    if path is not None:
        _check_token_file(path, name)
    try:
        token = find_token()
    except UnicodeDecodeError:
        token = "\ufffd"
    except ray.exceptions.AuthenticationError:
        raise InputError(
            f"cluster.address is {name} and RAY_AUTH_TOKEN_PATH is {os.environ['RAY_AUTH_TOKEN_PATH']!r}, "
            "whose first line is empty, or which cannot be read; name the file with the cluster's token"
        ) from None
    # It is sent in an HTTP header. A file from another editor may be UTF-16, or begin with a byte order mark.
    if not (token.isascii() and token.isprintable() and len(token) <= _LONGEST_TOKEN):
        raise InputError(
            f"cluster.address is {name} and the token of {_token_source(os.environ)} is not one line of at most "
            f"{_LONGEST_TOKEN} ASCII characters; copy the cluster's token again"
        )
    return token


def _check_token_file(path: Path, name: str) -> None:
    """Raise InputError for a path that is no file or that this user may not read.

    For such a path Ray reports a missing token, and does not name the cause.
    """
    try:
        is_file, exists = path.is_file(), path.exists()
        unreadable = is_file and not os.access(path, os.R_OK)
    except PermissionError:
        unreadable = True
    if unreadable:
        raise InputError(
            f"cluster.address is {name} and its token is in {path}, which this user may not read; "
            "change its owner or its mode, or set RAY_AUTH_TOKEN_PATH to a file that this user may read"
        )
    if exists and not is_file:
        raise InputError(
            f"cluster.address is {name} and its token is in {path}, which is no regular file; "
            "give a file, because each process of Ray reads it"
        )


def _token_source(environment: Mapping[str, str]) -> str:
    return "RAY_AUTH_TOKEN" if environment.get("RAY_AUTH_TOKEN") else str(token_file(environment))


def _knock(address: str, name: str) -> None:
    try:
        connected(address).close()
    except OSError as error:
        raise NoClusterAnswers(name, error.strerror or str(error)) from None


def _accepts(address: str, token: str, name: str) -> bool:
    """Whether the head answers a harmless request with this token, or, for "", without one."""
    import grpc

    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    no_proxy = (("grpc.enable_http_proxy", 0),)  # as Ray's own client
    if uses_tls():
        opened = grpc.secure_channel(address, grpc_credentials(), options=no_proxy)
    else:
        opened = grpc.insecure_channel(address, options=no_proxy)
    with opened as channel:
        try:
            channel.unary_unary(_ASKED)(b"", timeout=_ANSWER_S, metadata=metadata)
        except grpc.RpcError as error:
            if any(text in (error.details() or "") for text in _OF_ANOTHER_HOST):
                raise other_host(name) from None
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                return False
            raise _not_answered(error, address, name) from None
    return True


def _not_answered(error: "grpc.RpcError", address: str, name: str) -> InputError:
    code = error.code().name
    if code == "UNAVAILABLE" and uses_tls():
        return no_tls(name, error.details().rpartition("last error: ")[2])
    if code == "UNAVAILABLE" and speaks_tls(address):
        return missing_tls(name)
    return NoClusterAnswers(name, f"{code}: something else listens there")
