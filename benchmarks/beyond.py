"""Variants of training beside the paper's method: the same cells, seeds and number of pairs; scored by `pci_core.analysis.beyond`.

One file a variant and seed is written as soon as it is done, so that a cut run goes on; ``--collect`` puts them into two tables:

    python benchmarks/beyond.py --only "contrast;inpainting" --seeds 0,1,2 --epochs 3 --width 0.125
    python benchmarks/beyond.py --collect

What a training costs is the time of its process on all cores together (``cpu_seconds``), which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata
import pandas as pd
import torch

from pci_core import device as devices
from pci_core.analysis import beyond
from pci_core.features import extract, read_features
from pci_core.pretrained import load_encoder
from pci_core.run import Run
from pci_core.storage import write_json
from pci_core.tables import write_csv

OUT = Path(__file__).parent / "results" / "beyond"
FAST = {"learning_rate": 1e-3}  # the paper's 1e-4 needs more steps than there is time for here; so inpainting is shown with both
CONTRAST = {**FAST, "pretext": "contrast"}
PROTEIN = {**CONTRAST, "pair_by": "protein"}
VARIANTS: dict[str, dict[str, Any]] = {
    "inpainting": {},  # the paper's method
    "inpainting, faster": FAST,
    "contrast": CONTRAST,
    "contrast, by protein": PROTEIN,
    "redundancy": {**FAST, "pretext": "redundancy"},
    "inpainting+contrast": {**FAST, "pretext": "inpainting+contrast"},
    "contrast, residual": {**CONTRAST, "encoder": "residual"},
    "contrast, no augmentation": {**CONTRAST, "augment": "none"},
    "contrast, strong augmentation": {**CONTRAST, "augment": "strong"},
    "contrast, by protein, strong": {**PROTEIN, "augment": "strong"},
    "inpainting, by protein": {**FAST, "pair_by": "protein"},
    "inpainting, normalised": {**FAST, "loss": "normalised"},
    "inpainting, weighted": {**FAST, "loss": "weighted"},
    "inpainting, residual": {**FAST, "encoder": "residual"},
    "contrast, attention": {**CONTRAST, "encoder": "attention"},
    "contrast, far": {**CONTRAST, "targets": "far"},
    "contrast, images weighed": {**CONTRAST, "weigh": "images"},
    "redundancy, by protein": {**PROTEIN, "pretext": "redundancy"},
    "contrast, varying left out": {**CONTRAST, "leave_out_varying": 0.1},
}
LAYERS = ("conv4", "conv5")  # the paper's choice on the whole, and the last


def _name(variant: str, seed: int, epochs: int, args: argparse.Namespace) -> str:
    return f"{args.recipe}-w{args.width:g}-e{epochs}-{variant}-{seed}".replace(", ", "_").replace(" ", "_").replace("+", "_")


def _described(there: Run, weights: Path) -> dict[str, anndata.AnnData]:
    """Return features of other cells, whatever their channels are called: number, order and rescaling are those of the training."""
    encoder, _ = load_encoder(weights, there.recipe.preprocess)
    with tempfile.TemporaryDirectory() as scratch:
        paths = {layer: Path(scratch) / f"{layer}.h5ad" for layer in LAYERS}
        extract(there.cells(), encoder, paths, there.recipe.preprocess, {"model": "pci"}, quiet=True)
        return {layer: read_features(path) for layer, path in paths.items()}


def one(variant: str, seed: int, args: argparse.Namespace) -> None:
    """Train, describe, score; write one file."""
    name = _name(variant, seed, args.epochs, args)
    path = Path(args.work) / f"{name}.json"
    if path.exists():
        return
    training = {"width": args.width, "epochs": args.epochs, **VARIANTS[variant], "seed": seed, "pretrained": ""}
    places = {"hpa-duloc": args.duloc}
    run = Run(args.recipe, args.runs, training=training, data=places.get(args.recipe), quiet=True)
    cells = run.cells()
    began, cpu = time.perf_counter(), time.process_time()
    weights = run.train() / "weights.safetensors"
    cost = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    shorter = [p for e in range(args.epochs - 1, 0, -1) if (p := Path(args.work) / f"{_name(variant, seed, e, args)}.json").exists()]
    if shorter:  # a longer training goes on from it, and what that cost was not spent again
        before = json.loads(shorter[0].read_text(encoding="utf-8"))
        cost = {k: v + before[k] for k, v in cost.items()}
    card = run.card()
    cards: dict[str, Any] = {}
    for recipe in dict.fromkeys([args.recipe, *filter(None, args.transfer.split(","))]):
        there = run if recipe == args.recipe else Run(recipe, args.runs, data=places.get(recipe), quiet=True)
        for layer, adata in (run.features(LAYERS) if there is run else _described(there, weights)).items():
            card_of = beyond.scorecard(adata, there.recipe, seed=0, draws=args.draws)
            cards[f"{recipe} {layer}"] = card_of.to_dict("records")
    facts = {
        "variant": variant,
        "recipe": args.recipe,
        "seed": seed,
        "width": args.width,
        "epochs": args.epochs,
        "training": VARIANTS[variant],
    }
    facts |= {"pairs": card["pairs"], **{k: round(v, 1) for k, v in cost.items()}, "threads": torch.get_num_threads(), "cells": len(cells)}
    facts |= {"held_out_loss": card["losses"].get("held_out_loss"), "dataset": cells.sha256}
    facts["hardware"] = devices.describe(devices.choose_device("auto"), devices.choose_precision(devices.choose_device("auto"), "auto"))
    write_json(path, {**facts, "cards": cards})
    print(f"{name}: {card['pairs']:,} pairs, {cost['cpu_seconds']:.0f} s of CPU", flush=True)


def collect(work: Path, out: Path = OUT) -> None:
    """Put the files of `one` into ``runs.csv`` (a row a training) and ``scores.csv`` (a row a measure)."""
    runs, scores = [], []
    for path in sorted(work.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        cards = found.pop("cards")
        found["training"] = ", ".join(f"{k} = {v}" for k, v in found["training"].items())
        runs.append(found)
        where = {k: found[k] for k in ("recipe", "width", "epochs", "variant", "seed")}
        for on, card in cards.items():
            cells, layer = on.rsplit(" ", 1)
            scores += [{**where, "cells": cells, "layer": layer, **row} for row in card]
    out.mkdir(parents=True, exist_ok=True)
    write_csv(pd.DataFrame(runs).drop(columns=["hardware", "seconds"]), out / "runs.csv")
    write_csv(pd.DataFrame(scores).round(4), out / "scores.csv")


def main() -> None:
    """Run the variants asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=";".join(VARIANTS), help="variants, with semicolons between")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--recipe", default="simulated-human")
    parser.add_argument(
        "--transfer", default="hpa-duloc,authors-toy-human", help="recipes whose cells are described without training, with commas"
    )
    parser.add_argument("--duloc", default=None, help="folder of ready tiles in place of the download")
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runs", default=os.environ.get("PCI_RUNS", "runs"))
    parser.add_argument("--work", default="_build/beyond")
    parser.add_argument("--collect", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    Path(args.work).mkdir(parents=True, exist_ok=True)
    if args.collect:
        collect(Path(args.work))
        return
    for seed in (int(s) for s in args.seeds.split(",")):
        for variant in args.only.split(";"):
            one(variant.strip(), seed, args)


if __name__ == "__main__":
    main()
