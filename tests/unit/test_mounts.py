"""The file system of a path, from the table of mounts."""

from pathlib import Path

import pytest

from orchestrator.storage.mounts import mount_of

TABLE = """\
1 0 8:1 / / rw,relatime - ext4 /dev/sda1 rw
2 1 0:30 / /data rw shared:2 - nfs4 server:/export rw
3 2 0:31 / /data/local\\040disk rw shared:3 master:4 - xfs /dev/sdb rw
4 1 0:32 / /ssh rw - fuse.sshfs host:/x rw
5 1 0:33 / /twice rw - nfs server:/old rw
6 1 0:34 / /twice rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "local"),
    [
        ("/", "ext4", True),
        ("/home/x/run", "ext4", True),
        ("/data/run/train.npz", "nfs4", False),
        ("/database", "ext4", True),
        ("/data/local disk/train.npz", "xfs", True),
        ("/ssh", "fuse.sshfs", False),
        ("/twice/x", "tmpfs", True),
    ],
)
def test_the_innermost_and_latest_mount_holds_a_path(path: str, kind: str, local: bool) -> None:
    mount = mount_of(Path(path), TABLE)
    assert (mount.type, mount.is_local) == (kind, local)


@pytest.mark.parametrize("kind", ["cifs", "lustre", "ceph", "fuse.glusterfs", "9p", "a_file_system_of_2040"])
def test_a_type_that_is_not_known_to_be_local_counts_as_a_network(kind: str) -> None:
    assert not mount_of(Path("/x"), f"1 0 0:1 / / rw - {kind} x rw").is_local


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/ssh/run")
    assert mount_of(tmp_path / "link" / "data", TABLE).type == "fuse.sshfs"


def test_this_machine_has_a_table(tmp_path: Path) -> None:
    assert mount_of(Path("/proc/self")).type == "proc" and mount_of(tmp_path).is_local
