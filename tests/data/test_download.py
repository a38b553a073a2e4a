"""Downloads from a misbehaving server on 127.0.0.1, and the mirror. No network."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pci_core.data import download
from pci_core.data.download import discard, fetch, git_blob_sha1
from pci_core.errors import DownloadError, StorageError

BODY = b"real content\n" * 100
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/good, /wrong, /missing, /broken (500), /flaky (500 once), /cut (ends early)."""

    seen: list[tuple[str, str]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["User-Agent"]))
        count = sum(path == self.path for path, _ in self.seen)
        status = {"/missing": 404, "/broken": 500}.get(self.path, 500 if self.path == "/flaky" and count == 1 else 200)
        body = b"something else" if self.path == "/wrong" else BODY
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:500] if self.path == "/cut" else body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("PCI_MIRROR", raising=False)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)  # between attempts
    monkeypatch.setattr(download, "RETRIES", 1)
    Handler.seen.clear()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_downloads_once_and_names_itself(server: str, tmp_path: Path) -> None:
    path = fetch(f"{server}/good", known_hash=SHA, folder=tmp_path)
    assert path.read_bytes() == BODY and path.name == "good" and path.is_relative_to(tmp_path)
    assert fetch(f"{server}/good", known_hash=SHA, folder=tmp_path) == path
    assert len(Handler.seen) == 1
    assert Handler.seen[0][1].startswith("pci_core/")


def test_cache_folder_from_the_environment(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCI_CACHE", str(tmp_path / "cache"))
    assert fetch(f"{server}/good", known_hash=None).is_relative_to(tmp_path / "cache")
    monkeypatch.delenv("PCI_CACHE")
    assert "pci_core" in str(download.cache_folder())


def test_tries_again_after_a_server_error(server: str, tmp_path: Path) -> None:
    assert fetch(f"{server}/flaky", known_hash=SHA, folder=tmp_path).read_bytes() == BODY
    assert len(Handler.seen) == 2


@pytest.mark.parametrize("page", ["missing", "broken", "cut", "wrong"])
def test_failure_is_one_clear_error_and_leaves_no_file(page: str, server: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=page):
        fetch(f"{server}/{page}", known_hash=SHA, folder=tmp_path)
    assert files(tmp_path) == []


def test_a_cut_download_without_hash_is_noticed(server: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="cut"):
        fetch(f"{server}/cut", known_hash=None, folder=tmp_path)
    assert files(tmp_path) == []


def test_nobody_answers(server: str, tmp_path: Path) -> None:
    # Port 9 (discard) of this machine: refused at once, unless somebody runs that service.
    with pytest.raises(DownloadError, match="PCI_MIRROR"):
        fetch("http://127.0.0.1:9/file", known_hash=SHA, folder=tmp_path)


@pytest.mark.parametrize("known_hash", [SHA, f"gitblob:{git_blob_sha1(BODY)}"])
def test_damaged_cached_file_is_fetched_anew(known_hash: str, server: str, tmp_path: Path) -> None:
    path = fetch(f"{server}/good", known_hash=known_hash, folder=tmp_path)
    path.write_bytes(b"damaged")
    assert fetch(f"{server}/good", known_hash=known_hash, folder=tmp_path).read_bytes() == BODY


def test_git_blob_hash(server: str, tmp_path: Path) -> None:
    assert git_blob_sha1(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # git's well-known empty blob
    assert fetch(f"{server}/good", known_hash=f"gitblob:{git_blob_sha1(BODY)}", folder=tmp_path).read_bytes() == BODY
    with pytest.raises(DownloadError, match="git blob hash"):
        fetch(f"{server}/wrong", known_hash=f"gitblob:{git_blob_sha1(BODY)}", folder=tmp_path)
    assert [p.name for p in files(tmp_path)] == ["good"]


def test_git_blob_hash_agrees_with_git(tmp_path: Path) -> None:
    try:
        done = subprocess.run(["git", "hash-object", "--stdin"], input=BODY, capture_output=True, check=True, cwd=tmp_path)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("git is not installed")
    assert git_blob_sha1(BODY) == done.stdout.decode().strip()


@pytest.mark.parametrize(
    "url", ["ftp://host/file", "https://host", "https://host/../file", "https://host/a/../../b", "file:///etc/hosts", "plain"]
)
def test_addresses_that_are_none(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="no address"):
        fetch(url, known_hash=None, folder=tmp_path)


def test_unwritable_cache(server: str, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(StorageError, match="part of the path is a file"):
        fetch(f"{server}/good", known_hash=SHA, folder=blocked)


def test_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://example.org/some/file.bin"
    monkeypatch.setenv("PCI_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(DownloadError, match="no folder"):
        fetch(url, known_hash=SHA)
    place = tmp_path / "mirror" / "example.org" / "some" / "file.bin"
    place.parent.mkdir(parents=True)
    with pytest.raises(DownloadError) as caught:
        fetch(url, known_hash=SHA)
    assert str(place) in str(caught.value)
    place.write_bytes(BODY)
    assert fetch(url, known_hash=SHA) == fetch(url, known_hash=None) == fetch(url, known_hash=f"gitblob:{git_blob_sha1(BODY)}") == place
    for wrong in ("sha256:" + "0" * 64, "gitblob:" + "0" * 40):
        with pytest.raises(DownloadError, match="expected 0000"):
            fetch(url, known_hash=wrong)
    discard(place)
    assert place.is_file()  # the mirror is the user's
