"""TLS of a Ray cluster, as Ray's own client does it: with three files and gRPC's check of the host name."""

import os
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.ray_cluster.address import host_and_port
from sdnet.errors import InputError

if TYPE_CHECKING:
    import grpc

_CONNECT_S = 5.0
# Ray reads these files: certificate, private key, certificate of the authority.
_CERTIFICATE, _KEY, _AUTHORITY = "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"
# OpenSSL's code for an authority without basicConstraints, in versions 1.1.1 and 3. gRPC takes it.
_NO_CONSTRAINTS = (24, 79)
_FILES = (_CERTIFICATE, _KEY, _AUTHORITY)


def connected(address: str) -> socket.socket:
    """A TCP connection to host:port. Raises OSError."""
    host, port = host_and_port(address) or ("", 0)
    return socket.create_connection((host, port), timeout=_CONNECT_S)


def uses_tls() -> bool:
    """Whether Ray uses TLS in this environment. Ray takes any other value as false."""
    return os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true")


def speaks_tls(address: str) -> bool:
    """Whether a TLS server listens at host:port, whatever its certificate is."""
    context = _client_context()
    context.verify_mode = ssl.CERT_NONE
    try:
        with connected(address) as connection, context.wrap_socket(connection):
            return True
    except OSError:  # ssl.SSLError, too
        return False


def check_certificates(address: str, name: str) -> None:
    """Check our certificates, and that of the Ray head at `address` (host:port); Ray itself would try for ever.

    name: what the user calls the address. gRPC checks the same and the host name, but it prints lines of its own.
    Raises InputError for files that cannot be used, for a cluster without TLS, and for one of another authority.
    """
    files, context = _our_files(), _client_context()
    _load(context, files)
    try:
        with connected(address) as connection, context.wrap_socket(connection):
            pass
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _NO_CONSTRAINTS:
            return  # gRPC decides
        raise InputError(
            f"cluster.address is {name} and the certificate of that cluster does not match {_AUTHORITY}, which is "
            f"{files[_AUTHORITY]!r} ({error.verify_message}); renew it if it has expired, or give the certificate of "
            "the authority that signed it"
        ) from None
    except OSError as error:  # ssl.SSLError, too
        raise no_tls(name, error.strerror or str(error)) from None


def _our_files() -> dict[str, str]:
    """The file of each variable. Raises InputError for one that cannot be read."""
    files = {variable: os.environ.get(variable, "") for variable in _FILES}
    for variable, file in files.items():
        if not Path(file).is_file() or not os.access(file, os.R_OK):
            raise InputError(
                f"RAY_USE_TLS is {os.environ['RAY_USE_TLS']!r} and {variable} is {file!r}, which is no file that can "
                f"be read; set {', '.join(_FILES)}, or unset RAY_USE_TLS if the cluster does not use TLS"
            )
    return files


def _load(context: ssl.SSLContext, files: dict[str, str]) -> None:
    """Load our certificate, its key and the authority. Raises InputError, which names the file that is wrong."""
    certificate, key, authority = (files[variable] for variable in _FILES)
    wrong, must = f"{_CERTIFICATE}, which is {certificate!r}", "be a certificate in PEM"
    try:
        _client_context().load_verify_locations(certificate)  # `context` must not trust our own
        wrong, must = (
            f"{_KEY}, which is {key!r}",
            f"be the private key of {certificate!r}, in PEM and without a password",
        )
        context.load_cert_chain(certificate, key, password="")  # never ask on the terminal
        wrong, must = f"{_AUTHORITY}, which is {authority!r}", "be the certificate of the authority, in PEM"
        context.load_verify_locations(authority)
    except OSError as error:  # ssl.SSLError, too
        raise InputError(
            f"RAY_USE_TLS is {os.environ['RAY_USE_TLS']!r} and {wrong}, cannot be used "
            f"({error.strerror or error}); it must {must}"
        ) from None


def no_tls(name: str, reason: str) -> InputError:
    """The refusal of a cluster that does not take our TLS connection. name: what the user calls its address."""
    return InputError(
        f"cluster.address is {name} and RAY_USE_TLS is {os.environ['RAY_USE_TLS']!r}, but no TLS connection is "
        f"possible there ({reason}); unset RAY_USE_TLS if the cluster does not use TLS, or "
        "give the cluster's certificates"
    )


def other_host(name: str) -> InputError:
    """The refusal of a cluster whose certificate names another host than its address."""
    return InputError(
        f"cluster.address is {name} and the certificate of that cluster is not for this host name or address; "
        "give the address that it names, or a certificate with this one in subjectAltName"
    )


def missing_tls(name: str) -> InputError:
    """The refusal of a cluster that uses TLS when this environment does not."""
    return InputError(
        f"cluster.address is {name} and that cluster uses TLS, which RAY_USE_TLS does not turn on here; "
        f"set RAY_USE_TLS=1, and {', '.join(_FILES)} to the files of the cluster"
    )


def grpc_credentials() -> "grpc.ChannelCredentials":
    """What Ray's client gives to gRPC. Call `check_certificates` first."""
    import grpc

    certificate, key, authority = (Path(os.environ[variable]).read_bytes() for variable in _FILES)
    credentials: grpc.ChannelCredentials = grpc.ssl_channel_credentials(authority, key, certificate)
    return credentials


def _client_context() -> ssl.SSLContext:
    """Accepts the certificates that gRPC accepts, except that it compares no host name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # gRPC trusts an authority that is not self-signed, and takes short keys.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context
