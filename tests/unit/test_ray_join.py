"""A job joins a Ray cluster only when the cluster answers, takes its token, and asks for one."""

import datetime
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from orchestrator.job.spec.job_spec import ClusterSpec
from orchestrator.ray_cluster.join import check_cluster, our_token, warn_of_readable_token
from orchestrator.ray_cluster.local import prepare_token
from orchestrator.ray_cluster.session import ray_session, refuse_storage_of_ray
from sdnet.errors import InputError
from tests.unprivileged import as_nobody, let_anybody_write

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


@pytest.fixture
def head() -> Iterator[Head]:
    """Starts a head that asks for a token, or for none, and gives its address."""
    servers = []

    def start(token: str | None) -> str:
        server = grpc.server(ThreadPoolExecutor(2), handlers=(FakeHead(token),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0).wait()


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Sets RAY_AUTH_TOKEN; without a call there is no token at all."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return lambda text: monkeypatch.setenv("RAY_AUTH_TOKEN", text)


def test_the_right_token_is_accepted_silently(
    head: Head, token: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    token(TOKEN)
    check_cluster(head(TOKEN), "'h:1'")
    assert caplog.messages == []


def test_a_wrong_or_missing_token_is_named_with_its_source(
    head: Head, token: Callable[[str], None], tmp_path: Path
) -> None:
    address = head(TOKEN)
    with pytest.raises(
        InputError, match="'h:1' and its token is not known here; put it in ~/.ray/auth_token"
    ):
        check_cluster(address, "'h:1'")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("b" * 64)
    with pytest.raises(InputError, match=rf"refuses the token of {tmp_path}/.ray/auth_token; give the token"):
        check_cluster(address, "'h:1'")
    token("b" * 64)
    with pytest.raises(InputError, match="refuses the token of RAY_AUTH_TOKEN; give the token"):
        check_cluster(address, "'h:1'")


@pytest.mark.parametrize(
    "content",
    [f"\ufeff{TOKEN}".encode(), TOKEN.encode("utf-16"), b"ab\x00cd", b"\xff\xfe\x00", "\u00e9".encode(), b"a" * 9000],
    ids=["byte order mark", "UTF-16", "zero byte", "binary", "accent", "9 kB"],
)  # fmt: skip
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(
    head: Head,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    content: bytes,
) -> None:
    (tmp_path / "token").write_bytes(content)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(InputError) as caught:
        check_cluster(head(TOKEN), "'h:1'")
    assert str(caught.value) == (
        f"cluster.address is 'h:1' and the token of {tmp_path}/token is not one line of at most 4096 ASCII "
        "characters; copy the cluster's token again"
    )
    assert capfd.readouterr().err == ""


def write_certificate(folder: Path, host: str = "127.0.0.1", authority: Path | None = None) -> None:
    """cert, a certificate for this IP address, and key, its private key, both in PEM.

    authority: the folder of the certificate that signs it; left out, it signs itself.
    """
    private = ec.generate_private_key(ec.SECP256R1())
    folder.mkdir(exist_ok=True)
    name, issuer = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, path.name)])
        for path in (folder, authority or folder)
    )
    signer = private if authority is None else load_pem_private_key((authority / "key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(issuer, name, private.public_key(), 1, now, now + datetime.timedelta(1))
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    signed = builder.add_extension(addresses, critical=False).sign(signer, hashes.SHA256())
    (folder / "cert").write_bytes(signed.public_bytes(Encoding.PEM))
    (folder / "key").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.fixture
def with_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    """Turns TLS on here, with the certificates of two folders: our own, and that of the authority."""

    def turn_on(ours: str, authority: str) -> None:
        monkeypatch.setenv("RAY_USE_TLS", "1")
        for variable, file in (
            ("SERVER_CERT", f"{ours}/cert"), ("SERVER_KEY", f"{ours}/key"), ("CA_CERT", f"{authority}/cert"),
        ):  # fmt: skip
            monkeypatch.setenv(f"RAY_TLS_{variable}", str(tmp_path / file))

    return turn_on


@pytest.fixture
def tls_head(tmp_path: Path) -> Iterator[Head]:
    """Starts a head with the certificate in `cluster`, which wants one of the same authority, as Ray's does."""
    write_certificate(tmp_path / "cluster")
    servers = []

    def start(token: str | None) -> str:
        certificate, key = ((tmp_path / "cluster" / file).read_bytes() for file in ("cert", "key"))
        server = grpc.server(ThreadPoolExecutor(2), handlers=(FakeHead(token),))
        credentials = grpc.ssl_server_credentials(
            ((key, certificate),), certificate, require_client_auth=True
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0).wait()


def refusal(address: str) -> str:
    with pytest.raises(InputError) as caught:
        check_cluster(address, "'h:1'")
    return str(caught.value)


def test_a_cluster_without_tls_is_refused_where_ray_would_try_for_ever(
    head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, with_tls: Callable[[str, str], None]
) -> None:
    address = head(TOKEN)
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert "RAY_USE_TLS is '1' and RAY_TLS_SERVER_CERT is '', which is no file" in refusal(address)
    write_certificate(tmp_path / "cluster")
    with_tls("cluster", "cluster")
    assert "'h:1' and RAY_USE_TLS is '1', but no TLS connection is possible" in refusal(address)


def test_a_cluster_with_tls_is_asked_for_its_token_as_one_without(
    tls_head: Head,
    token: Callable[[str], None],
    with_tls: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    address = tls_head(TOKEN)
    with_tls("cluster", "cluster")
    assert "its token is not known here" in refusal(address)
    token("b" * 64)
    assert "it refuses the token of RAY_AUTH_TOKEN" in refusal(address)
    token(TOKEN)
    check_cluster(address, "'h:1'")
    assert "that cluster asks for no token" in refusal(tls_head(None))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    check_cluster(tls_head(None), "'h:1'")
    assert capfd.readouterr().err == ""


def test_a_certificate_that_the_other_side_does_not_know_is_named(
    tls_head: Head, tmp_path: Path, with_tls: Callable[[str, str], None], token: Callable[[str], None]
) -> None:
    address = tls_head(TOKEN)
    token(TOKEN)
    write_certificate(tmp_path / "other")
    with_tls("cluster", "other")
    assert f"does not match RAY_TLS_CA_CERT, which is '{tmp_path}/other/cert' (" in refusal(address)
    with_tls("other", "cluster")
    assert "but no TLS connection is possible there" in refusal(address)


def test_an_authority_that_does_not_call_itself_one_is_accepted_because_ray_accepts_it(
    tls_head: Head, tmp_path: Path, with_tls: Callable[[str, str], None], token: Callable[[str], None]
) -> None:
    write_certificate(tmp_path / "authority")
    write_certificate(tmp_path / "cluster", authority=tmp_path / "authority")
    with_tls("cluster", "authority")
    token(TOKEN)
    check_cluster(tls_head(TOKEN), "'h:1'")


def test_a_certificate_for_another_host_is_refused_because_ray_refuses_it(
    tls_head: Head, tmp_path: Path, with_tls: Callable[[str, str], None]
) -> None:
    write_certificate(tmp_path / "cluster", host="192.0.2.1")
    with_tls("cluster", "cluster")
    assert "but no TLS connection is possible there" in refusal(tls_head(TOKEN))


@pytest.mark.parametrize("off", ["0", "", "yes"])
def test_a_cluster_with_tls_is_named_where_tls_is_off(
    tls_head: Head, monkeypatch: pytest.MonkeyPatch, off: str
) -> None:
    monkeypatch.setenv("RAY_USE_TLS", off)
    assert (
        "'h:1' and that cluster uses TLS, which RAY_USE_TLS does not turn on here; set RAY_USE_TLS=1, and"
        in (refusal(tls_head(TOKEN)))
    )


def test_a_cluster_with_tokens_is_refused_where_none_is_sent(
    head: Head, monkeypatch: pytest.MonkeyPatch, token: Callable[[str], None]
) -> None:
    token(TOKEN)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(
        InputError, match="asks for a token, which is not sent because RAY_AUTH_MODE is disabled"
    ):
        check_cluster(head(TOKEN), "'h:1'")


def test_a_token_file_that_is_not_there_is_named(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(InputError, match="RAY_AUTH_TOKEN_PATH is '/nowhere/token', whose first line"):
        check_cluster(head(TOKEN), "'h:1'")


@pytest.mark.parametrize("blocked", ["token", "."])
def test_a_token_that_this_user_may_not_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, blocked: str
) -> None:
    folder = tmp_path / "private"
    folder.mkdir()
    let_anybody_write(folder)
    (folder / "token").write_text(TOKEN)
    (folder / blocked).chmod(0)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))

    def refusal() -> str:
        with pytest.raises(InputError) as caught:
            our_token("'h:1'")
        return str(caught.value)

    assert as_nobody(refusal) == (
        f"cluster.address is 'h:1' and its token is in {folder}/token, which this user may not read; "
        "change its owner or its mode, or set RAY_AUTH_TOKEN_PATH to a file that this user may read"
    )
    folder.chmod(0o700)


def test_a_cluster_that_asks_for_no_token_is_refused_unless_the_user_accepts_that(
    head: Head, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address = head(None)
    with pytest.raises(
        InputError, match="asks for no token: anybody who reaches it can run code there; restart"
    ):
        check_cluster(address, "'h:1'")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    check_cluster(address, "'h:1'")
    assert "the cluster at 'h:1' asks for no token" in caplog.text


def test_what_is_not_a_ray_head_is_said_at_once(head: Head) -> None:
    with socket.socket() as free, socket.socket() as silent:
        for bound in (free, silent):
            bound.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(InputError, match=r"no Ray cluster answers there \(Connection refused\)"):
            check_cluster(f"127.0.0.1:{free.getsockname()[1]}", "'h:1'")
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(InputError, match=r"\(UNIMPLEMENTED: something else listens there\)"):
        check_cluster(f"127.0.0.1:{port}", "'h:1'")
    server.stop(0).wait()


def test_the_address_that_auto_found_is_named(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    address = head(TOKEN)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("orchestrator.engine.ray_train.ray_core.find_cluster", lambda given: address)
    said = rf"cluster.address is 'auto' \(Ray connects to {address}\) and its token is not known here"
    with pytest.raises(InputError, match=said), ray_session(ClusterSpec(address="auto")):
        pass
    monkeypatch.setenv("RAY_ADDRESS", "localhost:6379")
    said = rf"cluster.address is 'auto' \(RAY_ADDRESS is 'localhost:6379'; Ray connects to {address}\) and its token"
    with pytest.raises(InputError, match=said), ray_session(ClusterSpec(address="auto")):
        pass


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, True), (0o604, True), (0o600, False)])
def test_a_token_file_that_others_can_read_is_named_with_the_remedy(
    tmp_path: Path, mode: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(mode)
    caplog.set_level(logging.WARNING)
    warn_of_readable_token({"RAY_AUTH_TOKEN_PATH": str(path)})
    expected = f"{path} contains the Ray token, and other users can read it (mode {mode:04o}); run `chmod 600 {path}`"
    assert [record.getMessage() for record in caplog.records] == [expected] * warned
    assert TOKEN not in caplog.text


def test_a_local_job_has_a_token_of_its_own_and_not_that_of_the_users_cluster(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
    prepare_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64 and os.environ["RAY_AUTH_TOKEN"] != TOKEN
    del os.environ["RAY_AUTH_TOKEN"]


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_an_empty_variable_is_no_token_of_a_local_job(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", blank)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", blank)
    prepare_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64 and "RAY_AUTH_TOKEN_PATH" not in os.environ


@pytest.mark.parametrize("place", ["folder", "pipe"])
def test_a_token_that_is_no_file_is_refused_before_ray_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / place))
    said = f"cluster.address is 'local' and its token is in {tmp_path / place}, which is no regular file"
    with pytest.raises(InputError, match=said), ray_session(ClusterSpec()):
        pass


def test_a_token_of_two_lines_is_refused_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ab\ncd")
    said = "cluster.address is 'local' and the token of RAY_AUTH_TOKEN is not one line"
    with pytest.raises(InputError, match=said), ray_session(ClusterSpec()):
        pass


def test_a_submitted_job_needs_an_absolute_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_storage_of_ray("./runs")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    for absolute in ("/mnt/runs", "~/runs"):
        refuse_storage_of_ray(absolute)
    for relative in ("./runs", "runs", "../runs"):
        with pytest.raises(InputError, match=rf"storage is '{relative}', .* --set storage=/mnt/shared/runs"):
            refuse_storage_of_ray(relative)
