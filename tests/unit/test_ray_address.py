"""The address of a Ray cluster is host:port; other values of RAY_ADDRESS are refused by name."""

import sys

import pytest

from orchestrator.job.plan import build_plan
from orchestrator.job.spec.job_spec import ClusterSpec, spec_from_dict
from orchestrator.ray_cluster.address import address_to_join, host_and_port
from orchestrator.ray_cluster.local import printable_command_line
from orchestrator.ray_cluster.session import ray_session
from sdnet.errors import InputError


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("h:6379", ("h", 6379)), ("10.0.0.1:1", ("10.0.0.1", 1)), ("[::1]:6379", ("::1", 6379)),
        ("[fe80::1%eth0]:6379", ("fe80::1%eth0", 6379)), ("::1:6379", None), ("h", None), ("h:0", None),
        ("h:65536", None), ("h:\uff16", None), ("http://h:8265", None), ("ray://h:10001", None), (":1", None),
        ("10.0.0..1:6379", None), (f"{'h' * 64}:1", None), ("[zz]:1", None), ("[1.2.3.4]:1", None),
        ("h.:1", ("h.", 1)),
    ],
)  # fmt: skip
def test_an_address_is_a_host_and_a_port(address: str, place: tuple[str, int] | None) -> None:
    assert host_and_port(address) == place


def test_ipv6_is_an_address_of_a_job_in_a_file_and_in_an_override() -> None:
    given = spec_from_dict({"name": "a", "cluster": {"address": "[::1]:6379"}}, "job")
    assert given.cluster.address == "[::1]:6379"
    assert spec_from_dict({"name": "a"}, "job", ("cluster.address=[::1]:6379",)) == given
    with pytest.raises(InputError, match=r"is \"::1:6379\"; use .* in brackets: \[::1\]:6379"):
        spec_from_dict({"name": "a", "cluster": {"address": "::1:6379"}}, "job")


@pytest.mark.parametrize("given", ["http://127.0.0.1:8265", "ray://h:10001", "local", "h"])
def test_a_ray_address_that_no_job_can_join_is_named_before_ray_is_imported(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", given)
    with (
        pytest.raises(InputError, match=f'is auto and .* RAY_ADDRESS is "{given}", which a job'),
        ray_session(ClusterSpec(address="auto")),
    ):
        pass


def test_a_plan_warns_of_a_ray_address_that_a_launch_would_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_from_dict({"name": "a", "cluster": {"address": "auto"}}, "job")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert build_plan(spec).warning == ""
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    plan = build_plan(spec)
    assert "unset it, or set it to the host:port of `ray start`" in plan.warning


def test_auto_joins_what_ray_address_names_and_other_addresses_ignore_it() -> None:
    assert address_to_join("auto", {"RAY_ADDRESS": "h:1"}) == "h:1"
    assert address_to_join("auto", {}) == address_to_join("auto", {"RAY_ADDRESS": ""}) == "auto"
    assert address_to_join("local", {"RAY_ADDRESS": "http://h:8265"}) == "local"


def test_ray_gets_a_command_line_that_it_can_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["sdnet-orchestrate", "launch", "/data/\udcd6\udcd0"])
    assert printable_command_line() == "sdnet-orchestrate launch /data/\\xd6\\xd0"
