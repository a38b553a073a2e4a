"""Files that are whole or not there: temporary names and renames, hashes, locks.

Everything that the package writes goes through `atomic_path`, so that a killed process leaves the
earlier result untouched, and through `as_storage_error`, so that a full disk says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from pci_core.errors import StorageError

_REMEDY = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder with --runs",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another folder with --runs",
    errno.EFBIG: "files may not be so large here (see 'ulimit -f', or the file system); choose another folder with --runs",
    errno.EACCES: "the folder is not writable; change its permissions or choose another with --runs",
    errno.EPERM: "the folder is not writable; change its permissions or choose another with --runs",
    errno.EROFS: "the file system is read-only; choose another folder with --runs",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder with --runs",
}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MARK, _ASIDE = ".writing-", ".replaced-"
_PROBE = 1 << 16  # bytes written to see whether there is room
_LONGEST_NAME = 100  # bytes: what is added to it (temporary names, +seed=1, suffixes) must fit into the 255 of a file system, too
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])(?:\..*)?", re.IGNORECASE)
_swept: set[tuple[int, str]] = set()  # folders that this process has looked through for what dead ones left


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
    """Turn an error about space or permissions under the block into a `StorageError` naming `path`.

    Libraries that write by themselves (HDF5, Arrow, torch, images) tell of a full disk in errors of their own; for those the
    text is looked at, and whether there is room.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if code := disk_trouble(error, Path(path)):
            raise StorageError(f"cannot write {_named(error, Path(path))}: {_REMEDY[code]}.") from error
        raise


def disk_trouble(error: BaseException, path: Path) -> int:
    """Return the errno of what is wrong with the disk or folder if that is what an error is about, else 0."""
    if isinstance(error, StorageError):
        return 0
    seen, cause = 0, error  # h5py may fail once more while it closes the file
    while cause is not None and seen < 8:
        if isinstance(cause, OSError) and cause.errno in _REMEDY:
            return int(cause.errno)
        text = str(cause)
        if code := next((c for c in _NO_ROOM if os.strerror(c) in text or f"errno = {c}," in text or f"[Errno {c}]" in text), 0):
            return code
        cause, seen = cause.__cause__ or cause.__context__, seen + 1  # type: ignore[assignment]
    if isinstance(error, OSError) and error.errno is None or type(error) is RuntimeError:
        return _without_room(path)
    return 0


def _without_room(path: Path) -> int:
    """Try to write a little beside `path`; return the errno of what forbids it, or 0."""
    temporary = temporary_path(path)
    limit = _largest_file()
    if limit is not None:
        files = temporary.rglob("*") if temporary.is_dir() else [temporary]
        if any(file.is_file() and file.stat().st_size >= limit - _PROBE for file in files):
            return errno.EFBIG
    probe = temporary.with_name(f"{_MARK}{socket.gethostname()}-{os.getpid()}-probe")
    try:
        with open(probe, "wb") as handle:
            handle.write(b"\0" * _PROBE)
    except OSError as error:
        return error.errno if error.errno in _NO_ROOM else 0
    finally:
        probe.unlink(missing_ok=True)
    return 0


def _largest_file() -> int | None:
    try:
        import resource
    except ImportError:  # Windows knows no such limit
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _named(error: BaseException, path: Path) -> str:
    """Return the path to tell of: the one in the error where it is another than what was being written under `path`."""
    name = getattr(error, "filename", None)
    if not isinstance(name, str) or any(mark in name for mark in (_MARK, _ASIDE)) or path == Path(name):
        return str(path)
    return f"{path} ({name})"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], folder: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` if the block ends well, else remove it.

    Parameters
    ----------
    path : path-like
        The final file, or folder if `folder`. What is there now stays until the new one is whole, and at no moment is there
        neither.
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
        sweep_once(path.parent)
        try:
            if folder:
                _remove(temporary)
                temporary.mkdir()
            with as_storage_error(path):  # before what fills the disk is removed
                yield temporary
            if folder:
                _replace_folder(temporary, path)
            else:
                with open(temporary, "rb+") as handle:
                    os.fsync(handle.fileno())  # or a power cut may keep the name and lose the bytes
                os.replace(temporary, path)
        finally:
            _remove(temporary)


@contextlib.contextmanager
def working_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path` for a library that leaves files under names of its own; it is gone at the end."""
    temporary = temporary_path(path)
    with as_storage_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_once(path.parent)
        try:
            _remove(temporary)
            temporary.mkdir()
            with as_storage_error(path):
                yield temporary
        finally:
            _remove(temporary)


def temporary_path(path: Path) -> Path:
    """Return the name beside `path` that this process writes under; `sweep_temporaries` finds it when the process is gone."""
    return path.with_name(f"{_MARK}{socket.gethostname()}-{os.getpid()}-{path.name}")


def _replace_folder(new: Path, path: Path) -> None:
    """Put the folder `new` in the place of `path`; what was there lies under the name `new` then, or is gone."""
    if not os.path.lexists(path):
        try:
            os.rename(new, path)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another process put its own there meanwhile
                raise
    if not _exchange(new, path):
        aside = new.with_name(_ASIDE + new.name.removeprefix(_MARK))
        _remove(aside)
        os.rename(path, aside)  # killed here, `sweep_temporaries` puts it back
        os.rename(new, path)
        _remove(aside)


def _exchange(a: Path, b: Path) -> bool:
    """Let two paths change places in one step, where the system and the file system can (Linux); tell whether it was done."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if rename(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):  # e.g. NFS
        return False
    raise OSError(code, os.strerror(code), str(b))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sweep_once(folder: Path) -> None:
    """Sweep a folder before this process writes to it for the first time: a look at its names, whoever was killed there."""
    key = (os.getpid(), str(folder.absolute()))  # a forked process looks for itself
    if key not in _swept:
        _swept.add(key)
        with contextlib.suppress(OSError):  # where nothing can be removed, nothing can be written: that is told then
            sweep_temporaries(folder)


def sweep_temporaries(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what killed processes of this machine left half-written directly in `folder`, and put back what they had moved aside.

    Returns
    -------
    list of Path
        What is gone.
    """
    removed = []
    for mark in (_ASIDE, _MARK):
        begin = f"{mark}{socket.gethostname()}-"
        for path in Path(folder).glob(f"{begin}*"):
            pid, _, name = path.name.removeprefix(begin).partition("-")
            if not pid.isdigit() or _is_alive(int(pid)):
                continue
            if mark == _ASIDE and not os.path.lexists(path.with_name(name)):
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    os.rename(path, path.with_name(name))
            else:
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


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


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
    """Hold the lock file `path`; a second process waits here. A dead holder's lock is free at once.

    The system holds the lock, the file only gives it a name: it stays, and what is in it does not matter.
    """
    path = Path(path)
    with as_storage_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        lock.acquire()
    try:
        yield  # outside: what goes wrong in here is not about the lock
    finally:
        lock.release()


@contextlib.contextmanager
def locked_if_free(path: str | os.PathLike[str]) -> Iterator[bool]:
    """Hold the lock file `path` if no other process does, and say whether."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (filelock.Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
