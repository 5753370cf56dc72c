"""A bed of hosts with shared storage on sshfs: the head sees one mount of an export, the other hosts a second one."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.job.run_directory import RunDirectory
from tests.hosts.bed import Bed, bed
from tests.mounts.export import Export, exported


@contextlib.contextmanager
def bed_on_mounts(
    folder: Path, ranks_of_hosts: tuple[int, ...], settings: Mapping[str, str] | None = None
) -> Iterator[tuple[Bed, Export]]:
    """A head without ranks, and a host per entry with room for that many ranks; Ray runs on all."""
    with bed(1 + len(ranks_of_hosts), settings) as made:
        made.head.ray_options = ("--num-cpus=0",)
        with exported(folder, first=made.storage) as export:
            for host, ranks in zip(made.hosts[1:], ranks_of_hosts, strict=True):
                host.ray_options = (f"--num-cpus={ranks}",)
                host.views[made.storage] = export.second
            made.start_ray()
            yield made, export


def local_storage(cluster: Bed) -> Path:
    """A directory on a local disk that all hosts see."""
    path = cluster.storage.with_name("local")
    path.mkdir(exist_ok=True)
    return path


def on_the_server(export: Export, run: RunDirectory) -> RunDirectory:
    """The run on the server: a mount shows new names up to 20 s later."""
    return RunDirectory(export.directory / run.root.name)
