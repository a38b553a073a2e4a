"""Same seed, same machine, same bytes: every kind of artefact made twice, in another place, on another day, with another hash seed.

What was measured (seconds, dates, speed, hardware) lies in logs beside the files and in cells of two notebooks that are tagged for it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import everything
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pci_core import lineage

MEASURED_IN = {"01_training", "02_layer_benchmark"}  # the notebooks that say how long something took
LOGS = re.compile(
    r"[.]log[.]json$|[.]lock$|/steps/|/tensorboard/|/_build/(log|jupyter|executed/.*json|pages[.]json)|executed/[^/]*[.]json$"
)
LOGS_OF_RESULTS = re.compile(r"/_build/results/.*[.]json$")


pytestmark = pytest.mark.slow  # some ten seconds of two processors' time, nearly all of it to make everything in a second process


@dataclass(frozen=True)
class Twice:
    """Two folders with the same names in them."""

    first: Path
    second: Path
    thorough: bool

    def files(self, folder: Path) -> dict[str, Path]:
        found = {f"/{p.relative_to(folder).as_posix()}": p for p in sorted(folder.rglob("*")) if p.is_file()}
        made = {n: p for n, p in found.items() if not n.startswith("/own/")}  # what it was made from
        return {n: p for n, p in made.items() if not LOGS.search(n) and not LOGS_OF_RESULTS.search(n) and "data_folder.txt" not in n}


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory, thorough: bool) -> Twice:
    first, second = tmp_path_factory.mktemp("here") / "out", tmp_path_factory.mktemp("elsewhere") / "deep" / "er"
    parts = everything.PARTS if thorough else everything.SHORT
    if thorough:
        _in_process_of_its_own(first, parts, jobs=1, days=0, seed="1", cwd=first.parent)
    else:  # here, where all is imported already
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PCI_RUNS", str(first / "runs"))
            everything.begin(first)
            for part in parts:
                getattr(everything, part)(first, 1)
    _in_process_of_its_own(second, parts, jobs=2 if thorough else 1, days=500, seed="77", cwd=Path("/"))
    return Twice(first, second, thorough)


def _in_process_of_its_own(out: Path, parts: tuple[str, ...], *, jobs: int, days: int, seed: str, cwd: Path) -> None:
    env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PCI_MIRROR": str(out / "no-mirror")}
    env.pop("PCI_RUNS", None)
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, everything.__file__, str(out), str(jobs), str(days), *parts]
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-3000:]


def test_the_same_files_are_made(twice: Twice) -> None:
    assert list(twice.files(twice.first)) == list(twice.files(twice.second))


def test_every_file_has_the_same_bytes(twice: Twice) -> None:
    second = twice.files(twice.second)
    kinds = Counter(Path(n).suffix for n in second)
    wanted = {".npy", ".parquet", ".json", ".safetensors", ".pt", ".csv", ".h5ad", ".png", ".svg"}
    wanted |= {".ipynb", ".html", ".js", ".jpg", ".tif", ".toml"} if twice.thorough else set()
    assert wanted <= set(kinds), f"not made: {wanted - set(kinds)}"
    differ = [n for n, p in twice.files(twice.first).items() if computed(p) != computed(second[n])]
    assert not differ, f"{len(differ)} of {len(second)} files differ, first {differ[0]}"


def computed(path: Path) -> bytes:
    """Return the bytes of a file without what cells tagged ``measured`` show."""
    content = path.read_bytes()
    if path.suffix == ".ipynb":
        notebook = json.loads(content)
        for cell in notebook["cells"]:
            if "measured" in cell["metadata"].get("tags", []):
                assert path.stem in MEASURED_IN
                cell["outputs"] = []
        return json.dumps(notebook).encode()
    if path.suffix == ".html" and b"tag_measured" in content:
        assert path.stem in MEASURED_IN
        content = re.sub(rb'<meta name="pci_provenance"[^>]*>', b"", content)  # holds the hash of the executed copy
        cells = re.split(rb'(?=<div class="cell )', content)
        return b"".join(c for c in cells if b"tag_measured" not in c.split(b">", 1)[0])
    return content


def test_nothing_names_a_folder_or_a_machine(twice: Twice) -> None:
    names = [str(twice.first.parents[0]), str(twice.second.parents[1]), str(everything.ROOT), str(Path.home()), socket.gethostname()]
    told = [n for n in names if len(n) > 7]  # "/root" stands in other words
    found = [
        (n, name)
        for folder in (twice.first, twice.second)
        for n, p in twice.files(folder).items()
        for name in told
        if holds(p, name.encode())
    ]
    assert not found, f"{len(found)} files name a place of the machine, first {found[0]}"


def holds(path: Path, name: bytes) -> bool:
    if path.suffix == ".parquet":  # its pages are compressed
        texts = [*(pq.read_schema(path).metadata or {}).values(), pd.read_parquet(path).to_csv().encode()]
        return any(name in t for t in texts)
    return name in path.read_bytes()


def test_every_result_says_where_it_comes_from(twice: Twice) -> None:
    asked = 0
    for name, path in twice.files(twice.second).items():
        if path.suffix in (".h5ad", ".png", ".svg", ".safetensors") and not re.search(
            "/(fields|init|simulated.*|html|book-source|repository)/", name
        ):
            record = lineage.read(path)
            assert (record.recipe, record.kind) == ("own", lineage.read(path).kind) and record.code and record.parents, name
            states = {s for _, p, s, _ in lineage.walk(record, path) if not p.path.startswith("fields")}
            assert states <= {lineage.UNCHANGED, lineage.ELSEWHERE}, (name, states)
            asked += 1
    assert asked >= 6


def test_what_it_cost_is_told_all_the_same(twice: Twice) -> None:
    from pci_core.features import read_features
    from pci_core.run import Run

    run = Run(twice.first / "own" / "own.toml", twice.first / "runs", device="cpu", precision="float32", jobs=1, quiet=True)
    card, losses = run.card(), run.losses()
    assert card["seconds"] > 0 and card["hardware"] and card["made"].startswith("20")
    assert (losses["pairs_per_second"] > 0).all() and losses["train_loss"].notna().all()
    assert read_features(next((twice.first / "runs" / "own" / "features").glob("conv1.h5ad"))).uns["pci"]["seconds"] > 0
