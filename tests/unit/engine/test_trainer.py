"""How a `MindSporeTrainer` handles its arguments, before anything starts."""

from pathlib import Path

from ray.train import RunConfig

from orchestrator import MindSporeConfig, MindSporeTrainer


def train() -> None:
    """A training function that is never called."""


def test_two_runs_that_are_given_one_configuration_do_not_share_it(tmp_path: Path) -> None:
    given = MindSporeConfig(threads=2)
    for name in ("first", "second"):
        run = RunConfig(name=name, storage_path=str(tmp_path))
        MindSporeTrainer(train, mindspore_config=given, run_config=run)
    assert given == MindSporeConfig(threads=2)
