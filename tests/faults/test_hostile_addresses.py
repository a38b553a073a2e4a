"""Addresses that lead elsewhere: in entries of the atlas, in redirections, with a mirror set, and in our own code."""

from __future__ import annotations

import ast
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

import pci_core
from pci_core.data import addresses, authors, catalog, download, duloc, hpa_xml
from pci_core.data.download import fetch
from pci_core.data.hpa_addresses import NEWEST, release, secure, variants
from pci_core.data.hpa_plan import plan
from pci_core.data.polite import Manners, PoliteSession
from pci_core.errors import DownloadError

IMAGE = "115/672_E2_1_blue_red_green.jpg"
OWN = "v18.proteinatlas.org"
HOSTILE = [
    f"file:///etc/{IMAGE}",
    f"file://{OWN}/{IMAGE}",
    f"ftp://{OWN}/images/{IMAGE}",
    f"gopher://{OWN}/images/{IMAGE}",
    f"data:image/jpeg,{IMAGE}",
    f"//{OWN}/images/{IMAGE}",
    f"http://localhost/images/{IMAGE}",
    f"http://127.0.0.1/images/{IMAGE}",
    f"http://127.1/images/{IMAGE}",
    f"http://2130706433/images/{IMAGE}",
    f"http://0x7f.0.0.1/images/{IMAGE}",
    f"http://0/images/{IMAGE}",
    f"http://[::1]/images/{IMAGE}",
    f"http://[::ffff:127.0.0.1]/images/{IMAGE}",
    f"http://10.0.0.1/images/{IMAGE}",
    f"http://192.168.1.1/images/{IMAGE}",
    f"http://172.16.0.9/images/{IMAGE}",
    f"http://169.254.169.254/images/{IMAGE}",
    f"http://[fe80::1]/images/{IMAGE}",
    f"http://[fd00::1]/images/{IMAGE}",
    f"http://intranet/images/{IMAGE}",
    f"http://printer.local/images/{IMAGE}",
    f"https://evil.example/images/{IMAGE}",
    f"https://proteinatlas.org.evil.example/images/{IMAGE}",
    f"https://evilproteinatlas.org/images/{IMAGE}",
    f"https://{OWN}@evil.example/images/{IMAGE}",
    f"https://user:word@{OWN}/images/{IMAGE}",
    f"https://evil.example\\@{OWN}/images/{IMAGE}",
    f"https://evil.example%2f.proteinatlas.org/images/{IMAGE}",
    f"https://evil.example%23.proteinatlas.org/images/{IMAGE}",
    f"https://evil.example;.proteinatlas.org/images/{IMAGE}",
    f"https://evil.example\u2044.proteinatlas.org/images/{IMAGE}",
    f"https://{OWN}:22/images/{IMAGE}",
    f"https://{OWN}:/images/{IMAGE}",
    f"https://{OWN}.:8443/images/{IMAGE}",
    f"https://{OWN}\t.evil.example/images/{IMAGE}",
    f"https://evil.example#.proteinatlas.org/images/{IMAGE}",
    f"https://evil.example?.proteinatlas.org/images/{IMAGE}",
    f"https://.proteinatlas.org/images/{IMAGE}",
    f"https://a..proteinatlas.org/images/{IMAGE}",
]  # fmt: skip


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Note every attempt at a connection, and let none be made."""
    asked: list[object] = []

    def refuse(address: object, *more: object, **named: object) -> socket.socket:
        asked.append(address)
        raise OSError("no network in this test")

    def look_up(host: object, *more: object, **named: object) -> list[object]:
        asked.append(host)
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.delenv(download.MIRROR, raising=False)
    return asked


def test_no_hostile_address_is_taken_for_one_of_the_atlas() -> None:
    for name in ("18", "23", NEWEST):
        assert [u for u in HOSTILE if release(name).trusts(u) or release(name).trusts(secure(u))] == []


def test_no_hostile_address_is_tried_or_asked(no_connection: list[object], tmp_path: Path) -> None:
    with PoliteSession(Manners(tries=1, interval=0.0), trusted=release("18").trusts) as session:
        for number, url in enumerate(HOSTILE):
            with pytest.raises(DownloadError):
                session.download(url, tmp_path / f"{number}.jpg")
            try:
                tried = variants(url, release("18"), [url])
            except DownloadError:
                continue
            assert all(re.match(r"https://(v18|images)\.proteinatlas\.org/", u) for u in tried), (url, tried)
    assert no_connection == [] and list(tmp_path.iterdir()) == []


def test_an_entry_with_hostile_addresses_gives_no_image(no_connection: list[object], tmp_path: Path) -> None:
    (tmp_path / "entries" / "18").mkdir(parents=True)
    images = "".join(
        f"<image><imageUrl>{u.replace('&', '&amp;').replace('<', '&lt;')}</imageUrl></image>" for u in HOSTILE if "\t" not in u
    )
    (tmp_path / "entries" / "18" / "ENSG00000000001.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?><proteinAtlas><entry version="18" url="http://v18.proteinatlas.org/ENSG00000000001">'
        '<name>ABC1</name><identifier id="ENSG00000000001" db="Ensembl"/><antibody id="HPA000011"><cellExpression source="HPA" '
        'technology="ICC/IF"><subAssay type="human"><data><cellLine>A-431</cellLine><assayImage>'
        f"{images}</assayImage></data></subAssay></cellExpression></antibody></entry></proteinAtlas>",
        encoding="utf-8",
    )
    assert len(list(hpa_xml.read_entries(tmp_path / "entries" / "18" / "ENSG00000000001.xml"))) == 1
    with pytest.raises(DownloadError, match="no image of cells is left"):
        plan(["ENSG00000000001"], tmp_path)
    assert no_connection == []


# --- redirections


class _Server(BaseHTTPRequestHandler):
    """Sends whoever asks for /away/N to the N-th of `targets`; anything else is the content that was asked for."""

    targets: list[str] = []
    seen: list[str] = []

    def do_GET(self) -> None:
        self.seen.append(self.path)
        away = re.fullmatch(r"/away/(\d+)", self.path)
        self.send_response(302 if away else 200)
        if away:
            self.send_header("Location", self.targets[int(away[1])])
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"body")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""


@contextmanager
def serving() -> Iterator[tuple[type[_Server], str]]:
    handler = type("Handler", (_Server,), {"targets": [], "seen": []})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield handler, f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()


@pytest.fixture
def two_servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[type[_Server], str, type[_Server], str]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv(download.MIRROR, raising=False)
    with serving() as (first, a), serving() as (second, b):
        yield first, a, second, b


def ways_out(own: str, other: str) -> list[str]:
    """Where a hostile answer may send the one who asks: elsewhere, to this machine's own services, or there and back."""
    port = other.rsplit(":", 1)[1]
    return [
        f"{other}/secret",
        f"http://localhost:{port}/secret",
        f"http://127.1:{port}/secret",
        f"http://2130706433:{port}/secret",
        f"http://[::ffff:127.0.0.1]:{port}/secret",
        f"//127.0.0.1:{port}/secret",
        f"http://{own.removeprefix('http://')}@127.0.0.1:{port}/secret",
        f"{other}/away/0",  # which leads back to where the question was first asked
        "file:///etc/passwd",
        "ftp://127.0.0.1/secret",
    ]


