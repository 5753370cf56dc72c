"""The kind of a rank's error, by its type: of the training function, or of a part below the engine."""

import re
import threading
from pathlib import Path

import pytest

from orchestrator.engine.control.failures import FailureKind, RankFailed, RendezvousFailed, TrainingDiverged
from orchestrator.engine.rank.run import _check_value, _classified
from orchestrator.engine.rank.saver import CheckpointNotSaved
from orchestrator.engine.rank.start import _rendezvous_errors, preload
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
        (SystemExit(0), FailureKind.STEP_FAILED),
        (MemoryError(), FailureKind.OUT_OF_MEMORY),
        (TrainingDiverged(7), FailureKind.LOSS_NOT_FINITE),
        (HostIsDrained(1, 7), FailureKind.PREEMPTED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_has_the_kind_of_its_type_and_never_of_its_name_or_text(
    error: BaseException, kind: FailureKind
) -> None:
    failed = _classified(error, 3, 7)
    assert (failed.kind, failed.step) == (kind, 7)


def test_an_error_of_the_training_function_names_its_class_and_comes_in_one_line() -> None:
    failed = _classified(ValueError("\n shapes differ\n see above"), 3, 7)
    assert isinstance(failed, RankFailed) and str(failed) == "ValueError: shapes differ"
    assert failed.rank == 3
    assert str(_classified(SystemExit(0), 3, 7)) == "SystemExit: 0"


def test_an_error_of_mindspore_is_named_by_its_title_and_text_and_not_by_a_rule_of_dashes() -> None:
    rule = "-" * 52
    text = f"\n{rule}\n- Memory not enough:\n{rule}\nMemory isn't enough, alloc size: 8B.\n\n{rule}\n- C++ Call Stack:"
    failed = _classified(RuntimeError(text), 0, 0)
    assert str(failed) == "RuntimeError: Memory not enough: Memory isn't enough, alloc size: 8B."
    assert str(_classified(ValueError("-1 is negative"), 0, 0)) == "ValueError: -1 is negative"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), AssertionError(), MemoryError()])
def test_an_error_without_a_message_is_named_by_its_class(error: BaseException) -> None:
    assert str(_classified(error, 3, 7)) == type(error).__name__


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import module_that_nobody_has", "ModuleNotFoundError: No module named 'module_that_nobody_has'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(2)", "SystemExit: 2"),
    ],
)
def test_a_module_that_a_rank_cannot_import_is_named_with_the_reason(
    source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_training.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        InputError, match=rf"cannot import their_training \({re.escape(reason)}\); import it in"
    ):
        preload(("their_training",))


def test_what_mindspore_says_of_a_rendezvous_that_failed_is_one_line_of_a_type_of_ours() -> None:
    with pytest.raises(RendezvousFailed) as caught, _rendezvous_errors(1):
        raise RuntimeError(
            "\nFailed to fetch the address of rank 0\n----\n- C++ Call Stack: (For framework)\n"
        )
    assert str(caught.value) == (
        "rank 1 could not join the group (Failed to fetch the address of rank 0); check the network between the "
        "hosts with `sdnet-orchestrate check`"
    )


def test_a_value_that_cannot_be_sent_to_the_launcher_is_refused() -> None:
    _check_value({"loss": 0.5})
    with pytest.raises(InputError, match="returned a lock, which cannot be sent to the launcher .*call fit"):
        _check_value(threading.Lock())
