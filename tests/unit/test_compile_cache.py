"""Compiled graphs are offered to MindSpore only while they are what the same job has sealed."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.training.compile_cache import CompileCache, cache_key
from sdnet.config import Recipe


@pytest.fixture(autouse=True)
def environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """`open` tells MindSpore through the environment; other tests must not hear of it."""
    for name in ("MS_COMPILER_CACHE_ENABLE", "MS_COMPILER_CACHE_PATH"):
        monkeypatch.setenv(name, "")


def filled(root: Path) -> tuple[CompileCache, Path]:
    """A cache that a process opened and wrote a graph to."""
    cache = CompileCache(root, "key", 1)
    cache.open()
    graph = root / "key" / "rank_1" / "graph_cache" / "0.mindir"
    graph.parent.mkdir()
    graph.write_bytes(b"a graph")
    return cache, graph


def test_sealed_graphs_are_there_for_the_next_process(tmp_path: Path) -> None:
    cache, graph = filled(tmp_path)
    cache.seal()
    assert CompileCache(tmp_path, "key", 1).open()
    assert graph.read_bytes() == b"a graph"


def test_graphs_of_a_process_that_was_killed_before_it_sealed_them_are_deleted(tmp_path: Path) -> None:
    _, graph = filled(tmp_path)
    assert not CompileCache(tmp_path, "key", 1).open()
    assert not graph.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda graph: graph.write_bytes(b"a grapH"),
        lambda graph: graph.unlink(),
        lambda graph: graph.with_name("1.mindir").write_bytes(b"half"),
        lambda graph: (graph.parents[1] / "sealed.json").write_text('{"0.mindir": '),
        lambda graph: (graph.parents[1] / "sealed.json").write_text("[1]"),
        lambda graph: (graph.parents[1] / "sealed.json").write_bytes(b"\xff"),
        lambda graph: (graph.unlink(), os.mkfifo(graph)),
    ],
    ids=[
        "a bit flipped",
        "a file missing",
        "a file too many",
        "half a seal",
        "a list",
        "not UTF-8",
        "a pipe",
    ],
)
def test_what_is_not_as_it_was_sealed_is_not_trusted(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    cache, graph = filled(tmp_path)
    cache.seal()
    spoil(graph)
    assert not CompileCache(tmp_path, "key", 1).open()
    assert not graph.exists()


@pytest.mark.parametrize("blocked", ["", "key"])
def test_where_no_folder_can_be_made_graphs_are_compiled_and_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, blocked: str
) -> None:
    root = tmp_path / "compiled"
    if blocked:
        root.mkdir()
    (root / blocked).touch()
    cache = CompileCache(root, "key", 1)
    assert not cache.open()
    assert not os.environ.get("MS_COMPILER_CACHE_ENABLE")
    cache.seal()
    [warning] = caplog.messages
    assert "compiled graphs are not kept" in warning and str(root / blocked) in warning
    assert (root / blocked).read_bytes() == b""


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo], ids=["file", "pipe"])
def test_a_file_in_the_place_of_a_ranks_graphs_is_replaced(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    (tmp_path / "key").mkdir()
    make(tmp_path / "key" / "rank_1")
    filled(tmp_path)[0].seal()
    assert CompileCache(tmp_path, "key", 1).open()


def test_another_recipe_or_group_finds_other_graphs() -> None:
    recipe = Recipe()
    keys = {
        cache_key(recipe, 2, 2, 600),
        cache_key(replace(recipe, lr=0.001), 2, 2, 600),
        cache_key(recipe, 2, 1, 600),
        cache_key(recipe, 3, 2, 600),
        cache_key(recipe, 2, 2, 32),
    }
    assert len(keys) == 5 and cache_key(Recipe(), 2, 2, 600) in keys
