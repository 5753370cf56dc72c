"""The kind of a rank's error, by its type: of the training function, or of a part below the engine."""

import pytest

from orchestrator.engine.control.failures import FailureKind, RankFailed, RendezvousFailed, TrainingDiverged
from orchestrator.engine.rank.run import _sorted
from orchestrator.engine.rank.saver import CheckpointNotSaved
from orchestrator.engine.rank.start import _rendezvous_errors
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


def test_what_mindspore_says_of_a_rendezvous_that_failed_is_one_line_of_a_type_of_ours() -> None:
    with pytest.raises(RendezvousFailed) as caught, _rendezvous_errors(1):
        raise RuntimeError(
            "\nFailed to fetch the address of rank 0\n----\n- C++ Call Stack: (For framework)\n"
        )
    assert str(caught.value) == (
        "rank 1 could not join the group (Failed to fetch the address of rank 0); check the network between the "
        "hosts with `sdnet-orchestrate check`"
    )
