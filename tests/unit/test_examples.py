"""The examples of training functions: the engine needs few changes to a program."""

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("name", ["digits", "sequence"])
def test_a_program_is_at_most_thirty_lines_longer_on_a_cluster(name: str) -> None:
    alone, cluster = (
        (EXAMPLES / f"{name}{kind}.py").read_text(encoding="utf-8").splitlines() for kind in ("", "_cluster")
    )
    assert 0 < len(cluster) - len(alone) <= 30
