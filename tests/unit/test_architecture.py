"""Dependencies point down: cli -> {job, check, drill, report, register} -> engine -> lower packages -> errors.

In `sdnet/`: cli -> {training, preparation, registration} -> evaluation -> {parameters, network, data} -> errors.
"""

import ast
import functools
import io
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.unit.ray_names import assigned_names_of_ray, private_names_of_ray

ROOT = Path(__file__).resolve().parents[2]
ORCHESTRATOR, SDNET = ROOT / "orchestrator", ROOT / "sdnet"
SOURCES = sorted([*SDNET.rglob("*.py"), *ORCHESTRATOR.rglob("*.py")])
PACKAGES = sorted(path.parent for path in SOURCES if path.name == "__init__.py")
# Modules that decide or describe; they must be testable without a cluster or a network.
PURE = (
    "ascend/placement.py",
    "ascend/environment.py",
    "ascend/rank_table",
    "engine/environment.py",
    "engine/rank/interval.py",
    "job/plan.py",
    "job/planned_ranks.py",
    "job/spec",
    "drill/faults.py",
    "drill/outcome.py",
)
_BASE = {"storage", "telemetry", "process_identity", "module_path", "threads", "errors"}
_ENGINE = {"engine", "ascend", *_BASE}
# What each package may import; a dotted name allows that part of a package and nothing else of it.
MAY_IMPORT = {
    "errors": set[str](),
    "process_identity": set[str](),
    "module_path": set[str](),
    "threads": set[str](),
    "storage": {"process_identity", "threads", "errors"},
    "telemetry": {"storage", "threads", "errors"},
    "ascend": {"errors"},
    "engine": {"ascend", *_BASE},
    # The only package that uses Ray's private names is part of the engine; starting Ray needs some.
    "ray_cluster": {"engine.ray_train", "errors", "sdnet"},
    # `job` and `report` import each other: a launch writes its run's report, and a report reads the files of a run.
    "report": {"job.data", "job.plan", "job.run_directory", "job.spec", "sdnet", *_ENGINE},
    "job": {"report", "ray_cluster", "sdnet", *_ENGINE},
    "register": {"job.spec", "ray_cluster", "sdnet", *_ENGINE},
    "check": {"job", "ray_cluster", "sdnet", *_ENGINE},
    "drill": {"job", "report", "ray_cluster", "sdnet", *_ENGINE},
    "cli": {"job", "check", "drill", "report", "register", "ray_cluster", "sdnet", *_ENGINE},
}
_SDNET_BASE = {"errors", "config", "files", "paths", "recipes"}
# The same for the parts of `sdnet/`.
SDNET_MAY_IMPORT = {
    "errors": set[str](),
    "paths": {"errors"},
    "files": {"errors"},
    "config": {"errors"},
    "recipes": {"config", "errors"},
    "measures": set[str](),
    "network": {"config"},
    "images": {"files"},
    "data": _SDNET_BASE,
    "parameters": _SDNET_BASE,
    "preparation": {"data", "images", *_SDNET_BASE},
    "evaluation": {"data", "network", "parameters", "preparation", *_SDNET_BASE},
    "registration": {"evaluation", "images", "measures", "network", "parameters", *_SDNET_BASE},
    "training": {"data", "evaluation", "network", "parameters", *_SDNET_BASE},
    "export": {"evaluation", "network", "parameters", *_SDNET_BASE},
    "api": {"measures", "registration", *_SDNET_BASE},
    "cli": {
        "api",
        "data",
        "evaluation",
        "export",
        "parameters",
        "preparation",
        "registration",
        "training",
        *_SDNET_BASE,
    },
}
# A folder with more modules than this is hard to read at a glance; split it by reason to change.
MOST_MODULES = 12


