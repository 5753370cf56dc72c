"""How a training function reaches the workers: its module, its source files, and how it is called there."""

import functools
import hashlib
import importlib
import inspect
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError


def module_of(function: Callable[..., object]) -> str:
    """The name under which a worker imports the function's module.

    For a script, that is the name of its file; for `python -m package.module`, the module's full name.
    """
    module: str | None = getattr(plain(function), "__module__", "__main__")
    main = sys.modules["__main__"]
    if module not in ("__main__", None):
        return str(module)
    # `python - < script` gives the file `<stdin>`; a function of a bare `exec` has no module.
    file = Path(getattr(main, "__file__", None) or "<stdin>")
    if module is None or file.name == "<stdin>":
        raise InputError("the training function is defined interactively; put it into a file")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    if file.suffix != ".py" or "." in file.stem:
        raise InputError(
            f"the training function is in the script {file}, and ranks cannot import a file of that name; "
            "let it end with .py, without another dot"
        )
    return file.stem


def call_by_name(module: str, name: str, arguments: tuple[object, ...]) -> object:
    """On a worker: import a script as a module and call its function.

    MindSpore compiles the source of a Cell and looks up names in the Cell's module. A function of `__main__` would
    arrive as a copy without a module, and its Cells could not be compiled.
    """
    function: Any = importlib.import_module(module)
    for part in name.split("."):
        function = getattr(function, part)
    return function(*arguments)


def sources_of(function: Callable[..., object]) -> list[Path]:
    """The source files that a function may depend on, sorted.

    Those of its package, those beside its own file, and all modules that this process has imported from outside of
    Python's own folders, such as `site-packages`.
    """
    module = sys.modules[plain(function).__module__]
    package = module.__name__.partition(".")[0]
    files = set() if package == "__main__" else set(sources_of_package(package))
    files |= set(Path(str(module.__file__)).parent.glob("*.py"))
    installed = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib"))
    for imported in list(sys.modules.values()):
        file = getattr(imported, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and not file.startswith(installed):
            files.add(Path(file))
    return sorted(path for path in files if os.access(path, os.R_OK) and path.is_file())


def versions() -> list[str]:
    """Names and versions of all installed packages, sorted."""
    return sorted(f"{one.name} {one.version}" for one in distributions())


def sources_of_package(name: str) -> list[Path]:
    """All Python files of a package, sorted; for a plain module, its one file."""
    module = importlib.import_module(name)
    if not hasattr(module, "__path__"):
        return [Path(str(module.__file__))]
    return sorted(Path(next(iter(module.__path__))).rglob("*.py"))


def compile_key(sources: Iterable[Path], *values: object) -> str:
    """A hash of everything compiled graphs depend on: sources, values, and the versions of MindSpore and Python."""
    import mindspore

    parts = [
        _text_of(values),
        mindspore.__version__,
        sys.version,
        *(hashlib.sha256(path.read_bytes()).hexdigest() for path in sources),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _text_of(values: object) -> str:
    """A text that differs when the values do; the text of an object may also differ at each start."""
    from ray import cloudpickle

    try:
        return json.dumps(values, sort_keys=True)
    except (TypeError, ValueError):
        return str(cloudpickle.dumps(values).hex())


def plain(function: Callable[..., object]) -> Callable[..., object]:
    """The function inside partial objects and decorators."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.unwrap(function)
