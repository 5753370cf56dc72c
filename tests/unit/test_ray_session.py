"""A session that Ray would run without authentication is refused before Ray is asked."""

import sys

import pytest

from orchestrator.job.spec.job_spec import ClusterSpec
from orchestrator.ray_cluster.session import ray_session
from sdnet.errors import InputError


def test_ray_that_was_imported_without_authentication_is_refused_with_the_remedy(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_AUTH_MODE")
    with (
        pytest.raises(InputError, match=r"RAY_AUTH_MODE is not set .* set RAY_AUTH_MODE=token"),
        ray_session(ClusterSpec()),
    ):
        pass
