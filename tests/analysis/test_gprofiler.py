"""g:Profiler, asked on a server of this machine that stands in for it: good answers, errors, silence, and kept answers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gprofiler.gprofiler as library
import pandas as pd
import pytest
import requests
from scipy import stats

from pci_core.analysis.enrichment import COLUMNS, best_terms
from pci_core.analysis.gprofiler import gprofiler
from pci_core.errors import EnrichmentError

CLUSTERS = {"second": ["D", "C"], "first": ["A", "B"]}
BACKGROUND = ["A", "B", "C", "D", "E", "F", "G", "H"]


def row(query: str, name: str, value: float, counts: tuple[int, int, int, int], hits: list[list[str]]) -> dict[str, Any]:
    keys = ("intersection_size", "query_size", "term_size", "effective_domain_size")
    known = {"source": "GO:CC", "native": f"GO:{len(name):07d}", "name": name, "description": "", "significant": value < 0.05}
    return known | {"query": query, "p_value": value, "precision": 1.0, "recall": 1.0, "parents": [], "intersections": hits} | dict(
        zip(keys, counts, strict=True)
    )  # fmt: skip


def answer(failed: tuple[str, ...] = ()) -> dict[str, Any]:
    genes = {q: {"mapping": {g: [f"ENSG{g}"] for g in sorted(c)}, "ensgs": [f"ENSG{g}" for g in sorted(c)]} for q, c in CLUSTERS.items()}
    meta = {"version": "e113_made_up", "timestamp": "2026-01-01", "query_metadata": {"queries": CLUSTERS}}
    meta["genes_metadata"] = {"failed": list(failed), "query": genes}
    rows = [
        row("first", "cytosol", 0.6, (1, 2, 4, 8), [[], ["IDA"]]),
        row("first", "Golgi", 0.04, (2, 2, 3, 8), [["IDA"], ["IEA"]]),
        row("second", "cytosol", 0.2, (2, 2, 4, 8), [["IDA"], ["IDA"]]),
    ]
    return {"meta": meta, "result": rows}


class Server:
    """What a server was asked, and the replies it gives in turn: (status, body, seconds before it); the last one again."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.replies: list[tuple[int, str, float]] = [(200, json.dumps(answer()), 0.0)]
        self.address = ""

    def reply(self) -> tuple[int, str, float]:
        return self.replies[min(len(self.asked), len(self.replies)) - 1]


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.asked.append((self.path, json.loads(body)))
            status, text, wait = state.reply()
            time.sleep(wait)
            try:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())
            except OSError:
                pass  # the other side has gone

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.address = f"http://127.0.0.1:{http.server_port}/gprofiler"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def ask(server: Server, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    def run(**changes: Any) -> pd.DataFrame:
        arguments = {"cache": tmp_path / "kept", "address": server.address, "timeout": 5.0, "retries": 2, "backoff": 0.01, "quiet": True}
        query = {"clusters": CLUSTERS, "background": BACKGROUND, "organism": "hsapiens"}
        return gprofiler(**(query | arguments | changes))

    return run


def test_same_table_as_the_offline_test(ask: Callable[..., pd.DataFrame]) -> None:
    table = ask()
    assert list(table) == list(COLUMNS)
    assert list(table["cluster"]) == ["second", "first", "first"]  # as given, then by the corrected p
    assert list(table["term"]) == ["cytosol (GO:0000007)", "Golgi (GO:0000005)", "cytosol (GO:0000007)"]
    assert list(table["genes"]) == ["C;D", "A;B", "B"]
    assert list(table["fdr"]) == [0.2, 0.04, 0.6]
    golgi = table[table["term"].str.startswith("Golgi")].iloc[0]
    # 2 of 2 drawn from 3 among 8: 3/8 * 2/7
    assert golgi["p"] == pytest.approx(6 / 56, rel=1e-12)
    assert golgi["p"] == pytest.approx(stats.fisher_exact([[2, 0], [1, 5]], alternative="greater").pvalue, rel=1e-9)
    assert list(best_terms(table)["cluster"]) == ["first"]
    assert table.attrs["version"] == "e113_made_up"


def test_question_has_the_background_and_asks_for_fdr(ask: Callable[..., pd.DataFrame], server: Server) -> None:
    ask(sources=["GO:CC", "CORUM"])
    path, body = server.asked[0]
    assert path == "/gprofiler/api/gost/profile/"
    assert body["background"] == BACKGROUND and body["domain_scope"] == "custom"
    assert body["significance_threshold_method"] == "fdr" and body["sources"] == ["CORUM", "GO:CC"]
    assert body["query"] == {"second": ["C", "D"], "first": ["A", "B"]} and body["organism"] == "hsapiens"


def test_kept_answer_serves_without_the_network(ask: Callable[..., pd.DataFrame], server: Server, tmp_path: Path) -> None:
    first = ask()
    server.replies = [(500, "down", 0.0)]
    again = ask(clusters={"second": ["C", "D"], "first": ["B", "A"]}, background=BACKGROUND[::-1])  # the same question, in another order
    pd.testing.assert_frame_equal(first, again)
    assert len(server.asked) == 1
    (kept,) = (tmp_path / "kept").iterdir()
    assert json.loads(kept.read_text())["version"] == "e113_made_up"
    assert kept.name == again.attrs["file"]


def test_another_question_is_another_file(ask: Callable[..., pd.DataFrame], server: Server, tmp_path: Path) -> None:
    ask()
    ask(background=[*BACKGROUND, "I"])
    ask(organism="mmusculus")
    assert len(server.asked) == 3 and len(list((tmp_path / "kept").iterdir())) == 3
    ask(refresh=True)
    assert len(server.asked) == 4


def test_two_errors_then_an_answer(ask: Callable[..., pd.DataFrame], server: Server) -> None:
    server.replies = [(503, "busy", 0.0), (500, "busy", 0.0), *server.replies]
    assert len(ask()) == 3
    assert len(server.asked) == 3


def test_status_500_offers_the_offline_test_and_keeps_nothing(ask: Callable[..., pd.DataFrame], server: Server, tmp_path: Path) -> None:
    server.replies = [(500, "down", 0.0)]
    with pytest.raises(EnrichmentError, match="3 tries.*500.*offline test.*GMT"):
        ask()
    assert len(server.asked) == 3
    assert not (tmp_path / "kept").exists()


def test_refusal_is_not_asked_again(ask: Callable[..., pd.DataFrame], server: Server) -> None:
    server.replies = [(400, json.dumps({"message": "organism 'hsapien' is not known"}), 0.0)]
    with pytest.raises(EnrichmentError, match="'hsapien' is not known.*offline"):
        ask(organism="hsapien")
    assert len(server.asked) == 1


def test_slow_server_is_left_after_the_time_out(ask: Callable[..., pd.DataFrame], server: Server) -> None:
    server.replies = [(200, json.dumps(answer()), 0.8)]
    begin = time.monotonic()
    with pytest.raises(EnrichmentError, match=r"2 tries of up to 0.1 s.*timed out.*offline"):
        ask(timeout=0.1, retries=1)
    assert time.monotonic() - begin < 0.7  # two tries of 0.1 s; the server would take 0.8 s for the first alone


def test_unreachable(ask: Callable[..., pd.DataFrame]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EnrichmentError, match="gave no answer in one try.*offline"):
        ask(address=f"http://127.0.0.1:{port}", retries=0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<html>maintenance</html>", "not JSON"),
        ("[]", "not the form expected"),
        (json.dumps({"meta": {}, "result": []}), "not the form expected.*query_metadata"),
        (json.dumps(answer() | {"result": [{"query": "first", "name": "x"}]}), "not the form expected"),
        (json.dumps(answer() | {"result": [answer()["result"][0] | {"term_size": "many"}]}), "not the form expected"),
        (json.dumps(answer() | {"result": [answer()["result"][0] | {"query": "third"}]}), "not the form expected"),
    ],
)
def test_garbage(ask: Callable[..., pd.DataFrame], server: Server, tmp_path: Path, text: str, told: str) -> None:
    server.replies = [(200, text, 0.0)]
    with pytest.raises(EnrichmentError, match=f"(?s){told}.*offline"):
        ask()
    assert not (tmp_path / "kept").exists()


