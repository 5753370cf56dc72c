"""Environment variables with whose values MindSpore ends in a traceback of its C++ code."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sdnet.errors import InputError, shown

_LEVELS, _SWITCH = ("0", "1", "2", "3", "4"), ("0", "1")
# MindSpore reads an empty value as if the variable was not set.
_CHOICES = {
    "GLOG_v": _LEVELS,
    "GLOG_stderrthreshold": _LEVELS,
    "GLOG_logtostderr": _SWITCH,
    "MS_JIT": _SWITCH,
    "MS_DEV_JIT_SYNTAX_LEVEL": ("0", "1", "2"),
}


def refuse_variables_mindspore_fails_on(environment: Mapping[str, str] = os.environ) -> None:
    """Raise InputError for a variable that MindSpore cannot use. Call it before MindSpore is imported."""
    for name, choices in _CHOICES.items():
        value = environment.get(name, "").strip()
        if value and value not in choices:
            raise InputError(
                f"{name} is {shown(value)}, which MindSpore cannot read; set it to one of {', '.join(choices)}, "
                "or unset it"
            )
    if environment.get("GLOG_logtostderr") == "0":
        _check_log_folder(environment.get("GLOG_log_dir", ""))
    dump = environment.get("MINDSPORE_DUMP_CONFIG", "")
    if dump and not Path(dump).is_file():
        raise InputError(f"MINDSPORE_DUMP_CONFIG is {shown(dump)}, which is no file; correct it, or unset it")


def _check_log_folder(folder: str) -> None:
    """Refuse a folder that MindSpore cannot make or write in; leaves nothing there."""
    nearest = Path(folder).absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    try:
        if not folder:
            raise FileNotFoundError
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError:
        raise InputError(
            f"GLOG_logtostderr is 0 and GLOG_log_dir is {shown(folder)}, where no folder can be written; "
            "set it to a folder that every rank may write, or unset GLOG_logtostderr"
        ) from None
