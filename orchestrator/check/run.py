"""Collects facts from every host of a job's cluster, and judges them."""

import errno
import secrets
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

from orchestrator.ascend.inventory.device_report import HostInventory
from orchestrator.check.contract import LISTED_WITHIN_S, prove_contract
from orchestrator.check.facts import HostFacts, Questions, gather
from orchestrator.check.judge import Finding, Needs, judge_capacity, judge_group, judge_host
from orchestrator.check.ping import ping_neighbours
from orchestrator.engine.host.every_host import Answer, ask_every_host
from orchestrator.errors import InputError as OrchestratorInputError
from orchestrator.job.plan import build_plan
from orchestrator.job.run_directory import RunDirectory
from orchestrator.job.spec.job_spec import JobSpec
from orchestrator.ray_cluster.session import ray_session
from orchestrator.storage import DirectoryStorage
from sdnet.errors import InputError
from sdnet.paths import full_path


def run_check(spec: JobSpec, *, clean: bool = False, ping: bool = False) -> tuple[Finding, ...]:
    """Collect facts from all hosts of the job's cluster and judge them; leaves nothing behind on storage.

    Starts Ray for a job with `address: local`. Raises InputError when the cluster or the storage
    cannot be reached from here.
    """
    needs, plan_finding = _needs(spec)
    # A cluster that is too small for the job must become a finding, and not end the check.
    with ray_session(spec.cluster, must_hold_job=False):
        resources = _ray_resources()
        answers, contract = _ask(spec, clean=clean)
        inventories = _inventories(spec, answers)
        pings = ping_neighbours(inventories) if ping else ()
    findings = [] if plan_finding is None else [plan_finding]
    findings.extend(_missing_hosts(spec, answers))
    reference = next((answer.value for answer in answers if answer.value is not None), None)
    for answer in answers:
        findings.extend(judge_host(answer, reference, spec.cluster, needs, several=len(answers) > 1))
    findings.extend(contract)
    findings.extend(pings)
    findings.append(judge_capacity(resources, spec.cluster))
    if spec.cluster.device == "ascend":
        findings.append(judge_group(inventories, spec.cluster))
    return tuple(findings)


def _ray_resources() -> dict[str, dict[str, float]]:
    import ray

    return {node["NodeManagerAddress"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _needs(spec: JobSpec) -> tuple[Needs, Finding | None]:
    """What the job needs. A job that cannot be planned is a finding, and its needs are 0."""
    try:
        planned = build_plan(spec).needs
    except (InputError, OrchestratorInputError) as error:
        seen, _, remedy = str(error).rpartition("; ")
        return Needs(0, 0), Finding("cluster", "job", "fail", seen or str(error), remedy)
    return Needs(planned["disk_bytes"], planned["memory_bytes_per_rank"]), None


def _ask(spec: JobSpec, *, clean: bool) -> tuple[tuple[Answer[HostFacts], ...], tuple[Finding, ...]]:
    """The facts about every host, and the findings of the storage test that all hosts make together."""
    storage = RunDirectory.of(spec.storage, spec.name).root.parent
    token = secrets.token_hex(16)
    try:
        storage.mkdir(parents=True, exist_ok=True)
        probe = Path(tempfile.mkdtemp(prefix=".check_", dir=storage))
        (probe / "token").write_text(token)
    except OSError as error:
        raise InputError(
            f"storage {storage} cannot be written ({error.strerror}); give a writable directory"
        ) from None
    given = spec.data.images or spec.data.prepared
    questions = Questions(
        probe=probe,
        token=token,
        data=full_path(given, "data") if given else None,
        ascend=spec.cluster.device == "ascend",
        stated={host.address: dict(host.devices) for host in spec.cluster.hosts},
        clean=clean,
    )
    try:
        answers = ask_every_host(partial(gather, questions=questions), timeout_s=180.0)
        return answers, prove_contract(DirectoryStorage(probe))
    finally:
        _remove(probe)


def _remove(probe: Path) -> None:
    """Delete the probe. This host may see the files of other hosts late, so a failed deletion is retried."""
    deadline = time.monotonic() + LISTED_WITHIN_S
    while True:
        try:
            shutil.rmtree(probe)
            return
        except OSError as error:
            if error.errno == errno.ENOENT and not probe.exists():
                return
            # A listing that lags shows deleted names, or lacks existing ones.
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise InputError(f"{probe} could not be deleted ({error.strerror}); delete it") from None
        time.sleep(1.0)


def _missing_hosts(spec: JobSpec, answers: tuple[Answer[HostFacts], ...]) -> list[Finding]:
    here = {answer.address for answer in answers}
    return [
        Finding(
            host.address, "answer", "fail", "not in the Ray cluster", "run `ray start` there, or leave it out"
        )
        for host in spec.cluster.hosts
        if host.address not in here
    ]


def _inventories(spec: JobSpec, answers: tuple[Answer[HostFacts], ...]) -> list[HostInventory]:
    """The inventories of the hosts that the job names, or of all hosts if it names none."""
    named = {host.address for host in spec.cluster.hosts}
    found = [answer.value.inventory for answer in answers if answer.value and answer.value.inventory]
    return [inventory for inventory in found if not named or inventory.address in named]
