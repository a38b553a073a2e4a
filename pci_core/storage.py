"""Files that are whole or not there: temporary names and renames, hashes, locks.

Everything that the package writes goes through `atomic_path`, so that a killed process leaves the
earlier result untouched, and through `as_storage_error`, so that a full disk says so.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from pci_core.errors import StorageError

_REMEDY = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder with --runs",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another folder with --runs",
    errno.EACCES: "the folder is not writable; change its permissions or choose another with --runs",
    errno.EPERM: "the folder is not writable; change its permissions or choose another with --runs",
    errno.EROFS: "the file system is read-only; choose another folder with --runs",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder with --runs",
}
_MARK = ".writing-"
_LONGEST_NAME = 100  # bytes: what is added to it (temporary names, +seed=1, suffixes) must fit into the 255 of a file system, too
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])(?:\..*)?", re.IGNORECASE)


def is_file_name(name: str) -> bool:
    """Tell whether a text can be the name of a file or folder on every system, and of one only: no path, no device, not hidden.

    Refused are path separators, ``..``, drives, control and invisible characters, what Windows forbids or takes for a device,
    a dot at the start (hidden, and ours for what is being written), a blank or dot at either end, and more than 100 bytes.
    """
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return False  # half of a character
    return 0 < size <= _LONGEST_NAME and is_plain_part(name) and name[0] not in ". " and not set(name) & set('*?"<>|')


def is_plain_part(name: str) -> bool:
    """Tell whether one part of a path in somebody else's archive stays a name of its own wherever it is written."""
    return name.isprintable() and not set(name) & set("/\\:") and name[-1:] not in (".", " ") and not _DEVICE.fullmatch(name.rstrip(" ."))


def as_file_name(name: str) -> str:
    """Return `name` where it can be a file's, else what can be kept of it with a hash, so that two names never meet in one file."""
    if is_file_name(name):
        return name
    plain = re.sub(r"[^\w+=-]+", "-", name.encode("utf-8", "replace").decode("utf-8"), flags=re.ASCII).strip("-")[:60]
    return f"{plain or 'x'}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


@contextlib.contextmanager
def as_storage_error(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an `OSError` about space or permissions under the block into a `StorageError` naming `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in _REMEDY:
            raise StorageError(f"cannot write {path}: {_REMEDY[error.errno]}.") from error
        raise


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], folder: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` if the block ends well, else remove it.

    Parameters
    ----------
    path : path-like
        The final file, or folder if `folder`. What is there now stays until the new one is whole.
    folder : bool
        Make the temporary name a new, empty folder.

    Yields
    ------
    Path
        Write here.

    Raises
    ------
    StorageError
        Where the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = temporary_path(path)
    with as_storage_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if folder:
                _remove(temporary)
                temporary.mkdir()
            yield temporary
            if folder and path.exists():
                old = temporary.with_name(temporary.name + "-old")
                _remove(old)
                os.rename(path, old)
                os.rename(temporary, path)
                _remove(old)
            else:
                if not folder:
                    with open(temporary, "rb+") as handle:
                        os.fsync(handle.fileno())  # or a power cut may keep the name and lose the bytes
                os.replace(temporary, path)
        finally:
            _remove(temporary)


def temporary_path(path: Path) -> Path:
    """Return the name beside `path` that this process writes under; `sweep_temporaries` finds it when the process is gone."""
    return path.with_name(f"{_MARK}{socket.gethostname()}-{os.getpid()}-{path.name}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sweep_temporaries(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what killed processes of this machine left half-written directly in `folder`."""
    removed = []
    for path in Path(folder).glob(f"{_MARK}{socket.gethostname()}-*"):
        pid = path.name.removeprefix(f"{_MARK}{socket.gethostname()}-").split("-")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            _remove(path)
            removed.append(path)
    return removed


def _is_alive(pid: int) -> bool:
    if os.name != "posix":
        return True  # signal 0 is no question elsewhere; leftovers stay until removed by hand
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's process
    return True


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def content_hash(content: Any) -> str:
    """Return the SHA-256 of `content` (anything JSON can hold), the same for the same content."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, read in blocks."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock file `path`; a second process waits here. A dead holder's lock is free at once."""
    path = Path(path)
    with as_storage_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path):
            yield
