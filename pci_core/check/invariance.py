"""Features of a cell are those of the cell alone: not of the batch, the order, the other cells, or how many processes work.

On the CPU in float32 they are the same bit for bit, and that is what is asked for.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pci_core import features
from pci_core.baselines import compute
from pci_core.cells import CellDataset
from pci_core.check import sample
from pci_core.check.result import Finding
from pci_core.encoders import Encoder
from pci_core.networks import build
from pci_core.pretrained import load_encoder
from pci_core.recipe import Preprocess, Recipe

LAYERS = ("conv1", "conv4", "conv5")
BATCHES = (1, 2, 7)
BASELINES = ("classic",)
SECONDS = 300.0  # for two processes to describe a few cells; a start takes most of them

# what each of two processes does, started as torchrun would: the extraction is the product's, with its own putting together
RANK = """
import json, sys
from pathlib import Path
from pci_core import distributed, recipe
from pci_core.cells import CellDataset
from pci_core.check import invariance
said = json.loads(sys.argv[1])
with distributed.world().guard():
    spec = recipe.Preprocess(**said["preprocess"])
    cells, encoder = CellDataset(said["cells"]), invariance.network(**said["network"])
    invariance.extracted(cells, encoder, spec, Path(said["out"]), said["batch_size"])
distributed.world().close()
"""


def extracted(
    dataset: CellDataset, encoder: Encoder, spec: Preprocess, folder: Path, batch_size: int | None = None
) -> dict[str, np.ndarray]:
    """Extract the pooled features with the product's function; by layer, (cells, features)."""
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {layer: folder / f"{layer}.h5ad" for layer in LAYERS}
    facts = {"model": "pci", "recipe": "check", "weights": "check"}
    features.extract(dataset, encoder, outputs, spec, facts, batch_size=batch_size, device="cpu", precision="float32", quiet=True)
    return {layer: np.asarray(features.read_features(path, dataset).X) for layer, path in outputs.items()}


def differing(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> tuple[int, float]:
    """Return how many values differ in any bit, and the largest difference as a share of the layer's largest value."""
    count = sum(int((one[n] != other[n]).sum()) for n in one)
    return count, max(float(np.abs(one[n] - other[n]).max() / np.abs(one[n]).max()) for n in one)


def findings(dataset: CellDataset, encoder: Encoder, recipe: Recipe, folder: Path) -> list[Finding]:
    """Extract the same cells in several ways and compare with one."""
    n, spec = len(dataset), recipe.preprocess
    whole = extracted(dataset, encoder, spec, folder / "whole")
    out = []

    def add(what: str, one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
        count, most = differing(one, other)
        told = f"features of {n} cells: values that differ {what}" + (f" (by {most:.1g} of the largest)" if count else "")
        out.append(Finding("invariance", told, count, 0, 0))

    for size in BATCHES:
        add(f"with {size} cells at a time", whole, extracted(dataset, encoder, spec, folder / "batch", size))
    back = np.arange(n)[::-1]
    found = extracted(sample.copy(dataset, folder / "back", back), encoder, spec, folder / "backf")
    add("with the cells in the opposite order", whole, {k: v[back] for k, v in found.items()})
    rows = np.arange(n // 3, n)
    found = extracted(sample.copy(dataset, folder / "part", rows), encoder, spec, folder / "partf")
    add("without a third of the other cells", {k: v[rows] for k, v in whole.items()}, found)
    return out


def of_jobs(dataset: CellDataset, recipe: Recipe, folder: Path) -> list[Finding]:
    """Compute features that are measured cell by cell with one process and with two, and in the opposite order."""
    back = np.arange(len(dataset))[::-1]
    turned = sample.copy(dataset, folder / "turned", back)
    out = []
    for name in BASELINES:
        one, two = (compute.compute([name], dataset, recipe, "", jobs=j, quiet=True)[name].values for j in (1, 2))
        other = compute.compute([name], turned, recipe, "", jobs=1, quiet=True)[name].values[back]
        for what, found in (("with two processes", two), ("with the cells in the opposite order", other)):
            n = int((one != found).sum())
            out.append(Finding("invariance", f"feature set '{name}' of {len(dataset)} cells: values that differ {what}", n, 0, 0))
    return out


def network(weights: str, n_protein: int, n_structural: int, width: float) -> Encoder:
    """Read an encoder, or build one that was never trained where `weights` is empty."""
    return load_encoder(weights)[0] if weights else build("pci", n_protein, n_structural, width, seed=0).source


def of_ranks(dataset: CellDataset, said: dict[str, Any], recipe: Recipe, folder: Path) -> list[Finding]:
    """Extract with two processes that work together (Gloo), each started as torchrun does; `said` is for `network`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    task: dict[str, Any] = {"cells": str(dataset.folder), "out": str(folder / "ranks"), "network": said}
    task["preprocess"] = asdict(recipe.preprocess)
    task["batch_size"] = -(-len(dataset) // 4)  # two batches for either; one of the usual size would be the first's alone
    told = json.dumps(task)
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = [
        subprocess.Popen([sys.executable, "-c", RANK, told], env={**common, "RANK": str(r), "LOCAL_RANK": str(r)},
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for r in range(2)
    ]  # fmt: skip
    what = f"features of {len(dataset)} cells: values that differ with two processes that work together (torchrun)"
    try:
        errors = [p.communicate(timeout=SECONDS)[1] for p in started]
    except subprocess.TimeoutExpired:
        return [Finding("invariance", f"{what}: no answer in {SECONDS:.0f} s", float("nan"), 0, 0)]
    finally:
        for p in started:
            p.kill()
    if any(p.returncode for p in started):
        last = next(e for e, p in zip(errors, started, strict=True) if p.returncode).strip().splitlines()
        return [Finding("invariance", f"{what}: {last[-1][:120] if last else 'a process failed'}", float("nan"), 0, 0)]
    paths = {layer: folder / "ranks" / f"{layer}.h5ad" for layer in LAYERS}
    together = {layer: np.asarray(features.read_features(p, dataset).X) for layer, p in paths.items()}
    whole = extracted(dataset, network(**said), recipe.preprocess, folder / "alone")
    return [Finding("invariance", what, differing(whole, together)[0], 0, 0)]
