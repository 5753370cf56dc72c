"""The findings of `check` on storage that fulfils the contract, and on storage that does not."""

from pathlib import Path

import pytest

from orchestrator.check.contract import Seen, Written, judge_contract, look, write
from orchestrator.check.judge import Finding
from orchestrator.engine.host.every_host import Answer
from orchestrator.storage import DirectoryStorage


def said(address: str, value: object, error: str = "") -> Answer:
    return Answer(address, value, error, 0.0, 0.0)


def judged(*hosts: tuple[Written | None, Seen | None]) -> list[Finding]:
    """Findings about hosts named a, b, ... that answered so."""
    names = "abc"[: len(hosts)]
    written = [said(name, host[0], "no answer") for name, host in zip(names, hosts, strict=True)]
    seen = [said(name, host[1], "no answer") for name, host in zip(names, hosts, strict=True)]
    return list(judge_contract(written, seen))


WON, LOST = Written(mount="nfs4", created=True), Written(mount="nfs4")
SAW = Seen(owner="a", listed_s=0.5)


def test_a_directory_on_a_local_disk_fulfils_the_contract(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    written = [said(name, write(name, storage)) for name in ("a", "b")]
    seen = [said(name, look(name, storage, ("a", "b"))) for name in ("a", "b")]
    found = list(judge_contract(written, seen))
    assert [(finding.host, finding.state) for finding in found] == [("a", "ok"), ("b", "ok")]
    assert "one creator of a name, objects of 1 other host(s) are read" in found[0].seen


def test_a_single_host_proves_what_it_can(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    [found] = judge_contract([said("a", write("a", storage))], [said("a", look("a", storage, ("a",)))])
    assert found.state == "ok" and "no other host to compare with" in found.seen


@pytest.mark.parametrize(
    ("hosts", "problem"),
    [
        (
            [(WON, SAW), (WON, SAW)],
            "nfs4: one name was created by a, b: creation must have exactly one winner",
        ),
        ([(LOST, SAW), (LOST, SAW)], "created by nobody"),
        ([(Written(mount="nfs4", created=True, again=True), SAW)], "a name that exists was created again"),
        (
            [(WON, SAW), (LOST, Seen(owner="b", listed_s=1.0))],
            "hosts read different contents of one name: a, b",
        ),
        ([(WON, Seen(owner="a", unread=("b",), listed_s=1.0)), (LOST, SAW)], "what b put could not be read"),
        ([(WON, Seen(owner="a")), (LOST, SAW)], "new names are not listed within 60 s"),
        ([(Written(mount="cifs", error="Read-only file system"), SAW)], "cifs: Read-only file system"),
        ([(WON, Seen(error="Stale file handle"))], "nfs4: Stale file handle"),
        ([(None, None)], "unknown: no answer"),
        ([(WON, None)], "nfs4: no answer"),
    ],
)
def test_what_is_missing_is_named_with_the_type_of_the_mount(hosts, problem: str) -> None:
    found = judged(*hosts)
    assert found[0].state == "fail" and problem in found[0].seen
    assert "docs/storage.md" in found[0].remedy


def test_a_listing_that_lags_is_no_failure() -> None:
    [quick, slow] = judged((WON, SAW), (LOST, Seen(owner="a", listed_s=45.0)))
    assert (quick.state, slow.state) == ("ok", "warn")
    assert "listed after 45.0 s" in slow.seen


def test_storage_that_refuses_a_host_is_a_finding_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    storage = DirectoryStorage(tmp_path / "file")
    assert write("a", storage).error == look("a", storage, ()).error == "Not a directory"
