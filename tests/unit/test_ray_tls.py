"""A cluster with TLS is joined with the certificates that Ray accepts, and asked for its token as one without."""

import datetime
import ipaddress
from collections.abc import Callable, Iterator
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

from orchestrator.ray_cluster.join import check_cluster
from sdnet.errors import InputError
from tests.unit.ray_heads import TOKEN, Head, fake_heads

pytestmark = pytest.mark.usefixtures("ray_token")


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

    def credentials() -> grpc.ServerCredentials:
        certificate, key = ((tmp_path / "cluster" / file).read_bytes() for file in ("cert", "key"))
        return grpc.ssl_server_credentials(((key, certificate),), certificate, require_client_auth=True)

    with fake_heads(credentials) as start:
        yield start


def refusal(address: str) -> str:
    with pytest.raises(InputError) as caught:
        check_cluster(address, "'h:1'")
    return str(caught.value)


def test_a_cluster_without_tls_is_refused_where_ray_would_try_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, with_tls: Callable[[str, str], None]
) -> None:
    with fake_heads() as head:
        address = head(TOKEN)
        monkeypatch.setenv("RAY_USE_TLS", "1")
        assert "RAY_USE_TLS is '1' and RAY_TLS_SERVER_CERT is '', which is no file" in refusal(address)
        write_certificate(tmp_path / "cluster")
        with_tls("cluster", "cluster")
        assert "'h:1' and RAY_USE_TLS is '1', but no TLS connection is possible" in refusal(address)


def test_a_cluster_with_tls_is_asked_for_its_token_as_one_without(
    tls_head: Head,
    ray_token: Callable[[str], None],
    with_tls: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    address = tls_head(TOKEN)
    with_tls("cluster", "cluster")
    assert "its token is not known here" in refusal(address)
    ray_token("b" * 64)
    assert "it refuses the token of RAY_AUTH_TOKEN" in refusal(address)
    ray_token(TOKEN)
    check_cluster(address, "'h:1'")
    assert "that cluster asks for no token" in refusal(tls_head(None))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    check_cluster(tls_head(None), "'h:1'")
    assert capfd.readouterr().err == ""


def test_a_certificate_that_the_other_side_does_not_know_is_named(
    tls_head: Head, tmp_path: Path, with_tls: Callable[[str, str], None], ray_token: Callable[[str], None]
) -> None:
    address = tls_head(TOKEN)
    ray_token(TOKEN)
    write_certificate(tmp_path / "other")
    with_tls("cluster", "other")
    assert f"does not match RAY_TLS_CA_CERT, which is '{tmp_path}/other/cert' (" in refusal(address)
    with_tls("other", "cluster")
    assert "but no TLS connection is possible there" in refusal(address)


@pytest.mark.parametrize(
    ("variable", "file", "said"),
    [
        (
            "SERVER_KEY",
            "other/key",
            "RAY_TLS_SERVER_KEY, which is '{}', cannot be used ([X509: KEY_VALUES_MISMATCH]",
        ),
        ("SERVER_KEY", "empty", "RAY_TLS_SERVER_KEY, which is '{}', cannot be used ("),
        ("SERVER_CERT", "empty", "RAY_TLS_SERVER_CERT, which is '{}', cannot be used ("),
        ("CA_CERT", "empty", "RAY_TLS_CA_CERT, which is '{}', cannot be used ("),
        ("CA_CERT", "other", "RAY_TLS_CA_CERT is '{}', which is no file that can be read; set"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_before_ray_starts(
    variable: str,
    file: str,
    said: str,
    tls_head: Head,
    tmp_path: Path,
    with_tls: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_certificate(tmp_path / "other")
    (tmp_path / "empty").write_text("")
    with_tls("cluster", "cluster")
    monkeypatch.setenv(f"RAY_TLS_{variable}", str(tmp_path / file))
    assert said.format(tmp_path / file) in refusal(tls_head(TOKEN))


def test_an_authority_that_does_not_call_itself_one_is_accepted_because_ray_accepts_it(
    tls_head: Head, tmp_path: Path, with_tls: Callable[[str, str], None], ray_token: Callable[[str], None]
) -> None:
    write_certificate(tmp_path / "authority")
    write_certificate(tmp_path / "cluster", authority=tmp_path / "authority")
    with_tls("cluster", "authority")
    ray_token(TOKEN)
    check_cluster(tls_head(TOKEN), "'h:1'")


def test_a_certificate_for_another_host_is_refused_because_ray_refuses_it(
    tls_head: Head, tmp_path: Path, with_tls: Callable[[str, str], None]
) -> None:
    write_certificate(tmp_path / "cluster", host="192.0.2.1")
    with_tls("cluster", "cluster")
    assert "certificate of that cluster is not for this host name or address; give" in refusal(
        tls_head(TOKEN)
    )


@pytest.mark.parametrize("off", ["0", "", "yes"])
def test_a_cluster_with_tls_is_named_where_tls_is_off(
    tls_head: Head, monkeypatch: pytest.MonkeyPatch, off: str
) -> None:
    monkeypatch.setenv("RAY_USE_TLS", off)
    assert (
        "'h:1' and that cluster uses TLS, which RAY_USE_TLS does not turn on here; set RAY_USE_TLS=1, and"
        in (refusal(tls_head(TOKEN)))
    )
