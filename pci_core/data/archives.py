"""Zip and tar archives, unpacked whole or not at all, without trusting their names or sizes."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pci_core.errors import DownloadError
from pci_core.storage import atomic_path, is_plain_part

_BLOCK = 1 << 20
_HEADER = 16 << 20  # bytes that tarfile may ask for at once: long names and attributes are read whole
_COMPRESSED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\0": lzma.open, b"BZh": bz2.open}


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most; sizes in bytes, counted while reading, whatever the header says."""

    members: int = 20_000
    member_bytes: int = 256 << 20
    total_bytes: int = 2 << 30


_ZIP_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, NotImplementedError, RuntimeError, ValueError, OverflowError,
    IndexError,
)  # fmt: skip
_TAR_DAMAGE = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, struct.error, RecursionError)
_LEAVES = "could leave the folder it is unpacked to. Nothing was unpacked; do not use this archive."
_FOREIGN = "This is not the expected archive."


def _of_the_disk(error: BaseException) -> bool:
    """Tell errors of the disk from those of an archive; one that points before its own beginning gives an invalid argument."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


class ZipReader:
    """The files of a zip archive, by name, after its list was found harmless. Made by `open_zip`."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, limits: Limits) -> None:
        self._archive, self._path, self._limits = archive, path, limits
        self._read = 0
        infos = archive.infolist()
        if len(infos) > limits.members:
            raise DownloadError(f"{path}: {len(infos)} members, more than the {limits.members} allowed. This is not the expected archive.")
        seen: set[str] = set()
        self._files: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            name = _safe_name(info, path)
            if name in seen:
                raise DownloadError(f"{path}: member '{name}' occurs twice. This is not the expected archive.")
            seen.add(name)
            if not info.is_dir():
                self._files[name] = info

    @property
    def names(self) -> list[str]:
        """Names of all files, in the archive's order."""
        return list(self._files)

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of the file `name`; the limits hold for what is really read."""
        size, limits = 0, self._limits
        try:
            with self._archive.open(self._files[name]) as handle:
                while block := handle.read(_BLOCK):
                    size += len(block)
                    self._read += len(block)
                    if size > limits.member_bytes or self._read > limits.total_bytes:
                        raise DownloadError(
                            f"{self._path}: '{name}' unpacks to more than is allowed ({limits.member_bytes} bytes a file, "
                            f"{limits.total_bytes} in all). This is not the expected archive."
                        )
                    yield block
        except (*_ZIP_DAMAGE, OSError) as error:
            if _of_the_disk(error):
                raise
            raise DownloadError(f"{self._path}: member '{name}' is damaged ({error}). Download the archive again.") from error

    def read(self, name: str) -> bytes:
        """Return the bytes of the file `name`."""
        return b"".join(self.blocks(name))


def _safe_name(info: zipfile.ZipInfo, path: Path) -> str:
    raw = info.orig_filename  # ZipInfo.filename is already cut at a NUL
    kind = stat.S_IFMT(info.external_attr >> 16)
    if _climbs(raw):
        raise DownloadError(f"{path}: member {raw!r} {_LEAVES}")
    name = raw.rstrip("/")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DownloadError(f"{path}: member '{name}' is a link or device. Nothing was unpacked; do not use this archive.")
    return name


def _climbs(name: str) -> bool:
    """Say whether a member's name is anything but a plain path below the archive's top."""
    return name.startswith("/") or not all(s and is_plain_part(s) for s in name.rstrip("/").split("/"))


@contextmanager
def open_zip(archive: str | os.PathLike[str], *, limits: Limits | None = None) -> Iterator[ZipReader]:
    """Open a zip archive for reading by name, refusing dangerous member names of any kind.

    Raises
    ------
    DownloadError
        No zip, a truncated one, absolute or climbing names, links, doubled names, too many members; while
        reading: too many bytes or damage.
    """
    path = Path(archive)
    try:
        handle = zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise DownloadError(f"{path} is not there. Download the archive first.") from error
    except (*_ZIP_DAMAGE, OSError) as error:
        if _of_the_disk(error):
            raise
        raise DownloadError(f"{path} is no zip archive or is truncated ({error}). Delete it and download it again.") from error
    with handle:
        yield ZipReader(handle, path, limits or Limits())


def unpack_zip(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    wanted: Callable[[str], bool] | None = None,
    *,
    limits: Limits | None = None,
) -> list[Path]:
    """Unpack files of a zip archive into `folder`, whole or not at all.

    Parameters
    ----------
    archive : path-like
        The zip file.
    folder : path-like
        Made anew; an older folder of that name is replaced once all is unpacked.
    wanted : callable, optional
        Told the name of a file, says whether to unpack it. Default: all.
    limits : Limits, optional
        What the archive may hold at most.

    Returns
    -------
    list of Path
        The files, in the archive's order.

    Raises
    ------
    DownloadError
        See `open_zip`; also where a name is both a file and a folder. No partial folder stays.
    """
    folder = Path(folder)
    with open_zip(archive, limits=limits) as reader, atomic_path(folder, folder=True) as temporary:
        names = [n for n in reader.names if wanted is None or wanted(n)]
        for name in names:
            _write(temporary, name, reader.blocks(name), Path(archive))
    return [folder / name for name in names]


def _write(folder: Path, name: str, blocks: Iterator[bytes], archive: Path) -> None:
    target = folder / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = open(target, "xb")  # noqa: SIM115 closed below; only the opening is guarded
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
            raise
        raise DownloadError(
            f"{archive}: member '{name[:200]}' collides with another member, or its name is too long. {_FOREIGN}"
        ) from error
    with handle:
        for block in blocks:
            handle.write(block)


class _Guard:
    """What tarfile reads through: the bytes behind the compression, no more of them than the limits allow."""

    def __init__(self, handle: IO[bytes], path: Path, limits: Limits) -> None:
        self._handle, self._path = handle, path
        self.last = b""
        self._end = limits.total_bytes + 4096 * limits.members + _HEADER  # names and filling come on top of the files

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER:
            raise DownloadError(f"{self._path}: a member's header asks for {size} bytes. {_FOREIGN}")
        self._check(self._handle.tell() + size)
        self.last = self._handle.read(size)
        return self.last

    def seek(self, position: int) -> int:
        self._check(position)
        return self._handle.seek(position)

    def tell(self) -> int:
        return self._handle.tell()

    def _check(self, position: int) -> None:
        if position > self._end:
            raise DownloadError(f"{self._path} unpacks to more than is allowed ({self._end} bytes with its headers). {_FOREIGN}")


def unpack_tar(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    wanted: Callable[[str], bool] | None = None,
    *,
    limits: Limits | None = None,
) -> list[Path]:
    """Unpack files of a tar archive (plain, gzip, xz or bzip2, whatever its name says) into `folder`, whole or not at all.

    Only names and bytes of plain files are taken; nothing is extracted by tarfile itself, so no owner, mode, time or link.
    The whole archive is read and checked, its end and the compression's check sum included, even where few files are wanted.

    Parameters
    ----------
    archive, folder, wanted, limits
        As for `unpack_zip`. A leading ``./`` of names is cut off.

    Returns
    -------
    list of Path
        The files, in the archive's order.

    Raises
    ------
    DownloadError
        No tar, cut short or damaged; absolute or climbing names, links, devices, sparse files, doubled names, too many
        members or bytes. No partial folder stays.
    """
    path, folder, limits = Path(archive), Path(folder), limits or Limits()
    if not path.is_file():
        raise DownloadError(f"{path} is not there. Download the archive first.")
    made: list[str] = []
    with open(path, "rb") as raw, atomic_path(folder, folder=True) as temporary:
        try:
            with _decompressed(raw) as handle:
                guard = _Guard(handle, path, limits)
                for name, blocks in _members(guard, path, limits):
                    if wanted is None or wanted(name):
                        _write(temporary, name, blocks, path)
                        made.append(name)
        except _TAR_DAMAGE as error:
            if _of_the_disk(error):
                raise
            raise DownloadError(f"{path} is no tar archive or is damaged ({error}). Delete it and download it again.") from error
    return [folder / name for name in made]


@contextmanager
def _decompressed(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    begin = raw.read(6)
    raw.seek(0)
    opener = next((o for magic, o in _COMPRESSED.items() if begin.startswith(magic)), None)
    if opener is None:
        yield raw
    else:
        with opener(raw, "rb") as handle:
            yield handle


def _members(guard: _Guard, path: Path, limits: Limits) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield name and content of each file; what is left unread of one is skipped."""
    seen: set[str] = set()
    total = 0
    with tarfile.TarFile(fileobj=guard, mode="r", errorlevel=2) as tar:  # type: ignore[arg-type]
        while (info := tar.next()) is not None:
            name = _tar_name(info, path)
            if not name:
                continue
            if name in seen:
                raise DownloadError(f"{path}: member '{name}' occurs twice. {_FOREIGN}")
            seen.add(name)
            if len(seen) > limits.members:
                raise DownloadError(f"{path}: more than the {limits.members} members allowed. {_FOREIGN}")
            total += info.size
            if not 0 <= info.size <= limits.member_bytes or total > limits.total_bytes:
                raise DownloadError(
                    f"{path}: '{name}' unpacks to more than is allowed ({limits.member_bytes} bytes a file, {limits.total_bytes} in all). "
                    f"{_FOREIGN}"
                )
            if info.isreg():
                yield name, _tar_blocks(guard, info, path)
        _check_end(guard, path)


