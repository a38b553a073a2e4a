"""A server on 127.0.0.1 in the place of the Human Protein Atlas, which misbehaves on demand, and clocks that cost no time."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import io
import re
import socket
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pci_core.data import hpa
from pci_core.data.hpa_addresses import Release
from pci_core.data.polite import Manners, PoliteSession


def jpeg(seed: int = 0, mode: str = "RGB", side: int = 48) -> bytes:
    """Return a small JPEG of noise, another one for each seed."""
    shape = (side, side, 3) if mode == "RGB" else (side, side)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def entry(ensembl: str, name: str, images: dict[tuple[str, str], list[str]], release: str = "18") -> str:
    """Return an entry as the atlas writes it; `images`: addresses by (antibody, cell line)."""
    antibodies = ""
    for antibody in dict.fromkeys(a for a, _ in images):
        data = "".join(
            f'<data><cellLine>{line}</cellLine><location GOId="GO:0005829" singleCellVariationIntensity="true">cytosol</location>'
            '<location GOId="GO:0005654">nucleoplasm</location><assayImage>'
            + "".join(f'<image imageType="sampleImage"><imageUrl>{u}</imageUrl></image>' for u in urls)
            + "</assayImage></data>"
            for (a, line), urls in images.items()
            if a == antibody
        )
        antibodies += (
            f'<antibody id="{antibody}" releaseVersion="1"><cellExpression source="HPA" technology="ICC/IF"><subAssay type="human">'
            f'<verification type="validation">supported</verification>{data}</subAssay></cellExpression></antibody>'
        )
    return (
        f'<entry version="{release}" url="http://v{release}.proteinatlas.org/{ensembl}"><name>{name}</name>'
        f'<identifier id="{ensembl}" db="Ensembl" version="88.38"/>{antibodies}</entry>'
    )


def document(*entries: str) -> bytes:
    """Return entries as one XML file."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<proteinAtlas schemaVersion="2.5">{"".join(entries)}</proteinAtlas>\n'.encode()


def locations_table(genes: dict[str, str]) -> bytes:
    """Return the zipped table of locations of release 18 for genes by their Ensembl id."""
    lines = ["Gene\tGene name\tReliability\tValidated\tSupported\tApproved\tUncertain\tSingle-cell variation intensity\t"
             "Single-cell variation spatial\tCell cycle dependency\tGO id"]  # fmt: skip
    lines += [f"{i}\t{name}\tApproved\t\t\tCytosol\t\t\t\t\tCytosol (GO:0005829)" for i, name in genes.items()]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("subcellular_location.tsv", "\n".join(lines) + "\n")
    return stream.getvalue()


class Atlas(ThreadingHTTPServer):
    """The server.

    Attributes
    ----------
    files : dict
        Content by path; all else is 404.
    plots : dict of str to list of str
        What happens to the next requests for a path, one after another; then all is well. ``status:seconds`` (status
        with Retry-After), ``date`` (429 with a date), ``status``, ``cut`` (half the bytes of a full Content-Length),
        ``half`` (half the bytes, Content-Length says so too), ``html`` (a page with status 200), ``reset`` (no answer),
        ``slow`` (no answer in time), ``empty``, ``elsewhere`` (redirection to another host), ``other`` (other content).
    ranges, versions, lengths, heads : bool
        Whether it answers Range, names ETag, names Content-Length, and answers HEAD.
    seen : list of (method, path, headers)
        All requests.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.plots: dict[str, list[str]] = {}
        self.always = ""
        self.ranges = self.versions = self.lengths = self.heads = True
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.lock = threading.Lock()
        self.open = self.most_open = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def release(self, name: str = "18") -> Release:
        """The atlas as this server has it: its own images under /images, those of all releases at the root."""
        return Release(name, self.url, self.url)

    def gets(self) -> Counter[str]:
        """How often each path was asked for with GET."""
        return Counter(path for method, path, _ in self.seen if method == "GET")

    def image_gets(self) -> Counter[str]:
        return Counter({p: n for p, n in self.gets().items() if p.endswith(".jpg")})

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that the client leaves are part of the plot."""


