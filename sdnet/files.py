"""Atomic writes, checks of paths before a write, and reads that cannot hang on a FIFO."""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from sdnet.errors import InputError

# A retry gives the same error: the path has the wrong type, or permission is missing.
_PERMANENT = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}
)
# What `flock` fails with on storage that cannot lock a folder.
_NO_LOCKS = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
_FOLDERS_OF_RUNS = ("checkpoints", "compiled", "data", "events", "lease", "logs", "plan", "state")
_NAME_KEPT = 40  # characters of a name in that of its temporary file: a name may have 255 bytes


@contextmanager
def whole_file(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """Write `path` atomically: as `.<name>.<random>` in the same folder, then sync and rename.

    If the block raises, the temporary file is removed and `path` stays as it was. A killed process leaves its
    temporary file, which `sweep` removes. The mode follows the umask.
    Raises OSError with a file name. Use `sync=False` only for files that readers verify by checksum: after a
    power cut they may be torn.
    """
    temporary = path.with_name(f".{path.name[:_NAME_KEPT]}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # from a write: callers print the name
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading. Raises OSError: EISDIR for a folder, EINVAL for a pipe or a device.

    A plain `open` of a FIFO hangs until a writer opens it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_json(path: Path) -> Any:
    """The JSON value of a file. Raises OSError as `open_regular`, and ValueError for what is not JSON."""
    with open_regular(path) as file:
        return parsed_json(file.read())


def parsed_json(content: bytes) -> Any:
    """The JSON value of a file's content. Raises ValueError."""
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_permanent(error: OSError) -> bool:
    """Whether a retry must fail in the same way, as long as the storage is healthy.

    Example: a folder where a file should be. A lost mount gives EIO, ENOENT, ESTALE or EPERM: those may pass.
    """
    return error.errno in _PERMANENT


def check_place(path: Path) -> None:
    """Raise InputError when no file can be written at `path`. Writes no file and creates no folder."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():  # renaming over /dev/null would replace it
            raise OSError(errno.EINVAL, "Not a regular file")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); name a file in a folder that is there and writable"
        ) from None


def refuse_replaced_input(out: Path, *inputs: Path) -> None:
    """Raise InputError if writing `out` would replace one of the input files."""
    if not out.is_symlink() and any(path.exists() and out.exists() and path.samefile(out) for path in inputs):
        raise InputError(f"{out} is an input, and the result would replace it; name another file")


def make_folder(path: Path) -> None:
    """Create a folder and its parents. Raises InputError when it cannot be created or written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"folder {path} cannot be written ({error.strerror}); give a writable one") from None


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let signals to this thread wait until the block ends. For short cleaning: a second Ctrl-C must not stop it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def no_empty_folder(*paths: Path) -> Iterator[None]:
    """If the block raises, remove those of these folders that it made and left empty, and their empty parents.

    A folder in which another process works stays, because that process may be about to write there.
    """
    made = [folder for path in paths for folder in (path, *path.parents) if not os.path.lexists(folder)]
    try:
        yield
    except BaseException:
        with undisturbed():
            for folder in sorted(set(made), key=lambda path: len(path.parts), reverse=True):
                with suppress(OSError, InputError), alone_in(folder):  # OSError: not empty, or never made
                    folder.rmdir()
        raise


def is_run(folder: Path) -> bool:
    """Whether the folder is the run directory of `sdnet-orchestrate launch`."""
    try:
        return (folder / "job.yaml").is_file() and (folder / "lease").is_dir()
    except OSError:  # EACCES: another user's folder
        return False


def refuse_run(out: Path) -> None:
    """Raise InputError for `--out` if it is a run directory or in one of its folders: files would be replaced."""
    inner = Path(os.path.realpath(out))  # a link may lead into a run
    for run in (inner, *inner.parents):
        if is_run(run) and (run == inner or inner.relative_to(run).parts[0] in _FOLDERS_OF_RUNS):
            raise InputError(
                f"--out is {out.absolute()}, which belongs to the run {run}; give a folder of its own"
            )


@contextmanager
def made_folder(path: Path, *inside: Path) -> Iterator[None]:
    """`make_folder`; see `no_empty_folder` for when the block raises. inside: folders that the block makes in it."""
    with no_empty_folder(path, *inside):
        make_folder(path)
        yield


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes that call this out of an existing folder. Raises InputError if one is in it.

    Writes nothing: the folder itself is locked, and the kernel unlocks it when the process ends. Storage that
    cannot lock a folder, as some NFS servers, keeps nobody out.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another process is working in {folder}; wait until it ends, or give another folder"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)


def remove(path: Path, ignore_errors: bool = False) -> None:
    """Delete a folder with its content, or anything else at `path`; do nothing if it does not exist.

    `shutil.rmtree` fails on a file and hangs on a FIFO.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=ignore_errors)
    else:
        path.unlink(missing_ok=True)


def sweep(directory: Path, names: Sequence[str] = ()) -> None:
    """Remove what killed processes left of `whole_file`; no process may be writing there.

    names: only of files with these names, for a folder that may be a user's own.
    """
    kept = "|".join(re.escape(name[:_NAME_KEPT]) for name in names) or ".+"
    left = re.compile(rf"\.(?:{kept})\.[0-9a-f]{{12}}")
    for path in directory.glob(".*"):
        if left.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def checksum_path(path: Path) -> Path:
    """The path of an exported file's checksum, which has the format of `sha256sum`."""
    return path.with_name(f"{path.name}.sha256")


def put_with_checksum(content: bytes, path: Path) -> str:
    """Write `path` atomically, then its `checksum_path`; returns the SHA-256. Raises OSError."""
    found = hashlib.sha256(content).hexdigest()
    with whole_file(path) as file:
        file.write(content)
        file.flush()  # a full disk leaves the older file with its checksum
        checksum_path(path).unlink(missing_ok=True)  # before the rename: it does not match this file
    with whole_file(checksum_path(path)) as checksum:
        checksum.write(found.encode() + b"  " + os.fsencode(path.name) + b"\n")
    return found


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal. Raises OSError as `open_regular`."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
