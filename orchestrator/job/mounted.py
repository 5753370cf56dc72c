"""Whether the file systems of a job's folders are mounted on the launcher's host.

After a reboot without its mount, a new run in the empty mount point would begin without its checkpoints.
"""

from collections.abc import Iterator

from orchestrator.job.spec.job_spec import DataSpec
from orchestrator.storage.mounts import missing_mount
from sdnet.errors import InputError
from sdnet.paths import full_path


def refuse_unmounted(key: str, given: str) -> None:
    """Raise InputError if the folder belongs on a file system that is mounted at boot, and is not mounted now."""
    missing = missing_mount(full_path(given, key))
    if missing is not None and missing.is_automatic:
        raise InputError(
            f"{key} is {given}, below {missing.point}, which /etc/fstab lists and which is not mounted; "
            f"run `mount {missing.point}`, or remove its line from /etc/fstab"
        )


def notes_on_mounts(storage: str, data: DataSpec) -> Iterator[str]:
    """A sentence for each folder of the job whose file system is in /etc/fstab and is not mounted."""
    given = {"storage": storage, "data.images": data.images, "data.prepared": data.prepared}
    for key, folder in given.items():
        missing = None if folder is None else missing_mount(full_path(folder, key))
        if missing is not None:
            # A run that exists may go on without its images, so `refuse_unmounted` was not asked.
            option = "" if missing.is_automatic else " with noauto"
            yield (
                f"{key} is {folder}, below {missing.point}, which /etc/fstab lists{option} "
                "and which is not mounted"
            )
