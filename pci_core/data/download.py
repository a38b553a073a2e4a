"""Downloads, checked against known hashes, and archives unpacked without trusting their names or sizes.

Every download of the package goes through `fetch`. Files land under ``<cache>/<host>/<path>``; a folder
of the same layout, named by the environment variable ``PCI_MIRROR``, is used instead of the network.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests

import pci_core
from pci_core.errors import DownloadError
from pci_core.storage import as_storage_error, atomic_path

MIRROR, CACHE = "PCI_MIRROR", "PCI_CACHE"
TIMEOUT = (15, 60)  # seconds to connect, and between two blocks of bytes
RETRIES = 3
USER_AGENT = f"pci_core/{pci_core.__version__} (paired cell inpainting; python-requests)"
_BLOCK = 1 << 20


def cache_folder() -> Path:
    """Return where downloads are kept: ``PCI_CACHE`` where set, else the system's cache for ``pci_core``."""
    return Path(os.environ.get(CACHE) or pooch.os_cache("pci_core"))


def git_blob_sha1(content: bytes) -> str:
    """Return the SHA-1 by which git names a file of this content (40 hexadecimal digits)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def fetch(url: str, *, known_hash: str | None, folder: str | os.PathLike[str] | None = None, progress: bool = False) -> Path:
    """Return the local path of `url`, downloading it if it is not there yet.

    Parameters
    ----------
    url : str
        An ``http`` or ``https`` address of a file.
    known_hash : str or None
        ``"sha256:…"``, another algorithm of hashlib, or ``"gitblob:…"`` (git's SHA-1 of the file). None
        only where the caller verifies the content itself and calls `discard` when it is wrong.
    folder : path-like, optional
        Instead of `cache_folder`.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    Path
        ``<folder>/<host>/<path>``, or the file inside ``PCI_MIRROR``. Do not write to it.

    Raises
    ------
    DownloadError
        No network, an HTTP error, a file that is not in the mirror, or a hash that does not match; a file
        with a wrong hash is not kept.
    StorageError
        The cache cannot be written.
    """
    place = _place(url)
    if os.environ.get(MIRROR):
        return _from_mirror(url, place, known_hash)
    git = known_hash.removeprefix("gitblob:") if known_hash and known_hash.startswith("gitblob:") else None
    root = Path(folder) if folder is not None else cache_folder()
    if git and (root / place).is_file() and git_blob_sha1((root / place).read_bytes()) != git:
        discard(root / place)  # pooch knows no git hashes, and would keep a file that was damaged later
    retriever = pooch.create(root, base_url="", registry={place: None if git else known_hash}, urls={place: url}, retry_if_failed=RETRIES)
    get = pooch.HTTPDownloader(progressbar=progress, chunk_size=_BLOCK, timeout=TIMEOUT, headers={"User-Agent": USER_AGENT})
    level = pooch.get_logger().level
    pooch.get_logger().setLevel("WARNING")  # its lines about every file would cut through progress bars
    try:
        with as_storage_error(root / place):
            path = Path(retriever.fetch(place, downloader=get))
    except requests.exceptions.RequestException as error:
        raise DownloadError(
            f"{url} could not be downloaded ({error}). Check the network and try again, or put the file under "
            f"{place} in a folder and name that folder in the environment variable {MIRROR}."
        ) from error
    except ValueError as error:  # pooch's way to tell a wrong hash
        raise DownloadError(f"{url} does not have the expected content ({error}). Nothing was kept; try again later.") from error
    finally:
        pooch.get_logger().setLevel(level)
    if git:
        _check_git(path, git, url)
    return path


def _place(url: str) -> str:
    parts = urlsplit(url)
    segments = parts.path.strip("/").split("/")
    host = parts.netloc.replace(":", "_")
    if parts.scheme not in ("http", "https") or not host or any(s in ("", ".", "..") for s in (*segments, host)):
        raise DownloadError(f"'{url}' is no address of a file that can be downloaded; expected https://host/path.")
    query = f"_{hashlib.sha256(parts.query.encode()).hexdigest()[:12]}" if parts.query else ""
    return "/".join([host, *segments]) + query


def _from_mirror(url: str, place: str, known_hash: str | None) -> Path:
    mirror = Path(os.environ[MIRROR])
    path = mirror / place
    if not mirror.is_dir():
        raise DownloadError(f"{MIRROR} names {mirror}, which is no folder; {url} was expected at {path}. Correct {MIRROR} or unset it.")
    if not path.is_file():
        raise DownloadError(f"{url} is not in the mirror: expected at {path}. Put the file there, or unset {MIRROR} to use the network.")
    if known_hash is not None and known_hash.startswith("gitblob:"):
        _check_git(path, known_hash.removeprefix("gitblob:"), url)
    elif known_hash is not None:
        algorithm, _, digest = known_hash.rpartition(":")
        found = pooch.file_hash(str(path), alg=algorithm or "sha256")
        if found.lower() != digest.lower():
            raise DownloadError(f"{path} is not the file that {url} should be: hash {found}, expected {digest}. Replace it in the mirror.")
    return path


def _check_git(path: Path, expected: str, url: str) -> None:
    found = git_blob_sha1(path.read_bytes())
    if found != expected:
        discard(path)
        raise DownloadError(f"{path} is not the file that {url} should be: git blob hash {found}, expected {expected}. Fetch it again.")


def discard(path: str | os.PathLike[str]) -> None:
    """Remove a downloaded file whose content proved wrong, so that the next `fetch` gets it anew.

    A file inside ``PCI_MIRROR`` belongs to the user and stays.
    """
    mirror = os.environ.get(MIRROR)
    if not (mirror and Path(path).resolve().is_relative_to(Path(mirror).resolve())):
        Path(path).unlink(missing_ok=True)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most; sizes in bytes, counted while reading, whatever the header says."""

    members: int = 20_000
    member_bytes: int = 256 << 20
    total_bytes: int = 2 << 30


_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, NotImplementedError, RuntimeError, UnicodeDecodeError)


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
        except _DAMAGE as error:
            raise DownloadError(f"{self._path}: member '{name}' is damaged ({error}). Download the archive again.") from error

    def read(self, name: str) -> bytes:
        """Return the bytes of the file `name`."""
        return b"".join(self.blocks(name))


def _safe_name(info: zipfile.ZipInfo, path: Path) -> str:
    raw = info.orig_filename  # ZipInfo.filename is already cut at a NUL
    name = raw.rstrip("/")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if "\\" in raw or "\0" in raw or ":" in raw or raw.startswith("/") or any(s in ("", ".", "..") for s in name.split("/")):
        raise DownloadError(
            f"{path}: member {raw!r} could leave the folder it is unpacked to. Nothing was unpacked; do not use this archive."
        )
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DownloadError(f"{path}: member '{name}' is a link or device. Nothing was unpacked; do not use this archive.")
    return name


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
    except _DAMAGE as error:
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
            target = temporary / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                handle = open(target, "xb")  # noqa: SIM115 closed below; only the opening is guarded
            except (FileExistsError, NotADirectoryError) as error:
                raise DownloadError(
                    f"{archive}: member '{name}' collides with another member. This is not the expected archive."
                ) from error
            with handle:
                for block in reader.blocks(name):
                    handle.write(block)
    return [folder / name for name in names]