def _tar_name(info: tarfile.TarInfo, path: Path) -> str:
    raw = info.name
    name = raw.rstrip("/")
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    if info.isdir() and name in (".", ""):
        return ""
    if raw.startswith("/") or _climbs(name):
        raise DownloadError(f"{path}: member {raw!r} {_LEAVES}")
    if not (info.isdir() or info.isreg()) or info.issparse():
        raise DownloadError(f"{path}: member '{name}' is a link, device or sparse file. Nothing was unpacked; do not use this archive.")
    return name


def _tar_blocks(guard: _Guard, info: tarfile.TarInfo, path: Path) -> Iterator[bytes]:
    guard.seek(info.offset_data)
    left = info.size
    while left:
        block = guard.read(min(left, _BLOCK))
        if not block:
            raise DownloadError(f"{path} is cut short in '{info.name}'. Delete it and download it again.")
        left -= len(block)
        yield block


def _check_end(guard: _Guard, path: Path) -> None:
    """tarfile takes a damaged header, or the file's bare end, for the end of the archive: its mark are two blocks of zeros."""
    at, end = guard.tell(), guard.last + guard.read(tarfile.BLOCKSIZE)
    filling = 0
    whole = end == bytes(2 * tarfile.BLOCKSIZE)
    while whole and (block := guard.read(_BLOCK)):  # to the end, where the check sum of the compression stands
        filling += len(block)
        whole = filling <= _HEADER and not block.strip(b"\0")
    if not whole:
        raise DownloadError(f"{path} is cut short or damaged near byte {at} of its content. Delete it and download it again.")


def unpack(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    wanted: Callable[[str], bool] | None = None,
    *,
    limits: Limits | None = None,
) -> list[Path]:
    """Unpack a zip or tar archive, told apart by its content; see `unpack_zip` and `unpack_tar`."""
    path = Path(archive)
    if not path.is_file():
        raise DownloadError(f"{path} is not there. Download the archive first.")
    with open(path, "rb") as handle:
        begin = handle.read(4)
    if begin in (b"PK\x03\x04", b"PK\x05\x06"):
        return unpack_zip(path, folder, wanted, limits=limits)
    return unpack_tar(path, folder, wanted, limits=limits)