def test_a_redirection_elsewhere_is_not_followed(two_servers: tuple[type[_Server], str, type[_Server], str], tmp_path: Path) -> None:
    first, own, second, other = two_servers
    first.targets += ways_out(own, other)
    second.targets += [f"{own}/back"]
    for number, target in enumerate(first.targets):
        for trusted in (lambda url: url.startswith(f"{own}/"), None):
            with PoliteSession(Manners(tries=1, interval=0.0), trusted=trusted) as session:
                with pytest.raises(DownloadError):
                    session.download(f"{own}/away/{number}", tmp_path / "polite")
                assert session.size(f"{own}/away/{number}") is None, target
        with pytest.raises(DownloadError):
            fetch(f"{own}/away/{number}", known_hash=None, folder=tmp_path / "cache")
    assert second.seen == []  # not even asked
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_a_redirection_within_the_host_is_followed(two_servers: tuple[type[_Server], str, type[_Server], str], tmp_path: Path) -> None:
    first, own, _, _ = two_servers
    first.targets += [f"{own}/file", "/file"]
    for number in range(2):
        with PoliteSession(Manners(tries=1, interval=0.0), trusted=lambda url: url.startswith(f"{own}/")) as session:
            assert session.download(f"{own}/away/{number}", tmp_path / "polite").size == 4
        assert fetch(f"{own}/away/{number}", known_hash=None, folder=tmp_path / "cache").read_bytes() == b"body"


