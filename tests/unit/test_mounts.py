"""The file system of a path, from the table of mounts."""

from pathlib import Path

import pytest

from orchestrator.job.mounted import notes_on_mounts
from orchestrator.job.spec.job_spec import DataSpec
from orchestrator.storage.mounts import MissingMount, missing_mount, mount_of
from tests.unit.conftest import Cli

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


FSTAB = """\
# server:/export /comment nfs4 rw 0 0
UUID=1 / ext4 defaults 0 1
/swap.img none swap sw 0 0
server:/export /data nfs4 nofail 0 0
server:/b /gone nfs4 rw,_netdev 0 0
server:/c /gone/deep/ nfs4 rw 0 0
server:/d /with\\040space nfs4 rw
/dev/sdc /usb ext4 noauto,user 0 0
/dev/sdd /gone/usb ext4 noauto 0 0
/dev/sdd /again ext4 defaults
server:/e /again nfs4 noauto 0 0
server:/f /short nfs4
server:/auto /auto nfs4 noauto,x-systemd.automount 0 0
"""
AUTOMOUNT = "7 1 0:35 / /auto rw - autofs systemd-1 rw\n8 1 0:36 / /gone/run rw - ext4 /dev/sdd rw\n"


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("/home/x", None),
        ("/data/run", None),
        ("/comment/run", None),
        ("/gone", MissingMount(Path("/gone"), True)),
        ("/gone/a/run", MissingMount(Path("/gone"), True)),
        ("/gone/deep/run", MissingMount(Path("/gone/deep"), True)),
        ("/gone/run/x", None),
        ("/gone/usb/run", MissingMount(Path("/gone"), True)),
        ("/goners", None),
        ("/with space/run", MissingMount(Path("/with space"), True)),
        ("/usb/run", MissingMount(Path("/usb"), False)),
        ("/auto/run", None),
        ("/again/run", MissingMount(Path("/again"), True)),
        ("/short/run", MissingMount(Path("/short"), True)),
    ],
)
def test_a_file_system_of_fstab_that_is_not_mounted_is_missing_below_its_mount_point(
    path: str, missing: MissingMount | None
) -> None:
    assert missing_mount(Path(path), FSTAB, TABLE + AUTOMOUNT) == missing


@pytest.mark.parametrize("command", ["plan", "launch", "preprocess"])
@pytest.mark.parametrize("key", ["storage", "data.images", "data.prepared"])
def test_a_job_below_a_mount_point_that_is_not_mounted_is_refused_and_leaves_nothing(
    command: str, key: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "fstab").write_text(f"server:/x {tmp_path / 'mnt'} nfs4 nofail 0 0\n")
    monkeypatch.setattr("orchestrator.storage.mounts._FSTAB", tmp_path / "fstab")
    (tmp_path / "job.yaml").write_text(
        f"name: j\nstorage: {tmp_path / 'runs'}\ntrain: {{recipe: demo, batch: 8}}\n"
    )
    code, _, err = cli(command, str(tmp_path / "job.yaml"), "--set", f"{key}={tmp_path / 'mnt' / 'x'}")
    assert code == 2 and err.count("\n") == 1
    assert f"{key} is {tmp_path / 'mnt' / 'x'}, below {tmp_path / 'mnt'}, which /etc/fstab lists" in err
    assert not any((tmp_path / "mnt").iterdir()) and not (tmp_path / "runs").exists()


def test_a_mount_that_a_person_makes_is_a_note(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fstab").write_text(f"/dev/sdc {tmp_path / 'usb'} ext4 noauto 0 0\n")
    monkeypatch.setattr("orchestrator.storage.mounts._FSTAB", tmp_path / "fstab")
    (tmp_path / "job.yaml").write_text(
        f"name: j\nstorage: {tmp_path / 'usb'}\ntrain: {{recipe: demo, batch: 8}}\n"
    )
    code, out, _ = cli("plan", str(tmp_path / "job.yaml"), "--json")
    assert code == 0 and "lists with noauto and which is not mounted" in out


def test_a_note_names_noauto_only_where_the_table_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fstab").write_text(f"server:/x {tmp_path / 'nfs'} nfs4 nofail 0 0\n")
    monkeypatch.setattr("orchestrator.storage.mounts._FSTAB", tmp_path / "fstab")
    [note] = notes_on_mounts(str(tmp_path), DataSpec(images=str(tmp_path / "nfs")))
    assert note.endswith("which /etc/fstab lists and which is not mounted")
