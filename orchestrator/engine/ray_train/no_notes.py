"""A file system that stores nothing, for the files that Ray Train writes for itself.

Ray Train writes markers and snapshots of its checkpoint manager. We never read them. If storage is unavailable, a
failed write of one of them must not end a group.
"""

import io

import pyarrow
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileSystemHandler, FileType, PyFileSystem

# Ray Train writes this file at start and refuses storage in which it cannot see it.
_MARKER = ".validate_storage_marker"


class _NoNotes(FileSystemHandler):
    """Accepts every write and discards it."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NoNotes)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(_NoNotes)

    def get_type_name(self) -> str:
        return "no-notes"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[FileInfo]:
        return [
            FileInfo(path, FileType.File if path.endswith(_MARKER) else FileType.NotFound) for path in paths
        ]

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        return []

    def create_dir(self, path: str, recursive: bool) -> None:
        """Nothing to make."""

    def delete_dir(self, path: str) -> None:
        """Nothing to delete."""

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Nothing to delete."""

    def delete_root_dir_contents(self) -> None:
        """Nothing to delete."""

    def delete_file(self, path: str) -> None:
        """Nothing to delete."""

    def move(self, source: str, destination: str) -> None:
        """Nothing to move."""

    def copy_file(self, source: str, destination: str) -> None:
        """Nothing to copy."""

    def open_input_stream(self, path: str) -> pyarrow.NativeFile:
        raise FileNotFoundError(path)

    def open_input_file(self, path: str) -> pyarrow.NativeFile:
        raise FileNotFoundError(path)

    def open_output_stream(self, path: str, metadata: dict[str, str]) -> pyarrow.NativeFile:
        return pyarrow.PythonFile(io.BytesIO(), mode="w")

    def open_append_stream(self, path: str, metadata: dict[str, str]) -> pyarrow.NativeFile:
        return pyarrow.PythonFile(io.BytesIO(), mode="w")


def no_notes() -> FileSystem:
    """The filesystem for `RunConfig.storage_filesystem`."""
    return PyFileSystem(_NoNotes())
