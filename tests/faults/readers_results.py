"""Readers of what was found before: tables kept for the book, benchmarks, notes of executed notebooks, answers of g:Profiler."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from readers import TESTS, Reader, anything

from pci_core import executing, results
from pci_core.analysis.gprofiler import gprofiler
from pci_core.analysis.result import Benchmark
from pci_core.storage import content_hash

ROOT = TESTS.parent
_NOTEBOOK = "07_single_cell_variability"


def _kept(folder: Path) -> list[Path]:
    source = ROOT / "book" / "results" / "authors-toy-yeast"
    shutil.copytree(source, folder / "results" / "authors-toy-yeast")
    return sorted((folder / "results" / "authors-toy-yeast").iterdir())


def _page(folder: Path) -> str:
    return results.fill(f"<!-- results: {_NOTEBOOK} -->", folder / "results", folder / "none" / "tables")


def _scores(folder: Path) -> list[Path]:
    shutil.copyfile(ROOT / "benchmarks" / "results" / "feature_sets" / "hpa-duloc.json", folder / "b.json")
    return [folder / "b.json"]


def _benchmark(folder: Path) -> list[Path]:
    scores = pd.DataFrame({"features": ["conv3"], "classifier": ["knn"], "k": [11], "accuracy": [0.5], "low": [float("nan")]})
    Benchmark(scores, scores, {("conv3", "cell"): pd.DataFrame([[1, 2], [3, 4]], list("ab"), list("ab"))}, scores, {"k": 11}).save(
        folder, "b"
    )
    return [folder / "b.json"]


def _stamp(folder: Path) -> list[Path]:
    (folder / "n.ipynb").write_text("{}")
    (folder / "n.json").write_text(json.dumps({"inputs": {"a": 1}, "sha256": "0" * 64, "needs": "more"}))
    return [folder / "n.json"]


def _read_stamp(folder: Path) -> bool:
    """A note that cannot be read, or says something else, is as good as none: the notebook runs again."""
    assert isinstance(executing.stamp(folder / "n.ipynb"), dict)
    return executing.is_current(folder / "n.ipynb", {"a": 1})


_QUERY: dict[str, Any] = {"clusters": {"one": ["A", "B"]}, "background": ["A", "B", "C", "D"], "organism": "hsapiens"}


def _answer(folder: Path) -> list[Path]:
    asked = {
        "organism": "hsapiens", "sources": ["GO:CC"], "background": list("ABCD"), "query": {"one": ["A", "B"]},
        "address": "http://127.0.0.1:9",
    }  # fmt: skip
    row = ["one", "GO:CC", "GO:1", "nucleus", 0.01, 2, 2, 2, 4, ["A", "B"]]
    answer = {"asked": asked, "version": "e1", "not_recognised": [], "result": [row]}
    path = folder / f"gprofiler_hsapiens_{content_hash(asked)[:16]}.json"
    path.write_text(json.dumps(answer))
    return [path]


def _ask(folder: Path) -> pd.DataFrame:
    return gprofiler(**_QUERY, cache=folder, address="http://127.0.0.1:9", retries=0, timeout=1, quiet=True)


READERS = [
    Reader("kept results", _kept, _page, anything, text=True, named="authors-toy-yeast"),
    Reader("kept scores", _scores, lambda f: results.benchmark_scores(f / "b.json"), anything, text=True),
    Reader("benchmark", _benchmark, lambda f: Benchmark.read(f / "b.json"), anything, text=True),
    Reader("note of a notebook", _stamp, _read_stamp, anything, text=True),
    Reader("answer of g:Profiler", _answer, _ask, anything, text=True),
]
