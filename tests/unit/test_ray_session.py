"""A session that Ray would run without authentication is refused before Ray is asked."""

import sys

import pytest

from orchestrator.ray_session import ray_session
from orchestrator.spec import ClusterSpec
from sdnet.errors import InputError


def test_ray_that_was_imported_without_authentication_is_refused_with_the_remedy(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_AUTH_MODE")
    with (
        pytest.raises(InputError, match=r"RAY_AUTH_MODE is not set .* set RAY_AUTH_MODE=token"),
        ray_session(ClusterSpec()),
    ):
        pass
