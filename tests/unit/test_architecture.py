"""Dependencies point down: cli -> {launch, check, drill, report} -> stages -> engine -> what it stands on."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*ROOT.glob("sdnet/**/*.py"), *ROOT.glob("orchestrator/**/*.py")])
# Modules that decide or describe; they must be testable without a cluster or a network.
PURE = (
    "orchestrator/ascend/rank_table.py",
    "orchestrator/ascend/placement.py",
    "orchestrator/ascend/environment.py",
    "orchestrator/engine/rank/interval.py",
    "orchestrator/engine/environment.py",
    "orchestrator/planned_ranks.py",
    "orchestrator/drill/faults.py",
    "orchestrator/drill/outcome.py",
    "orchestrator/spec.py",
    "orchestrator/plan.py",
)
# What each layer of the orchestrator must not reach up to.
ABOVE = {
    "ascend": {"cli", "drill", "job", "launch", "stages"},
    "stages": {"cli", "drill", "launch"},
    "register": {"cli", "drill", "launch"},
    "report": {"cli", "drill", "launch", "stages"},
    "drill": {"cli"},
}


def imported_modules(path: Path) -> set[str]:
    """Every module the file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def imported_packages(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imported_modules(path)}


@pytest.mark.parametrize("path", sorted(ROOT.glob("sdnet/**/*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_sdnet_knows_nothing_of_ray_or_the_orchestrator(path: Path) -> None:
    assert not imported_packages(path) & {"ray", "orchestrator"}


@pytest.mark.parametrize("name", PURE)
def test_what_decides_imports_neither_ray_nor_mindspore(name: str) -> None:
    assert not imported_packages(ROOT / name) & {"ray", "mindspore"}


@pytest.mark.parametrize("layer", ABOVE)
def test_no_layer_of_the_orchestrator_reaches_up(layer: str) -> None:
    reached = {
        f"{path.name}: {module}"
        for path in (ROOT / "orchestrator" / layer).glob("*.py")
        for module in imported_modules(path)
        for above in ABOVE[layer]
        if module == f"orchestrator.{above}" or module.startswith(f"orchestrator.{above}.")
    }
    assert not reached


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_loaded_through_pickle_and_no_shell_is_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "pickle" not in imported_packages(path)
    assert "allow_pickle=True" not in text and "shell=True" not in text and "yaml.load(" not in text


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


ENGINE = [
    path
    for folder in ("engine", "storage", "telemetry", "ascend")
    for path in sorted((ROOT / "orchestrator" / folder).rglob("*.py"))
    # The commands of rank tables and the published job are users of the package, and move to the command line.
    if path.name not in ("cli.py", "published.py")
]
BELOW_THE_ENGINE = {
    "engine",
    "storage",
    "telemetry",
    "ascend",
    "errors",
    "every_host",
    "processes",
    "log_files",
}


@pytest.mark.parametrize("path", ENGINE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_engine_knows_neither_sdnet_nor_its_job(path: Path) -> None:
    ours = {module.split(".")[1] for module in imported_modules(path) if module.startswith("orchestrator.")}
    assert "sdnet" not in imported_packages(path)
    assert ours <= BELOW_THE_ENGINE


CONTROL = sorted((ROOT / "orchestrator" / "engine" / "control").glob("*.py"))


@pytest.mark.parametrize("path", CONTROL, ids=lambda p: p.name)
def test_the_controllers_decisions_know_neither_ray_nor_mindspore(path: Path) -> None:
    assert not imported_packages(path) & {"ray", "mindspore"}


DOOR = ROOT / "orchestrator" / "engine" / "ray_train"
EVERYWHERE = sorted(
    path
    for top in ("sdnet", "orchestrator", "tests", "benchmarks", "examples")
    for path in (ROOT / top).rglob("*.py")
)
# Tests that are about Ray's private names, each with the reason.
MAY_USE_PRIVATE_NAMES = {
    "tests/unit/engine/test_ray_contract.py": "it says which private name moved",
    "tests/unit/engine/test_ray_replaced.py": "it proves what the replaced names do",
    "tests/integration/test_faults_step.py": "it sets the memory limit from what Ray itself measures",
}


def private_names_of_ray(path: Path) -> set[str]:
    """The modules and names of Ray that a file imports or reads, and that Ray keeps to itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = imported_modules(path)
    names |= {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {name for name in names if name.startswith("ray.") and is_private(name.split("."))}


def is_private(parts: list[str]) -> bool:
    return any(part.startswith("_") for part in parts) or parts[1:3] == ["core", "generated"]


@pytest.mark.parametrize("path", EVERYWHERE, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_door_uses_rays_private_modules(path: Path) -> None:
    if DOOR not in path.parents and str(path.relative_to(ROOT)) not in MAY_USE_PRIVATE_NAMES:
        assert private_names_of_ray(path) == set()


def test_the_search_for_private_names_finds_each_way_to_write_one(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    for text in (
        "import ray._private.utils",
        "import ray._private as p",
        "from ray import _private",
        "from ray.train.v2 import _internal",
        "from ray.train.v2._internal.exceptions import X",
        "from ray.core.generated.common_pb2 import ActorDeathCause",
        "from ray.autoscaler._private.util import validate_config",
        "import ray\ndef f():\n    return ray._raylet.NAME",
    ):
        path.write_text(text)
        assert private_names_of_ray(path), text


def test_one_file_alone_replaces_names_of_ray() -> None:
    """Elsewhere nothing of Ray is assigned to, and `setattr` is used for our own objects only."""
    ours = {"orchestrator/terminal.py": "it sets streams of `sys`"}
    replacing = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr")
        or (isinstance(node, ast.Assign) and any(ast.unparse(t).startswith("ray.") for t in node.targets))
    }
    assert replacing - set(ours) == {"orchestrator/engine/ray_train/ray_start.py"}


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
