"""What an error of a rank is, by its type: the training function's own, or of what the engine stands on."""

import pytest

from orchestrator.engine.control.failures import FailureKind, RankFailed, TrainingDiverged
from orchestrator.engine.rank.run import _sorted
from orchestrator.engine.rank.saver import CheckpointNotSaved
from orchestrator.engine.session import HostIsDrained
from orchestrator.errors import CorruptData, InputError
from orchestrator.storage import StorageMisused, StorageUnavailable


class StorageErrorOfAnotherLibrary(Exception):
    """Has a name like one of ours."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(5, "Input/output error"), FailureKind.STEP_FAILED),
        (FileNotFoundError(2, "No such file", "words.txt"), FailureKind.STEP_FAILED),
        (ConnectionResetError("by peer"), FailureKind.STEP_FAILED),
        (StorageErrorOfAnotherLibrary("OSError: storage is away"), FailureKind.STEP_FAILED),
        (CorruptData("words.npz", "checksum", "copy it again"), FailureKind.STEP_FAILED),
        (StorageUnavailable("a", "Transport endpoint is not connected"), FailureKind.STORAGE),
        (CheckpointNotSaved(7, "No space left on device"), FailureKind.STORAGE),
        (StorageMisused("a", "Is a directory"), FailureKind.PATH_BLOCKED),
        (InputError("batch is 0"), FailureKind.REFUSED),
        (MemoryError(), FailureKind.OUT_OF_MEMORY),
        (TrainingDiverged(7), FailureKind.LOSS_NOT_FINITE),
        (HostIsDrained(1, 7), FailureKind.PREEMPTED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_has_the_kind_of_its_type_and_never_of_its_name_or_text(
    error: Exception, kind: FailureKind
) -> None:
    failed = _sorted(error, 3, 7)
    assert (failed.kind, failed.step) == (kind, 7)


def test_an_error_of_the_training_function_names_its_class_and_comes_in_one_line() -> None:
    failed = _sorted(ValueError("\n shapes differ\n see above"), 3, 7)
    assert isinstance(failed, RankFailed) and str(failed) == "ValueError: shapes differ"
    assert failed.rank == 3
