"""Settings of the environment with which the libraries cannot be imported or do not work."""

import os
import sys
import warnings

from sdnet.errors import one_line, shown

_EXIT_CODE = 2
_FILTERS = "PYTHONWARNINGS"


def leave_if_pythonpath_may_be_wrong(program: str, error: ImportError) -> None:
    """Exit with one line if PYTHONPATH is set: its packages come before the installed ones. Otherwise do nothing.

    Clusters set it in login scripts, and compiled packages such as NumPy fit one version of Python only.
    """
    path = os.environ.get("PYTHONPATH", "")
    if not path:
        return
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    print(
        f"{program}: a package cannot be imported ({one_line(reason)}), and PYTHONPATH is {shown(path)}, which may "
        "name packages of another Python; unset it",
        file=sys.stderr,
    )
    sys.exit(_EXIT_CODE)


def let_warnings_raise_nothing() -> None:
    """Remove the filters that make errors of warnings, from this process and from those that it starts.

    PYTHONWARNINGS=error is for tests of one's own code. Ray and MindSpore use deprecated names of other libraries,
    and would fail at the first one.
    """
    kept = [one for one in warnings.filters if one[0] != "error"]
    warnings.resetwarnings()
    warnings.filters.extend(kept)  # type: ignore[attr-defined]
    if _FILTERS in os.environ:
        given = os.environ[_FILTERS].split(",")
        os.environ[_FILTERS] = ",".join(one for one in given if not _raises(one))


def _raises(warning_filter: str) -> bool:
    action = warning_filter.partition(":")[0].strip().lower()
    return action != "" and "error".startswith(action)  # Python accepts the first letters