def test_no_term_is_an_empty_table(ask: Callable[..., pd.DataFrame], server: Server) -> None:
    server.replies = [(200, json.dumps(answer() | {"result": []}), 0.0)]
    table = ask()
    assert list(table) == list(COLUMNS) and table.empty and best_terms(table).empty


def test_share_of_genes_recognised(ask: Callable[..., pd.DataFrame], server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.replies = [(200, json.dumps(answer(failed=("a",))), 0.0)]
    ask(quiet=False)
    assert "e113_made_up" in (told := capsys.readouterr().out) and "75% of the 4 genes" in told
    server.replies = [(200, json.dumps(answer(failed=("A", "B", "C", "D"))), 0.0)]
    with pytest.raises(EnrichmentError, match="only 0% of the 4 genes.*A, B, C"):
        ask(refresh=True)


def test_damaged_kept_answer(ask: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    ask()
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_text(kept.read_text()[:200])
    with pytest.raises(EnrichmentError, match="damaged.*Delete"):
        ask()


def test_no_organism(ask: Callable[..., pd.DataFrame]) -> None:
    with pytest.raises(EnrichmentError, match="organism"):
        ask(organism="")


def test_library_is_left_as_it_was(ask: Callable[..., pd.DataFrame], server: Server) -> None:
    ask()
    server.replies = [(400, "no", 0.0)]
    with pytest.raises(EnrichmentError):
        ask(refresh=True)
    assert library.requests is requests
