"""Which file system a path is on, whether it is this host's own disk, and which one is missing there.

Decided by the type in /proc/self/mountinfo. These types are local: the disk file systems, the memory file systems, and
the layers of containers, all in `_LOCAL`. Every other type counts as a network file system: nfs, nfs4, cifs, smb3,
lustre, ceph, gpfs, beegfs, 9p, virtiofs, `fuse.sshfs`, `fuse.glusterfs`, `fuse.juicefs`, and any type that is unknown
here. If a local disk is mistaken for a network file system, that costs one copy. The opposite mistake can kill a rank:
reading a mapped page of a lost mount raises SIGBUS.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_MOUNT_TABLE = Path("/proc/self/mountinfo")
_FSTAB = Path("/etc/fstab")
_LOCAL = frozenset(
    {
        "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs", "nilfs2",
        "vfat", "exfat", "ntfs", "ntfs3", "fuseblk", "iso9660", "udf", "squashfs", "erofs",
        "tmpfs", "ramfs", "rootfs", "overlay", "aufs", "fuse.fuse-overlayfs",
    }
)  # fmt: skip
_ESCAPED = re.compile(r"\\([0-7]{3})")  # how the table writes spaces and other separators


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system. type: as the kernel names it, such as `ext4` or `fuse.sshfs`."""

    point: Path
    type: str

    @property
    def is_local(self) -> bool:
        """Whether it is this host's own disk or memory."""
        return self.type in _LOCAL


def mount_of(path: Path, table: str | None = None) -> Mount:
    """The mount of `path`, which need not exist.

    table: the text of a mountinfo, by default this process's own. Symbolic links are followed, so a mount without a
    server may block this call. Raises OSError when there is no mount table.
    """
    text = _MOUNT_TABLE.read_text(errors="surrogateescape") if table is None else table
    real = Path(os.path.realpath(path))
    found = Mount(Path("/"), "unknown")
    for line in text.splitlines():
        mount = _parsed(line)
        # A later mount hides an earlier one at the same point.
        if real.is_relative_to(mount.point) and len(mount.point.parts) >= len(found.point.parts):
            found = mount
    return found


@dataclass(frozen=True, slots=True)
class MissingMount:
    """A file system of /etc/fstab that is not mounted. is_automatic: it is mounted at boot, so it should be there."""

    point: Path
    is_automatic: bool


def missing_mount(path: Path, fstab: str | None = None, table: str | None = None) -> MissingMount | None:
    """A file system of /etc/fstab that should hold `path` and is not mounted; None if nothing is missing.

    Of several it is the innermost one that is mounted at boot, or else the innermost one.

    fstab, table: texts of an fstab and a mountinfo, by default this host's own. An automount is in the table as type
    `autofs` and mounts itself on access, so it is not missing.
    """
    try:
        text = _FSTAB.read_text(errors="surrogateescape") if fstab is None else fstab
        mounted = mount_of(path, table).point
    except OSError:  # a container often has no fstab
        return None
    real = Path(os.path.realpath(path))
    entries = [
        fields for fields in map(str.split, text.splitlines()) if len(fields) > 2 and fields[0][0] != "#"
    ]
    listed = [
        MissingMount(
            Path(os.path.normpath(_unescaped(point))), "noauto" not in ",".join(options[:1]).split(",")
        )
        for _, point, _, *options in entries
    ]
    # What is mounted further inside holds the path, whatever is missing around it.
    missing = [one for one in listed if mounted in one.point.parents and real.is_relative_to(one.point)]
    return max(missing, key=lambda mount: (mount.is_automatic, len(mount.point.parts)), default=None)


def _parsed(line: str) -> Mount:
    """`36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/sda rw`; see proc(5)."""
    before, _, after = line.partition(" - ")
    return Mount(Path(_unescaped(before.split(" ")[4])), after.split(" ")[0])


def _unescaped(point: str) -> str:
    return _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), point)
