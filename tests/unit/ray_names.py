"""Finds the names of Ray that a module uses, in any way of writing, and resolves them."""

import ast
import importlib
import operator
import re
from collections.abc import Iterator
from typing import Any

_WRITTEN = re.compile(r"ray(\.\w+)+")


def private_names_of_ray(source: str) -> set[str]:
    """The dotted names that a module imports, reads or gives as a string, and that are private in Ray."""
    return {name for name in names_of_ray(source) if _is_private(name.split("."))}


def names_of_ray(source: str) -> set[str]:
    """The dotted names of Ray that a module uses, with the names it imports them under resolved."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    imported = dict(pair for node in nodes for pair in _imports(node))
    names = set(imported.values())
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value if _WRITTEN.fullmatch(node.value) else "")
        elif isinstance(node, ast.expr):
            names.add(resolved(node, imported))
    return {name for name in names if name.split(".")[0] == "ray"}


def assigned_names_of_ray(source: str) -> set[str]:
    """The dotted names of Ray to which a module assigns another value."""
    nodes = list(ast.walk(ast.parse(source)))
    imported = dict(pair for node in nodes for pair in _imports(node))
    targets = [
        target
        for node in nodes
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete)
        for target in (node.targets if isinstance(node, ast.Assign | ast.Delete) else [node.target])
    ]
    parts = [part for target in targets for part in ast.walk(target) if isinstance(part, ast.Attribute)]
    return {name for name in (resolved(part, imported) for part in parts) if name.split(".")[0] == "ray"}


def resolved(node: ast.expr, imported: dict[str, str]) -> str:
    """`a.b.c`, or `getattr(a.b, "c")`, as a dotted name with `a` as it was imported; "" for all else."""
    match node:
        case ast.Name(id=name):
            return imported.get(name, "")
        case ast.Attribute(value=value, attr=name):
            return _joined(resolved(value, imported), name)
        case ast.Call(func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str(name)), *_]):
            return _joined(resolved(value, imported), name)
    return ""


def _imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The local names that an import gives, each with the dotted name behind it."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        for alias in node.names:
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _joined(owner: str, name: str) -> str:
    return f"{owner}.{name}" if owner else ""


def _is_private(parts: list[str]) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in parts) or parts[1:3] == [
        "core",
        "generated",
    ]


def found(name: str) -> Any:
    """The object that `module:Class.method` names."""
    module, _, path = name.partition(":")
    return operator.attrgetter(path)(importlib.import_module(module))