class Handler(BaseHTTPRequestHandler):
    server: Atlas
    protocol_version = "HTTP/1.1"
    timeout = 5

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_GET(self) -> None:
        self._answer("GET")

    def _answer(self, method: str) -> None:
        atlas = self.server
        with atlas.lock:
            atlas.seen.append((method, self.path, dict(self.headers)))
            plot = atlas.plots.get(self.path) or [atlas.always]
            what = plot.pop(0)
            atlas.open += 1
            atlas.most_open = max(atlas.most_open, atlas.open)
        try:
            self._act(method, what)
        finally:
            with atlas.lock:
                atlas.open -= 1

    def _act(self, method: str, what: str) -> None:
        atlas = self.server
        status = re.fullmatch(r"(\d{3})(?::(\d+))?", what)
        if what in ("reset", "slow"):
            time.sleep(0.4 if what == "slow" else 0.0)  # longer than the clients of the tests wait
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif status:
            self._send(int(status[1]), b"no", {"Retry-After": status[2]} if status[2] else {})
        elif what == "date":
            self._send(429, b"no", {"Retry-After": email.utils.formatdate(time.time() + 30, usegmt=True)})
        elif what == "elsewhere":
            self._send(302, b"", {"Location": f"http://localhost:{atlas.server_port}{self.path}"})
        elif self.path not in atlas.files or (method == "HEAD" and not atlas.heads):
            self._send(404 if self.path not in atlas.files else 405, b"<html>nothing here</html>")
        else:
            self._file(method, what, atlas.files[self.path])

    def _file(self, method: str, what: str, body: bytes) -> None:
        atlas = self.server
        if what == "html":
            return self._send(200, b"<!DOCTYPE html><html>maintenance</html>")
        if what == "empty":
            return self._send(200, b"")
        if what == "half":
            return self._send(200, body[: len(body) // 2])
        body = jpeg(999) if what == "other" else body
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {"ETag": tag} if atlas.versions else {}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        code, sent = 200, body
        if start and atlas.ranges and self.headers.get("If-Range", tag) == tag:
            first = int(start[1])
            code, sent = 206, body[first:]
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        cut = what == "cut"
        return self._send(code, sent[: len(sent) // 2] if cut else sent, headers, len(sent), cut or not atlas.lengths, method == "HEAD")

    def _send(
        self,
        code: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        length: int | None = None,
        close: bool = False,
        head: bool = False,
    ) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self.server.lengths:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        if close:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if not head:
            self.wfile.write(body)
            self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""


@contextmanager
def atlas() -> Iterator[Atlas]:
    """Run the server."""
    server = Atlas()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Time:
    """A clock that goes on only by pauses, each of which is noted and takes no time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.lock = threading.Lock()

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> bool:
        with self.lock:
            self.now += seconds
            self.pauses.append(seconds)
        return False


def session(server: Atlas, clock: Time | None = None, **manners: float) -> PoliteSession:
    """Return a session that waits for nothing and has a short time-out; pauses are noted in `clock`."""
    time_ = clock or Time()
    given = Manners(**{"read_timeout": 0.2, "connections": 2, "tries": 4, **manners})  # type: ignore[arg-type]
    return PoliteSession(given, trusted=server.release().trusts, clock=time_.clock, pause=time_.pause)


# --- a small atlas of four genes

ONE, TWO, THREE, EMPTY = (f"ENSG{n:011d}" for n in (1, 2, 3, 4))
GENES = {ONE: "ABC1", TWO: "ABD2", THREE: "XYZ9", EMPTY: "EMPTY4"}
ENTRIES: dict[str, dict[tuple[str, str], list[str]]] = {
    ONE: {("HPA000011", "U-2 OS"): ["11/1_A1_1", "11/1_A1_2"], ("HPA000011", "A-431"): ["11/2_A1_1", "11/2_A1_2"],
          ("CAB000012", "U-2 OS"): ["12/3_B2_1", "12/3_B2_2"]},
    TWO: {("HPA000021", "U2OS"): ["21/4_C3_1", "21/4_C3_2"]},
    THREE: {("HPA000031", "MCF7"): ["31/5_D4_1"]},
    EMPTY: {},
}  # fmt: skip
FIELDS_ONE = ["11_1_A1_1", "11_1_A1_2", "11_2_A1_1", "11_2_A1_2", "12_3_B2_1", "12_3_B2_2"]


@contextmanager
def small_atlas() -> Iterator[Atlas]:
    """Run a server with the genes above: entries, table of locations, whole file, and images under their versioned address."""
    with atlas() as running:
        texts = {}
        for ensembl, images in ENTRIES.items():
            named = {key: [f"{running.url}/images/{name}_blue_red_green.jpg" for name in names] for key, names in images.items()}
            texts[ensembl] = entry(ensembl, GENES[ensembl], named)
            running.files[f"/{ensembl}.xml"] = document(texts[ensembl])
            for i, path in enumerate(u.removeprefix(running.url) for urls in named.values() for u in urls):
                running.files[path] = jpeg(int(ensembl[-3:]) * 100 + i)
        running.files["/download/proteinatlas.xml.gz"] = gzip.compress(document(*texts.values()), 1)
        running.files["/download/subcellular_location.tsv.zip"] = locations_table(GENES)
        yield running


def planned(server: Atlas, folder: Path, genes: list[str] | None = None, **options: Any) -> hpa.Plan:
    return hpa.plan(genes or [ONE, TWO], folder, release=server.release(), session=session(server), **options)


def run(server: Atlas, folder: Path, genes: list[str] | None = None, **options: Any) -> hpa.Outcome:
    return hpa.fetch(planned(server, folder, genes), session=session(server), **options)


def all_whole(server: Atlas, folder: Path) -> None:
    """Every image there is byte for byte the server's."""
    for path in (folder / "images").rglob("*.jpg"):
        assert path.read_bytes() == server.files[f"/images/{path.parent.name}/{path.name}"], path
