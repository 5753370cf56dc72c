"""Tests from all hosts at once that storage has the properties that a run relies on; see docs/storage.md.

Two rounds: in the first every host writes, in the second every host looks for what the others wrote. On one host both
rounds run there, which still proves that names are created once, and that objects are read and listed.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from orchestrator.check.judge import Finding
from orchestrator.engine.host.every_host import Answer, ask_every_host
from orchestrator.storage import DirectoryStorage, StorageError
from orchestrator.storage.mounts import mount_of

# sshfs keeps a directory in its cache for 20 s, NFS for up to 60 s.
LISTED_WITHIN_S = 60.0
# A longer delay is reported: a run would wait that long for each checkpoint that it finds only in a listing.
_SLOW_LISTING_S = 30.0
_READ_WITHIN_S = 10.0
_POLL_S = 0.2
_LEASE = "lease"
_REMEDY = "mount it in another way or use another file system: docs/storage.md says what a run needs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The first round on a host. created: it made the common name. again: a second creation of it was granted."""

    mount: str
    created: bool = False
    again: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The second round on a host.

    owner: who created the common name, as read here. unread: hosts whose object could not be read by its name.
    listed_s: seconds until all names were listed, None if they never were.
    """

    owner: str = ""
    unread: tuple[str, ...] = ()
    listed_s: float | None = None
    error: str = ""


def prove_contract(storage: DirectoryStorage) -> tuple[Finding, ...]:
    """Run both rounds on every host of the connected Ray; a finding for each host."""
    written = ask_every_host(partial(write, storage=storage), timeout_s=60.0)
    hosts = tuple(answer.address for answer in written if answer.value and not answer.value.error)
    timeout_s = LISTED_WITHIN_S + len(hosts) * _READ_WITHIN_S + 30.0
    seen = ask_every_host(partial(look, storage=storage, hosts=hosts), timeout_s=timeout_s)
    return tuple(judge_contract(written, seen))


def write(address: str, storage: DirectoryStorage) -> Written:
    """On a host: fill its cache of the listing, create the common name, and put the host's own object."""
    mount = mount_of(storage.root).type
    try:
        storage.list("")
        created = storage.create(_LEASE, address.encode())
        again = storage.create(_LEASE, b"another owner")
        storage.put(_name(address), address.encode())
    except StorageError as error:
        return Written(mount=mount, error=error.detail)
    return Written(mount=mount, created=created, again=again)


def look(address: str, storage: DirectoryStorage, hosts: Sequence[str]) -> Seen:
    """On a host: read the objects of all hosts by their names, then wait until they are listed."""
    began = time.monotonic()
    try:
        unread = tuple(host for host in hosts if not _reads(storage, _name(host), host.encode()))
        owner = storage.get(_LEASE).decode(errors="replace")
        names = {_name(host) for host in hosts if host not in unread}
        while not (listed := names <= set(storage.list(""))) and time.monotonic() - began < LISTED_WITHIN_S:
            time.sleep(_POLL_S)
    except StorageError as error:
        return Seen(error=error.detail)
    return Seen(owner=owner, unread=unread, listed_s=time.monotonic() - began if listed else None)


def judge_contract(written: Sequence[Answer[Written]], seen: Sequence[Answer[Seen]]) -> Iterator[Finding]:
    """A finding for each host that answered the first round. Pure."""
    creators = [answer.address for answer in written if answer.value and answer.value.created]
    owners = {answer.value.owner for answer in seen if answer.value and not answer.value.error}
    later = {answer.address: answer for answer in seen}
    for answer in written:
        if answer.value is None:
            yield _finding(answer.address, "unknown", [answer.error])
            continue
        problems = [answer.value.error] if answer.value.error else []
        if not problems and len(creators) != 1:
            by = ", ".join(creators) or "no host"
            problems.append(f"one name was created by {by}: creation must have exactly one winner")
        if answer.value.again:
            problems.append("a name that exists was created again")
        other = later.get(answer.address)
        problems += _problems_of_second_round(other, owners)
        listed_s = other.value.listed_s if other and other.value else None
        yield _finding(answer.address, answer.value.mount, problems, listed_s, len(written) - 1)


def _problems_of_second_round(answer: Answer[Seen] | None, owners: set[str]) -> list[str]:
    if answer is None or answer.value is None:
        return [answer.error if answer else "no answer"]
    seen = answer.value
    if seen.error:
        return [seen.error]
    problems = []
    if len(owners) > 1:
        problems.append(f"hosts read different contents of one name: {', '.join(sorted(owners))}")
    if seen.unread:
        problems.append(f"what {', '.join(seen.unread)} put could not be read within {_READ_WITHIN_S:.0f} s")
    if seen.listed_s is None:
        problems.append(f"new names are not listed within {LISTED_WITHIN_S:.0f} s")
    return problems


def _finding(
    host: str, mount: str, problems: list[str], listed_s: float | None = None, others: int = 0
) -> Finding:
    if problems:
        return Finding(host, "storage contract", "fail", f"{mount}: {'; '.join(problems)}", _REMEDY)
    slow = listed_s is not None and listed_s > _SLOW_LISTING_S
    read = f"objects of {others} other host(s) are read" if others else "no other host to compare with"
    seen = f"{mount}: one creator of a name, {read}, new names are listed after {listed_s or 0:.1f} s"
    remedy = "shorten the attribute and directory caches of the mount" if slow else ""
    return Finding(host, "storage contract", "warn" if slow else "ok", seen, remedy)


def _reads(storage: DirectoryStorage, name: str, content: bytes) -> bool:
    deadline = time.monotonic() + _READ_WITHIN_S
    while True:
        try:
            if storage.get(name) == content:
                return True
        except StorageError:
            pass  # a new name may be late; one that stays missing is a finding
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)


def _name(address: str) -> str:
    return f"put_{address.replace(':', '_')}"
