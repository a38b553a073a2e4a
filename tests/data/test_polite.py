"""The polite session against a server that misbehaves: what is kept is whole, pauses are as they should be."""

from __future__ import annotations

import email.utils
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from misbehaving import Atlas, Time, atlas, session

from pci_core.data import download
from pci_core.data.polite import _BLOCK, GaveUp, Manners, NotThere, PoliteSession, Stopped, retry_after
from pci_core.data.side_by_side import side_by_side
from pci_core.errors import DownloadError, ImageError, StorageError

BODY = np.random.default_rng(0).bytes(300_000)
PATH = "/file.bin"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Atlas]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("PCI_MIRROR", raising=False)
    with atlas() as running:
        running.files[PATH] = BODY
        yield running


def files(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.is_file()}


def test_a_whole_file(server: Atlas, tmp_path: Path) -> None:
    had = session(server).download(server.url + PATH, tmp_path / "deep/file.bin")
    assert (tmp_path / "deep/file.bin").read_bytes() == BODY
    assert (had.size, had.tries, had.received) == (len(BODY), 1, len(BODY))
    assert files(tmp_path) == {"file.bin"}
    assert server.seen[0][2]["User-Agent"] == download.USER_AGENT


@pytest.mark.parametrize("plot", ["503", "500", "429:3", "cut", "reset", "slow", "date"])
def test_passing_trouble_is_sat_out(plot: str, server: Atlas, tmp_path: Path) -> None:
    server.plots[PATH] = [plot, plot]
    had = session(server).download(server.url + PATH, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY and had.tries == 3
    assert files(tmp_path) == {"f"}


@pytest.mark.parametrize("plot", ["503", "cut", "reset", "429"])
def test_lasting_trouble_is_given_up_with_the_reason(plot: str, server: Atlas, tmp_path: Path) -> None:
    server.plots[PATH] = [plot] * 50
    server.ranges = False
    with pytest.raises(GaveUp, match=r"after 4 tries") as caught:
        session(server).download(server.url + PATH, tmp_path / "f")
    assert caught.value.tries == 4 == server.gets()[PATH]
    assert "f" not in files(tmp_path)


@pytest.mark.parametrize("status", ["404", "410", "400"])
def test_not_there_is_asked_once(status: str, server: Atlas, tmp_path: Path) -> None:
    server.plots[PATH] = [status]
    with pytest.raises(NotThere, match=status):
        session(server).download(server.url + PATH, tmp_path / "f")
    assert server.gets()[PATH] == 1 and files(tmp_path) == set()


def test_a_refusal_is_not_asked_again(server: Atlas, tmp_path: Path) -> None:
    server.plots[PATH] = ["403"]
    with pytest.raises(GaveUp, match="403"):
        session(server).download(server.url + PATH, tmp_path / "f")
    assert server.gets()[PATH] == 1


# --- pauses


def test_pauses_double_and_vary_by_a_half(server: Atlas, tmp_path: Path) -> None:
    server.plots[PATH] = ["503"] * 5
    clock = Time()
    session(server, clock, tries=6, interval=0.0, longest_wait=4.0).download(server.url + PATH, tmp_path / "f")
    assert len(clock.pauses) == 5
    for pause, middle in zip(clock.pauses, [1, 2, 4, 4, 4], strict=True):
        assert middle * 0.5 <= pause <= middle * 1.5


def test_retry_after_is_kept_by_all_connections(server: Atlas, tmp_path: Path) -> None:
    server.plots[PATH] = ["429:40"]
    clock = Time()
    polite = session(server, clock, interval=0.0)
    with pytest.raises(GaveUp):
        session(server, clock, tries=1).download(server.url + PATH, tmp_path / "other")  # another session is not concerned
    server.plots[PATH] = ["429:40"]
    polite.download(server.url + PATH, tmp_path / "f")
    assert clock.pauses[-1] == 40 and polite._closed_until == clock.now
    clock.now -= 30  # as if another thread came before the time is over
    server.files["/b"] = b"x"
    polite.download(server.url + "/b", tmp_path / "b")
    assert clock.pauses[-1] == 30


def test_a_pause_that_is_too_long_stops_all(server: Atlas, tmp_path: Path) -> None:
    server.plots[PATH] = ["503:7200"]
    with pytest.raises(Stopped, match="120 minutes"):
        session(server).download(server.url + PATH, tmp_path / "f")
    assert server.gets()[PATH] == 1


def test_the_interval_lies_between_all_requests(server: Atlas, tmp_path: Path) -> None:
    polite = PoliteSession(Manners(interval=0.05, connections=3))
    names = [f"/{i}" for i in range(6)]
    server.files |= dict.fromkeys(names, b"x")
    began = time.monotonic()
    results = list(side_by_side(names, lambda n: polite.download(server.url + n, tmp_path / n[1:]), 3, polite.stop))
    assert not [r for _, r in results if isinstance(r, Exception)]
    assert time.monotonic() - began >= 5 * 0.05  # six requests have five pauses between them
    assert server.most_open <= 3


def test_retry_after_header() -> None:
    assert retry_after("12") == 12 and retry_after("") is None and retry_after("soon") is None and retry_after("-3") is None
    assert 25 < (retry_after(email.utils.formatdate(time.time() + 30, usegmt=True)) or 0) <= 30  # the header has whole seconds
    assert retry_after(email.utils.formatdate(time.time() - 30, usegmt=True)) == 0


def test_stop_ends_a_pause_at_once(server: Atlas, tmp_path: Path) -> None:
    server.plots[PATH] = ["503:600"]
    polite = PoliteSession(Manners(interval=0.0))
    threading.Timer(0.1, polite.stop).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        polite.download(server.url + PATH, tmp_path / "f")
    assert time.monotonic() - began < 5  # far below the 600 s that the server asked for


# --- half files


def whole_blocks(size: int) -> int:
    """What is kept of so many bytes before a cut: the block in which it happens is lost."""
    return size // _BLOCK * _BLOCK


def cut_once(server: Atlas, tmp_path: Path) -> Path:
    """Leave half of the file, as a run does that ends there."""
    server.plots[PATH] = ["cut"]
    with pytest.raises(GaveUp):
        session(server, tries=1).download(server.url + PATH, tmp_path / "f")
    assert files(tmp_path) == {"f.part", "f.part.json"}
    server.seen.clear()
    return tmp_path / "f"


def test_a_half_file_is_gone_on_with(server: Atlas, tmp_path: Path) -> None:
    target = cut_once(server, tmp_path)
    had = session(server).download(server.url + PATH, target)
    kept = whole_blocks(len(BODY) // 2)
    assert target.read_bytes() == BODY and had.received == len(BODY) - kept
    assert server.seen[0][2]["Range"] == f"bytes={kept}-"
    assert files(tmp_path) == {"f"}


def test_a_cut_in_the_same_run_is_gone_on_with(server: Atlas, tmp_path: Path) -> None:
    server.plots[PATH] = ["cut", "cut"]
    session(server).download(server.url + PATH, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY
    first = whole_blocks(len(BODY) // 2)
    second = first + whole_blocks((len(BODY) - first) // 2)
    assert [headers.get("Range", "") for _, _, headers in server.seen] == ["", f"bytes={first}-", f"bytes={second}-"]


def test_a_changed_file_is_started_anew(server: Atlas, tmp_path: Path) -> None:
    target = cut_once(server, tmp_path)
    server.files[PATH] = BODY[::-1]
    session(server).download(server.url + PATH, target)
    assert target.read_bytes() == BODY[::-1]


def test_a_server_without_range(server: Atlas, tmp_path: Path) -> None:
    target = cut_once(server, tmp_path)
    server.ranges = False
    session(server).download(server.url + PATH, target)
    assert target.read_bytes() == BODY and server.gets()[PATH] == 1


def test_a_server_that_ignores_if_range(server: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of another version of the same length must not be put behind the old half."""
    target = cut_once(server, tmp_path)
    server.files[PATH] = BODY[::-1]
    from misbehaving import Handler

    plain = Handler._file

    def careless(self: Handler, method: str, what: str, body: bytes) -> None:
        del self.headers["If-Range"]
        plain(self, method, what, body)

    monkeypatch.setattr(Handler, "_file", careless)
    session(server).download(server.url + PATH, target)
    assert target.read_bytes() == BODY[::-1]
    assert server.gets()[PATH] == 2  # the part that does not fit, then the whole file


def test_without_a_version_nothing_is_gone_on_with(server: Atlas, tmp_path: Path) -> None:
    server.versions = False
    server.plots[PATH] = ["cut"]
    session(server).download(server.url + PATH, tmp_path / "f")
    assert [h.get("Range") for _, _, h in server.seen] == [None, None]
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("damage", ["", "{", '{"url": 1}', "[]"])
def test_a_damaged_description_of_a_half_file(damage: str, server: Atlas, tmp_path: Path) -> None:
    target = cut_once(server, tmp_path)
    (tmp_path / "f.part.json").write_text(damage)
    session(server).download(server.url + PATH, target)
    assert target.read_bytes() == BODY


def test_a_half_file_longer_than_the_whole(server: Atlas, tmp_path: Path) -> None:
    target = cut_once(server, tmp_path)
    (tmp_path / "f.part").write_bytes(BODY + b"more")
    session(server).download(server.url + PATH, target)
    assert target.read_bytes() == BODY


# --- content


def only_body(path: Path) -> None:
    if path.read_bytes() != BODY:
        raise ImageError("not the body")


@pytest.mark.parametrize("plot", ["half", "html", "empty", "other"])
def test_wrong_content_is_tried_again_and_never_kept(plot: str, server: Atlas, tmp_path: Path) -> None:
    server.plots[PATH] = [plot]
    assert session(server).download(server.url + PATH, tmp_path / "f", check=only_body).tries == 2
    server.plots[PATH] = [plot] * 10
    with pytest.raises(GaveUp, match="wrong content: not the body"):
        session(server).download(server.url + PATH, tmp_path / "g", check=only_body)
    assert files(tmp_path) == {"f"}


def test_a_cut_without_length_is_for_the_check_to_find(server: Atlas, tmp_path: Path) -> None:
    server.lengths = False
    server.plots[PATH] = ["cut"]
    assert session(server).download(server.url + PATH, tmp_path / "f", check=only_body).tries == 2


def test_an_old_file_stays_until_the_new_one_is_whole(server: Atlas, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    server.plots[PATH] = ["cut"] * 10
    server.ranges = False
    with pytest.raises(GaveUp):
        session(server).download(server.url + PATH, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"old"


@pytest.mark.parametrize("lengths", [True, False])
def test_sizes_are_bounded(lengths: bool, server: Atlas, tmp_path: Path) -> None:
    server.lengths = lengths
    with pytest.raises(GaveUp, match="more than the 1000"):
        session(server).download(server.url + PATH, tmp_path / "f", limit=1000)
    assert files(tmp_path) == set()


def test_other_hosts_are_not_asked(server: Atlas, tmp_path: Path) -> None:
    with pytest.raises(GaveUp, match="not an address of this source"):
        session(server).download("http://localhost:9/x", tmp_path / "f")
    server.plots[PATH] = ["elsewhere"]
    with pytest.raises(GaveUp, match="points to http://localhost"):
        session(server).download(server.url + PATH, tmp_path / "f")
    assert files(tmp_path) == set()


def test_too_slow_counts_as_no_answer(server: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Time()
    polite = PoliteSession(Manners(tries=1), clock=lambda: clock.now, pause=clock.pause)
    monkeypatch.setattr("pci_core.data.polite._BLOCK", 1000)
    real = polite._receive

    def drip(*args: object) -> int:
        polite._clock = iter(range(0, 10**9, 40)).__next__  # type: ignore[assignment]  # 40 s a block of 1000 bytes
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(polite, "_receive", drip)
    with pytest.raises(GaveUp, match="too slow"):
        polite.download(server.url + PATH, tmp_path / "f")


# --- sizes, mirror, disk


def test_size_by_head_or_get(server: Atlas) -> None:
    assert session(server).size(server.url + PATH) == len(BODY)
    server.heads = False
    assert session(server).size(server.url + PATH) == len(BODY)
    assert [m for m, _, _ in server.seen] == ["HEAD", "HEAD", "GET"]
    assert session(server).size(server.url + "/none") is None
    server.lengths = False
    assert session(server).size(server.url + PATH) is None


def test_the_mirror_is_used_instead(server: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror/example.org"
    mirror.mkdir(parents=True)
    (mirror / "f").write_bytes(BODY)
    (mirror / "g").write_bytes(b"wrong")
    monkeypatch.setenv("PCI_MIRROR", str(tmp_path / "mirror"))
    polite = PoliteSession()
    assert polite.download("https://example.org/f", tmp_path / "out/f", check=only_body).size == len(BODY)
    assert polite.size("https://example.org/f") == len(BODY) and polite.size("https://example.org/h") is None
    with pytest.raises(NotThere, match="not in the mirror"):
        polite.download("https://example.org/h", tmp_path / "out/h")
    with pytest.raises(GaveUp, match="not the body"):
        polite.download("https://example.org/g", tmp_path / "out/g", check=only_body)
    assert files(tmp_path / "out") == {"f"} and (mirror / "g").read_bytes() == b"wrong"
    assert server.seen == []


def test_a_folder_that_cannot_be_written(server: Atlas, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((StorageError, FileExistsError)):
        session(server).download(server.url + PATH, tmp_path / "file/below/f")


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PCI_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    clock = Time()
    polite = PoliteSession(Manners(tries=3), clock=clock.clock, pause=clock.pause)
    with pytest.raises(GaveUp, match="ConnectionError"):  # port 9 of this machine: refused at once
        polite.download("http://127.0.0.1:9/f", tmp_path / "f")


# --- threads


def test_side_by_side_gives_every_job_back() -> None:
    def work(n: int) -> int:
        if n % 10 == 3:
            raise DownloadError(str(n))
        return n * n

    results = dict(side_by_side(range(100), work, 4, lambda: None))
    assert len(results) == 100 and results[7] == 49 and isinstance(results[13], DownloadError)


def test_side_by_side_stops_when_the_consumer_leaves() -> None:
    done, stopped = [], threading.Event()
    work = side_by_side(range(10_000), lambda n: (time.sleep(0.001), done.append(n)), 2, stopped.set)
    next(work)
    work.close()
    assert stopped.is_set() and len(done) < 1000
