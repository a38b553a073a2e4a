"""Many files from somebody else's server, politely: few connections, pauses, waits when asked to, and no half files.

A `PoliteSession` is shared by the threads of one download. It leaves a pause between any two requests, does what
``Retry-After`` says for all of them, tries again with growing pauses, goes on with half a file where the server
allows it, and puts a file under its name only after its length and content were checked. With ``PCI_MIRROR`` set
it copies from that folder instead, see `pci_core.data.download`.
"""

from __future__ import annotations

import email.utils
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import requests

from pci_core.data import download
from pci_core.data.addresses import check_redirection
from pci_core.data.half_file import HalfFile, discard
from pci_core.errors import DownloadError, PCIError
from pci_core.storage import as_storage_error, file_sha256

_BLOCK = 1 << 16
_AGAIN = (408, 425, 429)  # with 5xx: the server may answer later
_NOT_THERE = (400, 404, 410)  # the atlas answers 400 for files that it has withdrawn


class NotThere(DownloadError):
    """The server has no file at this address, and says so; `tries` requests were made."""

    def __init__(self, message: str, tries: int = 1) -> None:
        super().__init__(message)
        self.tries = tries


class GaveUp(DownloadError):
    """A file could not be had after all tries, or the server refuses it."""

    def __init__(self, message: str, tries: int) -> None:
        super().__init__(message)
        self.tries = tries


class Stopped(DownloadError):
    """The download was stopped from outside, or the server asks for a longer pause than is waited for."""


@dataclass(frozen=True)
class Manners:
    """How a server is treated; times in seconds.

    Attributes
    ----------
    connections : int
        Requests under way at once.
    interval : float
        Least time between the starts of two requests, over all connections.
    connect_timeout, read_timeout : float
        Until a connection stands, and between two blocks of bytes.
    slowest : float
        Bytes a second over one minute; what is slower counts as a time-out.
    tries : int
        For one address, the first included.
    first_wait, longest_wait : float
        Before the second try, and the limit that doubling it may reach; each is varied by up to a half.
    longest_retry_after : float
        What a server may ask for in ``Retry-After`` before the whole download is stopped.
    """

    connections: int = 2
    interval: float = 0.5
    connect_timeout: float = 15.0
    read_timeout: float = 60.0
    slowest: float = 500.0
    tries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 120.0
    longest_retry_after: float = 900.0


@dataclass(frozen=True)
class Had:
    """A file that was downloaded whole: its bytes, SHA-256, the requests it took and the bytes of the last one."""

    size: int
    sha256: str
    tries: int
    received: int


