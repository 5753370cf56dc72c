"""A job joins a Ray cluster only when the cluster answers, takes its token, and asks for one."""

import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from orchestrator.engine.ray_train import ray_core
from orchestrator.job.spec.job_spec import ClusterSpec
from orchestrator.ray_cluster.join import (
    check_cluster,
    our_token,
    warn_of_open_cluster,
    warn_of_readable_token,
)
from orchestrator.ray_cluster.local import prepare_token
from orchestrator.ray_cluster.session import check_session, ray_session, refuse_storage_of_ray
from sdnet.errors import InputError
from tests.unit.ray_heads import TOKEN, Head, fake_heads
from tests.unprivileged import as_nobody, let_anybody_write

pytestmark = pytest.mark.usefixtures("ray_token")


@pytest.fixture
def head() -> Iterator[Head]:
    """Starts a head that asks for a token, or for none, and gives its address."""
    with fake_heads() as start:
        yield start


def test_the_right_token_is_accepted_silently(
    head: Head, ray_token: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    ray_token(TOKEN)
    check_cluster(head(TOKEN), "'h:1'")
    assert caplog.messages == []


def test_a_wrong_or_missing_token_is_named_with_its_source(
    head: Head, ray_token: Callable[[str], None], tmp_path: Path
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
    ray_token("b" * 64)
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


def test_a_cluster_with_tokens_is_refused_where_none_is_sent(
    head: Head, monkeypatch: pytest.MonkeyPatch, ray_token: Callable[[str], None]
) -> None:
    ray_token(TOKEN)
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
    assert not check_cluster(address, "'h:1'")
    warn_of_open_cluster("'h:1'")
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


def test_the_address_that_auto_found_is_named(
    head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = head(TOKEN)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)
    monkeypatch.setattr("orchestrator.engine.ray_train.ray_core.find_cluster", lambda given: address)
    said = rf"cluster.address is 'auto' \(Ray connects to {address}\) and its token is not known here"
    with pytest.raises(InputError, match=said), ray_session(ClusterSpec(address="auto")):
        pass
    monkeypatch.setenv("RAY_ADDRESS", "localhost:6379")
    said = rf"cluster.address is 'auto' \(RAY_ADDRESS is 'localhost:6379'; Ray connects to {address}\) and its token"
    with pytest.raises(InputError, match=said), ray_session(ClusterSpec(address="auto")):
        pass


def test_a_ray_that_ray_start_did_not_make_current_is_called_perhaps_private(
    head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = head(TOKEN)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    services = sys.modules[ray_core.canonicalize_bootstrap_address_or_die.__module__]
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: frozenset({address}))
    with pytest.raises(InputError) as caught:
        check_session(ClusterSpec(address="auto"))
    private = "that is the Ray of a process on this host, perhaps private to another job or user"
    # Ray replaces the loopback address by that of this host.
    assert re.match(rf"cluster\.address is 'auto' \(Ray connects to \S+; {private}\) and ", str(caught.value))


@pytest.mark.parametrize("others", [(), ("10.0.0.1:1", "10.0.0.2:2")], ids=["no other", "two others"])
def test_the_file_of_a_cluster_that_was_killed_is_named_with_the_remedy_and_no_cluster_of_others(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    others: tuple[str, ...],
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    services = sys.modules[ray_core.canonicalize_bootstrap_address_or_die.__module__]
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: frozenset(others))
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    with socket.socket() as free:
        free.bind(("", 0))
        address = f"{socket.gethostbyname('localhost')}:{free.getsockname()[1]}"
        file.write_text(f"{address}\n")
        with pytest.raises(InputError) as caught:
            check_session(ClusterSpec(address="auto"))
    assert re.fullmatch(
        rf"cluster\.address is 'auto' and {file} names \S+, where no Ray cluster answers \(Connection refused\); "
        "remove that file if the cluster has ended, or give host:port",
        str(caught.value),
    )
    assert capfd.readouterr() == ("", "")


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
