"""MindSpore gets cached graphs only if they match the seal of the same job."""

import importlib
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.engine.function import compile_key, sources_of, sources_of_package
from orchestrator.engine.rank.compile_cache import CompileCache
from orchestrator.storage import DirectoryStorage


@pytest.fixture(autouse=True)
def environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """`open` sets MindSpore's environment variables, which other tests must not inherit."""
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


def test_a_directory_that_still_seems_to_be_there_after_another_host_removed_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    monkeypatch.setattr("shutil.rmtree", lambda *arguments, **options: None)
    assert not CompileCache(tmp_path, "key", 1).open()


def test_graphs_of_a_process_that_was_killed_before_it_sealed_them_are_deleted(tmp_path: Path) -> None:
    _, graph = filled(tmp_path)
    assert not CompileCache(tmp_path, "key", 1).open()
    assert not graph.exists()


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda graph: graph.write_bytes(b"a grapH"),
        lambda graph: graph.unlink(),
        lambda graph: graph.with_name("1.mindir").write_bytes(b"half"),
        lambda graph: (graph.parents[1] / "sealed.json").write_text('{"0.mindir": '),
        lambda graph: (graph.parents[1] / "sealed.json").write_text("[1]"),
        lambda graph: (graph.parents[1] / "sealed.json").write_bytes(b"\xff"),
        lambda graph: make_fifo(graph),
        lambda graph: make_fifo(graph.parents[1] / "sealed.json"),
    ],
    ids=[
        "a bit flipped",
        "a file missing",
        "a file too many",
        "half a seal",
        "a list",
        "not UTF-8",
        "a pipe",
        "a pipe as the seal",
    ],
)
def test_what_is_not_as_it_was_sealed_is_not_trusted(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    cache, graph = filled(tmp_path)
    cache.seal()
    damage(graph)
    assert not CompileCache(tmp_path, "key", 1).open()
    assert not graph.exists()


@pytest.mark.parametrize("blocked", ["", "key", "key/rank_1"])
def test_where_no_folder_can_be_made_mindspore_is_not_given_one(tmp_path: Path, blocked: str) -> None:
    root = tmp_path / "compiled"
    (root / blocked).parent.mkdir(parents=True, exist_ok=True)
    (root / blocked).touch()
    with pytest.raises(OSError, match=str(root / blocked)):
        CompileCache(root, "key", 1).open()
    assert not os.environ.get("MS_COMPILER_CACHE_ENABLE")
    assert (root / blocked).read_bytes() == b""


def test_other_sources_or_settings_have_other_graphs(tmp_path: Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("x = 1")
    two.write_text("x = 2")
    keys = {compile_key([one], 8), compile_key([two], 8), compile_key([one], 9), compile_key([one, two], 8)}
    assert len(keys) == 4 and compile_key([one], 8) in keys


def test_the_graphs_of_a_function_depend_on_its_whole_package() -> None:
    sources = sources_of(compile_key)
    assert set(sources_of_package("orchestrator")) <= set(sources)
    assert {"function.py", "session.py", "launch.py"} <= {path.name for path in sources}
    assert [path.name for path in sources_of_package("typing")] == ["typing.py"]


def test_the_graphs_of_a_script_depend_on_its_own_modules_and_not_on_pythons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "script").mkdir()
    (tmp_path / "their_layers.py").write_text("SCALE = 2.0")
    (tmp_path / "script/their_script.py").write_text("import their_layers\ndef train(): import their_model")
    (tmp_path / "script/their_model.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "script")
    names = {path.name for path in sources_of(importlib.import_module("their_script").train)}
    assert {"their_script.py", "their_layers.py", "their_model.py"} <= names
    assert not {"functools.py", "core.py", "zipfile.py"} & names


def archived(storage: DirectoryStorage, root: Path) -> CompileCache:
    """A cache on a host that sealed a graph and whose archive has arrived."""
    cache = CompileCache(root / "compiled", "key", 1, storage)
    assert not cache.open()
    (root / "compiled" / "key" / "rank_1" / "graph").write_bytes(b"a graph")
    cache.seal()
    while not storage.list("compiled/"):
        os.sched_yield()
    return cache


def test_a_rank_on_another_host_begins_with_the_uploaded_graphs(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    archived(storage, tmp_path / "one")
    assert CompileCache(tmp_path / "other" / "compiled", "key", 1, storage).open()
    assert (tmp_path / "other" / "compiled" / "key" / "rank_1" / "graph").read_bytes() == b"a graph"
    assert not CompileCache(tmp_path / "other" / "compiled", "key", 2, storage).open()


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 10240])
def test_an_archive_that_is_not_whole_is_not_used(tmp_path: Path, content: bytes) -> None:
    storage = storage_in(tmp_path)
    storage.put("compiled/key/rank_1.zip", content)
    assert not CompileCache(tmp_path / "other" / "compiled", "key", 1, storage).open()


def test_a_damaged_archive_gives_the_sealed_graph_or_none(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    archived(storage, tmp_path / "one")
    whole = storage.get("compiled/key/rank_1.zip")
    opened = []
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        storage.put("compiled/key/rank_1.zip", bytes(damaged))
        opened.append(CompileCache(tmp_path / "other" / "compiled", "key", 1, storage).open())
        graph = tmp_path / "other" / "compiled" / "key" / "rank_1" / "graph"
        assert not opened[-1] or graph.read_bytes() == b"a graph"
        graph.unlink(missing_ok=True)  # so that the next one fetches again
    assert opened.count(False) > len(whole) // 2


def test_an_archive_cannot_write_outside_of_its_folder(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    planted = io.BytesIO()
    with zipfile.ZipFile(planted, "w") as archive:
        archive.writestr("../../../../outside", b"planted")
    storage.put("compiled/key/rank_1.zip", planted.getvalue())
    assert not CompileCache(tmp_path / "a" / "compiled", "key", 1, storage).open()
    assert not (tmp_path / "outside").exists() and not list((tmp_path / "a").rglob("outside"))


def storage_in(tmp_path: Path) -> DirectoryStorage:
    (tmp_path / "storage").mkdir()
    return DirectoryStorage(tmp_path / "storage")