def test_from_https_nothing_leads_back_to_http() -> None:
    answer = requests.Response()
    answer.status_code, answer.url = 302, "https://images.proteinatlas.org/1.jpg"
    answer.headers["Location"] = "http://images.proteinatlas.org/1.jpg"
    with pytest.raises(DownloadError, match="http"):
        addresses.check_redirection(answer)


# --- the mirror


def test_a_mirror_serves_no_address_that_would_not_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("evil.example", "localhost", OWN):
        (tmp_path / "mirror" / host / "images" / "115").mkdir(parents=True)
        (tmp_path / "mirror" / host / "images" / IMAGE).write_bytes(b"content")
    (tmp_path / "secret").write_bytes(b"secret")
    monkeypatch.setenv(download.MIRROR, str(tmp_path / "mirror"))
    with PoliteSession(trusted=release("18").trusts) as session:
        for number, url in enumerate(HOSTILE):
            with pytest.raises(DownloadError):
                session.download(url, tmp_path / f"{number}.jpg")
        assert session.size(f"https://evil.example/images/{IMAGE}") is None
        assert session.download(f"https://{OWN}/images/{IMAGE}", tmp_path / "fine.jpg").size == 7
    for url in (
        "https://evil.example/../../secret",
        "https://evil.example/..\\..\\secret",
        "https://../secret",
        "https://evil.example/a/%00",
    ):
        with pytest.raises(DownloadError):
            fetch(url, known_hash=None)


# --- our own addresses


def sources(*words: str) -> Iterator[tuple[Path, ast.AST]]:
    """Yield the modules that hold one of these words; to parse all of them takes seconds."""
    for path in sorted(Path(pci_core.__file__).parent.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if any(word in text for word in words):
            yield path, ast.parse(text)


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a module that are no docstrings."""
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    yield from (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in said)


def test_no_file_is_asked_for_over_plain_http() -> None:
    found = {}
    for path, tree in sources("http://"):
        plain = [t for t in texts(tree) if "http://" in t.replace("{http://", "") and t != "http://"]
        # that alone is a scheme to compare with, in braces it is the namespace of an element
        if plain:
            found[path.name] = plain
    assert found == {}


def test_every_address_of_the_catalog_is_https() -> None:
    bases = [s.address for s in catalog.SOURCES.values()] + [authors.ARCHIVE, authors.RAW, duloc.RAW]
    bases += [catalog.CYCLENET, catalog.DICTIONARY]
    for name in ("15", "18", "23", NEWEST):
        one = release(name)
        bases += [one.site, one.images, one.locations, one.whole_atlas, one.entry("ENSG00000000001"), one.licence_page]
    assert len(bases) > 20 and not [b for b in bases if not b.startswith("https://")]


HASHLESS = {  # each call without a hash, with what checks the content instead
    ("authors.py", "fetch"): "every file of the archive against git's hash when it is read",
    ("catalog.py", "fetch"): "the same archive",
    ("polite.py", "fetch"): "a copy from the mirror, given to the caller's own check; or a question for its size",
}


def test_every_download_has_a_hash_or_a_check() -> None:
    """`fetch` with a hash, a polite download with a check of the content; nothing else in the package asks for a file."""
    wrong, calls = [], 0
    for path, tree in sources("fetch(", "download(", "urlopen", "urlretrieve", "retrieve", "requests."):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
            owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            where = f"{path.name}:{node.lineno}"
            if name == "fetch" and "known_hash" in given:
                calls += 1
                if given["known_hash"] == "None" and (path.name, "fetch") not in HASHLESS:
                    wrong.append(f"{where}: fetch without a hash")
            elif name == "download" and owner.endswith("session"):
                calls += 1
                if given.get("check", "None") == "None":
                    wrong.append(f"{where}: a download without a check")
            elif name in ("urlopen", "urlretrieve", "retrieve") or (owner == "requests" and name in ("get", "post", "request", "head")):
                wrong.append(f"{where}: {owner}.{name} goes round the checks")
    assert calls >= 10 and not wrong
    for registry in (authors.registry(), duloc.registry()):
        assert registry and not [k for k, v in registry.items() if not re.fullmatch(r"[0-9a-f]{40}", v)]