@functools.cache
def imported_modules(path: Path) -> set[str]:
    """Every module the file imports, also inside functions; of `from a import b` both `a` and `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def imported_packages(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imported_modules(path)}


def texts(paths: Iterable[Path]) -> list[tuple[Path, str]]:
    return [(path, path.read_text(encoding="utf-8")) for path in paths]


def files_of(name: str) -> list[Path]:
    """The files of a package, or the one file of that name, in `orchestrator/`."""
    path = ORCHESTRATOR / name
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    assert files, f"nothing is at {path}"
    return files


def forbidden_imports(package: str) -> Iterator[str]:
    allowed = {package, *MAY_IMPORT[package]}
    for path in files_of(package):
        for module in imported_modules(path):
            top, _, rest = module.partition(".")
            if top == "orchestrator" and rest:
                # `from orchestrator.job import spec` gives `job` as well, which says less than `job.spec`.
                is_allowed = any(rest == name or rest.startswith(f"{name}.") for name in allowed)
                is_prefix = any(name.startswith(f"{rest}.") for name in allowed)
                if not is_allowed and not is_prefix:
                    yield f"{path.relative_to(ROOT)} imports {module}"
            elif top == "sdnet" and "sdnet" not in allowed:
                yield f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize(
    ("top", "table"), [(ORCHESTRATOR, MAY_IMPORT), (SDNET, SDNET_MAY_IMPORT)], ids=["orchestrator", "sdnet"]
)
def test_every_package_has_its_place_in_the_order(top: Path, table: dict[str, set[str]]) -> None:
    found = {path.stem for path in top.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found - {"__init__", "__main__"} == set(table)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_dependencies_point_down(package: str) -> None:
    assert list(forbidden_imports(package)) == []


@pytest.mark.parametrize("package", SDNET_MAY_IMPORT)
def test_dependencies_of_sdnet_point_down(package: str) -> None:
    path = SDNET / package
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    allowed = {package, *SDNET_MAY_IMPORT[package]}
    imported = {
        (file.name, module.split(".")[1])
        for file in files
        for module in imported_modules(file)
        if module.startswith("sdnet.")
    }
    assert {(file, part) for file, part in imported if part not in allowed} == set()


@pytest.mark.parametrize("path", sorted(SDNET.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_sdnet_imports_neither_ray_nor_the_orchestrator(path: Path) -> None:
    assert not imported_packages(path) & {"ray", "orchestrator"}


@pytest.mark.parametrize("name", PURE)
def test_what_decides_imports_neither_ray_nor_mindspore(name: str) -> None:
    for path in files_of(name):
        assert not imported_packages(path) & {"ray", "mindspore"}, path


def test_a_stage_does_not_know_who_runs_it() -> None:
    for path in files_of("job/stages"):
        assert not imported_modules(path) & {"orchestrator.job.launch", "orchestrator.job.demo"}, path


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_package_can_be_read_at_a_glance(folder: Path) -> None:
    modules = [path.name for path in folder.glob("*.py") if not path.name.startswith("__")]
    assert len(modules) <= MOST_MODULES, modules


def test_every_folder_of_modules_is_a_package() -> None:
    assert {path.parent for path in SOURCES} == set(PACKAGES)


@pytest.mark.parametrize("unsafe", ["allow_pickle=True", "shell=True", "yaml.load("])
def test_nothing_is_loaded_through_pickle_and_no_shell_is_run(unsafe: str) -> None:
    assert [path for path, text in texts(SOURCES) if unsafe in text] == []
    assert [path for path in SOURCES if "pickle" in imported_packages(path)] == []


def test_every_module_says_what_it_is() -> None:
    assert [path for path, text in texts(SOURCES) if not ast.get_docstring(ast.parse(text))] == []


CONTROL = sorted((ROOT / "orchestrator" / "engine" / "control").glob("*.py"))


@pytest.mark.parametrize("path", CONTROL, ids=lambda p: p.name)
def test_the_controllers_decisions_know_neither_ray_nor_mindspore(path: Path) -> None:
    assert not imported_packages(path) & {"ray", "mindspore"}


# They show events to people or measure with them. `launch` reads them for the summary that it writes at the end.
READS_EVENTS = ("telemetry/record.py", "report/", "drill/", "job/launch.py")


def test_nothing_that_trains_reads_the_events_so_nothing_is_decided_from_them() -> None:
    readers = {f"orchestrator.telemetry.record.{name}" for name in ("EventReader", "follow", "parse")}
    found = [
        name
        for path in ORCHESTRATOR.rglob("*.py")
        if imported_modules(path) & readers
        and not (name := path.relative_to(ORCHESTRATOR).as_posix()).startswith(READS_EVENTS)
    ]
    assert found == []


DOOR = ROOT / "orchestrator" / "engine" / "ray_train"
EVERYWHERE = sorted(
    path
    for top in ("sdnet", "orchestrator", "tests", "benchmarks", "examples")
    for path in (ROOT / top).rglob("*.py")
)
# Tests that are about Ray's private names, each with the reason.
MAY_USE_PRIVATE_NAMES = {
    "tests/unit/engine/test_ray_contract.py": "it says which private name moved",
    "tests/unit/engine/test_ray_contract_values.py": "it says which value or record changed",
    "tests/unit/engine/test_ray_replaced.py": "it proves what the replaced names do",
    "tests/integration/test_faults_step.py": "it sets the memory limit from what Ray itself measures",
}


def test_only_the_package_ray_train_uses_rays_private_modules() -> None:
    used = {str(path.relative_to(ROOT)): private_names_of_ray(text) for path, text in texts(EVERYWHERE)}
    inside = str(DOOR.relative_to(ROOT))
    others = {path for path, names in used.items() if names and not path.startswith(f"{inside}/")}
    assert others == set(MAY_USE_PRIVATE_NAMES)


@pytest.mark.parametrize(
    "source",
    [
        "import ray._private.utils",
        "import ray._private as p",
        "from ray import _private",
        "from ray.train.v2 import _internal",
        "from ray.train.v2._internal.exceptions import X",
        "from ray.core.generated.common_pb2 import ActorDeathCause",
        "from ray.autoscaler._private.util import validate_config",
        "import ray\ndef f():\n    return ray._raylet.NAME",
        "import ray as r\nr._raylet.NAME",
        "from ray import train as t\nt.v2._internal.util",
        "import ray\ngetattr(ray, '_private').state",
        "import importlib\nimportlib.import_module('ray._private.state')",
        "patch.setattr('ray._private.services.ConsolePopen', print)",
    ],
)
def test_the_search_for_private_names_finds_each_way_to_write_one(source: str) -> None:
    assert private_names_of_ray(source)


def test_one_file_alone_replaces_names_of_ray() -> None:
    """Elsewhere nothing of Ray is assigned to, and `setattr` is used for our own objects only."""
    ours = {"sdnet/cli/streams.py": "it sets streams of `sys`"}
    replacing = set()
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        if "setattr" in calls or assigned_names_of_ray(source):
            replacing.add(str(path.relative_to(ROOT)))
    assert replacing - set(ours) == {"orchestrator/engine/ray_train/ray_start.py"}


@pytest.mark.parametrize(
    "source",
    [
        "import ray\nray.nodes = list",
        "from ray._private import services as s\ns.ConsolePopen = print",
        "import ray.train as t\nt.a, t.b = 1, 2",
        "import ray\ndel ray.nodes",
    ],
)
def test_the_search_for_replaced_names_finds_each_way_to_replace_one(source: str) -> None:
    assert assigned_names_of_ray(source)


MOST_ANY_PER_THOUSAND_LINES = 6


def test_any_is_rare() -> None:
    """Each `Any` switches type checks off for whatever it touches; imports of it count, too."""
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    names = [
        token
        for path in SOURCES
        for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
        if token.type == tokenize.NAME and token.string == "Any"
    ]
    assert len(names) <= MOST_ANY_PER_THOUSAND_LINES * text.count("\n") / 1000
