"""An import that fails because PYTHONPATH names the packages of another Python."""

import os
import sys

from sdnet.errors import one_line, shown

_EXIT_CODE = 2


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