class _TryAgain(Exception):
    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class PoliteSession:
    """Downloads for several threads with one set of manners.

    Parameters
    ----------
    manners : Manners
    trusted : callable, optional
        Told an address, says whether it may be asked; a redirection elsewhere is refused.
    clock, pause : callable
        Seconds that pass steadily, and waiting for some; for tests. `pause` returns True when stopped meanwhile.
    """

    def __init__(
        self,
        manners: Manners | None = None,
        trusted: Callable[[str], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        self.manners = manners or Manners()
        self._stop = threading.Event()
        self._trusted = trusted or (lambda url: True)
        self._clock, self._pause = clock, pause or self._stop.wait
        self._lock, self._local = threading.Lock(), threading.local()
        self._turn = self._closed_until = 0.0
        self._jitter = random.Random()
        self._sessions: list[requests.Session] = []

    def __enter__(self) -> PoliteSession:
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()
        for session in self._sessions:
            session.close()

    def stop(self) -> None:
        """End all pauses and downloads; they raise `Stopped`."""
        self._stop.set()

    def download(
        self,
        url: str,
        target: str | os.PathLike[str],
        *,
        check: Callable[[Path], None] | None = None,
        limit: int = 256 << 20,
        compressed: bool = False,
    ) -> Had:
        """Put the file at `url` under the name `target`, whole and checked or not at all.

        Parameters
        ----------
        url : str
        target : path-like
            Replaced once the new file is whole. What is half done lies beside it as ``<name>.part`` and is gone on with
            next time, if the server names a version of the file (ETag or Last-Modified) and it is still the same.
        check : callable
            Given the path of the whole file under another name; raises a `PCIError` where it is not what it should be.
        limit : int
            Largest size, bytes.
        compressed : bool
            Ask for a gzipped transfer (text). Such a transfer starts anew after a cut.

        Returns
        -------
        Had

        Raises
        ------
        NotThere
            The server has no such file.
        GaveUp
            All tries failed; the message has the last reason.
        Stopped
            `stop` was called, or the server asks for a pause that is too long.
        StorageError
            The disk is full or the folder cannot be written.
        """
        target = Path(target)
        part = target.with_name(target.name + ".part")
        with as_storage_error(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            if os.environ.get(download.MIRROR):
                self._check_trusted(url)
                return self._copy(url, target, part, check)
            for attempt in range(1, self.manners.tries + 1):
                reason, wait = "", None
                try:
                    received = self._request(url, part, limit, compressed, attempt)
                    return _finish(part, target, check, attempt, received)
                except _TryAgain as error:
                    reason, wait = str(error), error.wait
                except NotThere as error:
                    discard(part)
                    raise NotThere(str(error), attempt) from None
                except requests.exceptions.RequestException as error:
                    reason = _in_words(error)
                except Stopped:
                    raise
                except GaveUp:
                    discard(part)
                    raise
                except PCIError as error:
                    discard(part)  # whole, but wrong: nothing of it is of use
                    reason = f"wrong content: {error}"
                if attempt < self.manners.tries:
                    self._wait_after(attempt, wait, url)
            if HalfFile.read(part, url) is None:
                discard(part)
            raise GaveUp(f"{url}: given up after {attempt} tries; the last: {reason}", attempt)

    def size(self, url: str) -> int | None:
        """Return the size of a file in bytes as the server tells it, None where it does not; one or two requests."""
        if os.environ.get(download.MIRROR):
            try:
                self._check_trusted(url)
                return download.fetch(url, known_hash=None).stat().st_size
            except DownloadError:
                return None
        for ask in ("HEAD", "GET"):  # some servers of images answer no HEAD; a GET that is closed at once tells the same
            self._take_turn()
            try:
                with self._ask(ask, url, {"Accept-Encoding": "identity"}) as response:
                    length = response.headers.get("Content-Length", "")
                    if response.status_code == 200 and length.isdigit():
                        return int(length)
            except requests.exceptions.RequestException:
                continue
            except GaveUp:
                return None  # it leads elsewhere
        return None

    # --- pauses

    def _take_turn(self) -> None:
        with self._lock:
            start = max(self._clock(), self._turn)
            self._turn = start + self.manners.interval
        while (left := max(start, self._closed_until) - self._clock()) > 0 or self._stop.is_set():
            if self._stop.is_set() or self._pause(left):
                raise Stopped("the download was stopped")

    def _wait_after(self, attempt: int, wait: float | None, url: str) -> None:
        manners = self.manners
        if wait is not None and wait > manners.longest_retry_after:
            raise Stopped(f"{url}: the server asks to come back in {wait / 60:.0f} minutes; run the same command again then")
        if wait is not None:
            with self._lock:  # the server means all of us
                self._closed_until = max(self._closed_until, self._clock() + wait)
        own = min(manners.longest_wait, manners.first_wait * 2 ** (attempt - 1)) * self._jitter.uniform(0.5, 1.5)
        if self._pause(max(own, wait or 0.0)) or self._stop.is_set():
            raise Stopped("the download was stopped")

    # --- one request

    def _ask(self, method: str, url: str, headers: dict[str, str]) -> requests.Response:
        self._check_trusted(url)
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()  # one a thread
            self._sessions.append(self._local.session)
            self._local.session.headers["User-Agent"] = download.USER_AGENT
            self._local.session.max_redirects = 5
        timeout = (self.manners.connect_timeout, self.manners.read_timeout)
        response: requests.Response = self._local.session.request(
            method, url, headers=headers, stream=True, timeout=timeout, allow_redirects=True, hooks={"response": self._check_redirection}
        )
        return response

    def _check_trusted(self, url: str) -> None:
        if not self._trusted(url):
            raise GaveUp(f"{url} is not an address of this source; it was not asked", 0)

    def _check_redirection(self, response: requests.Response, *unused: object, **named: object) -> None:
        """Refuse a redirection before it is followed: the host that it leads to shall not even be asked."""
        target = urljoin(response.url, response.headers.get("Location", ""))
        if response.is_redirect and not self._trusted(target):
            raise GaveUp(f"{response.url}: the server points to {target}, which is not of this source", 1)
        try:
            check_redirection(response)
        except DownloadError as error:
            raise GaveUp(str(error), 1) from error

    def _request(self, url: str, part: Path, limit: int, compressed: bool, attempt: int) -> int:
        """Fill `part` with the file, going on with what is there of it; returns the bytes received."""
        half = None if compressed else HalfFile.read(part, url)
        headers = {"Accept-Encoding": "gzip" if compressed else "identity"}
        if half:
            headers |= {"Range": f"bytes={part.stat().st_size}-", "If-Range": half.version}
        self._take_turn()
        with self._ask("GET", url, headers) as response:
            self._judge(response, url, part, attempt)
            start = part.stat().st_size if half and response.status_code == 206 else 0
            if response.status_code == 206 and not (half and half.fits(response, start)):
                discard(part)
                raise _TryAgain("the server sent another part than was asked for", 0.0)
            encoded = response.headers.get("Content-Encoding", "identity") != "identity"
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if length.isdigit() else None
            if total is not None and total > limit and not encoded:
                raise GaveUp(f"{url}: {total} bytes, more than the {limit} that such a file may have", attempt)
            if not start:
                HalfFile.begin(part, url, response, None if encoded else total)
            received = self._receive(response, part, start, limit, url, attempt)
            if total is not None and start + received != total:
                raise _TryAgain(f"cut off: {start + received} of {total} bytes came")
            return received

    def _receive(self, response: requests.Response, part: Path, start: int, limit: int, url: str, attempt: int) -> int:
        began, written = self._clock(), start
        with open(part, "ab" if start else "wb") as handle:
            for block in response.iter_content(_BLOCK):
                if self._stop.is_set():
                    raise Stopped("the download was stopped")
                written += handle.write(block)
                if written > limit:
                    raise GaveUp(f"{url}: more than the {limit} bytes that such a file may have", attempt)
                seconds = self._clock() - began
                if seconds > 60 and (written - start) / seconds < self.manners.slowest:
                    raise _TryAgain(f"too slow: {written - start} bytes in {seconds:.0f} s")
            handle.flush()
            os.fsync(handle.fileno())
        return int(response.raw.tell())  # before unpacking: that is what Content-Length counts

    def _judge(self, response: requests.Response, url: str, part: Path, attempt: int) -> None:
        code = response.status_code
        if code in (200, 206):
            return
        said = f"HTTP {code} {response.reason or ''}".strip()
        if code in _NOT_THERE:
            raise NotThere(f"{url}: {said}")
        if code == 416:
            discard(part)
            raise _TryAgain(said, 0.0)
        if code in _AGAIN or code >= 500:
            raise _TryAgain(said, retry_after(response.headers.get("Retry-After", "")))
        raise GaveUp(f"{url}: {said}", attempt)

    def _copy(self, url: str, target: Path, part: Path, check: Callable[[Path], None] | None) -> Had:
        if self._stop.is_set():
            raise Stopped("the download was stopped")
        try:
            source = download.fetch(url, known_hash=None)
        except DownloadError as error:
            raise NotThere(str(error)) from error
        shutil.copyfile(source, part)
        try:
            return _finish(part, target, check, 1, part.stat().st_size)
        except PCIError as error:
            discard(part)
            raise GaveUp(f"{source}: wrong content: {error}", 1) from error


def retry_after(value: str) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for (a number or a date), None where it says nothing usable."""
    text = value.strip()
    if text.isdigit():
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return max(0.0, when.timestamp() - time.time())


def _finish(part: Path, target: Path, check: Callable[[Path], None] | None, tries: int, received: int) -> Had:
    if check is not None:
        check(part)
    had = Had(part.stat().st_size, file_sha256(part), tries, received)
    os.replace(part, target)
    discard(part)
    return had


def _in_words(error: requests.exceptions.RequestException) -> str:
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, requests.exceptions.Timeout) or "Read timed out" in str(error):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"the connection was cut ({error})"
    return f"{type(error).__name__}: {error}"
