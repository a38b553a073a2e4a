"""Downloads, checked against known hashes; archives are unpacked by `pci_core.data.archives`.

Every file with a known hash goes through `fetch` (images of the atlas, which have none, through `pci_core.data.polite`).
Files land under ``<cache>/<host>/<path>``; a folder of the same layout, named by the environment variable
``PCI_MIRROR``, is used instead of the network.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pooch
import requests

import pci_core
from pci_core.data.addresses import check_redirection
from pci_core.errors import DownloadError
from pci_core.storage import is_plain_part, locked, sweep_once, working_folder

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
        An ``http`` or ``https`` address of a file; a redirection is followed to public hosts only, see `pci_core.data.addresses`.
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
    path = root / place
    if _is_there(path, known_hash):
        sweep_once(path.parent)  # one that was killed in its last moment
        return path
    with locked(root / ".locks" / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.lock"):
        if not _is_there(path, known_hash):  # another process may have had it while we waited
            _download(url, root, place, None if git else known_hash, git, progress)
    return path


def _is_there(path: Path, known_hash: str | None) -> bool:
    if not path.is_file():
        return False
    if known_hash and known_hash.startswith("gitblob:"):
        return git_blob_sha1(path.read_bytes()) == known_hash.removeprefix("gitblob:")
    return known_hash is None or pooch.file_hash(str(path), alg=_algorithm(known_hash)) == known_hash.rpartition(":")[2].lower()


def _algorithm(known_hash: str) -> str:
    return known_hash.rpartition(":")[0] or "sha256"


def _download(url: str, root: Path, place: str, known_hash: str | None, git: str | None, progress: bool) -> None:
    """Put the file under its name once it is whole and has its hash."""
    path = root / place
    get = pooch.HTTPDownloader(progressbar=progress, chunk_size=_BLOCK, timeout=TIMEOUT, headers={"User-Agent": USER_AGENT},
                               hooks={"response": check_redirection})  # fmt: skip
    level = pooch.get_logger().level
    pooch.get_logger().setLevel("WARNING")  # its lines about every file would cut through progress bars
    try:
        with working_folder(path) as work:  # pooch's own temporary names would stay after a kill
            retriever = pooch.create(work, base_url="", registry={path.name: known_hash}, urls={path.name: url}, retry_if_failed=RETRIES)
            made = Path(retriever.fetch(path.name, downloader=get))
            if git:
                _check_git(made, git, url, path)
            os.replace(made, path)
    except requests.exceptions.RequestException as error:
        raise DownloadError(
            f"{url} could not be downloaded ({error}). Check the network and try again, or put the file under "
            f"{place} in a folder and name that folder in the environment variable {MIRROR}."
        ) from error
    except ValueError as error:  # pooch's way to tell a wrong hash
        raise DownloadError(f"{url} does not have the expected content ({error}). Nothing was kept; try again later.") from error
    finally:
        pooch.get_logger().setLevel(level)


def _place(url: str) -> str:
    parts = urlsplit(url)
    segments = parts.path.strip("/").split("/")
    host = parts.netloc.replace(":", "_")
    if parts.scheme not in ("http", "https") or not host or not all(s and is_plain_part(unquote(s)) for s in (*segments, host)):
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
        found, digest = pooch.file_hash(str(path), alg=_algorithm(known_hash)), known_hash.rpartition(":")[2]
        if found.lower() != digest.lower():
            raise DownloadError(f"{path} is not the file that {url} should be: hash {found}, expected {digest}. Replace it in the mirror.")
    return path


def _check_git(path: Path, expected: str, url: str, final: Path | None = None) -> None:
    found = git_blob_sha1(path.read_bytes())
    if found != expected:
        raise DownloadError(
            f"{final or path} is not the file that {url} should be: git blob hash {found}, expected {expected}. Fetch it again."
        )


def discard(path: str | os.PathLike[str]) -> None:
    """Remove a downloaded file whose content proved wrong, so that the next `fetch` gets it anew.

    A file inside ``PCI_MIRROR`` belongs to the user and stays.
    """
    mirror = os.environ.get(MIRROR)
    if not (mirror and Path(path).resolve().is_relative_to(Path(mirror).resolve())):
        Path(path).unlink(missing_ok=True)
