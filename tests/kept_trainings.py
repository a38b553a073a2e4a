"""Made-up kept trainings with numbers that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

KNN = "kNN, own protein left out"
DROP = "images of one location, difference"
RIM = "rim average precision, every rim protein as query"
FRACTION = "Spearman, Cytosol and Nucleoplasm, cells of both, ratio"
NUISANCE = "nuisance R², mean"
LESS = (DROP, NUISANCE, "nuisance R², haze")
VALUES = {  # by variant, of conv5 and seed 0; each further seed has 0.01 more, conv4 of the paper's method 0.05 more
    "inpainting": {KNN: 0.4, DROP: 0.2, RIM: 0.3, NUISANCE: 0.3, "nuisance R², haze": 0.5, "location of fields": 0.6},
    "contrast": {KNN: 0.7, DROP: 0.05, RIM: 0.5, NUISANCE: 0.2, "nuisance R², haze": 0.1, "location of fields": 0.8},
    "inpainting+contrast": {KNN: 0.5, DROP: 0.15, RIM: 0.35, NUISANCE: 0.4, "nuisance R², haze": 0.6, "location of fields": 0.7},
}
REAL = {"inpainting": {FRACTION: 0.75}, "contrast": {FRACTION: 0.85}, "inpainting+contrast": {FRACTION: 0.8}}


def rows(
    values: Mapping[str, Mapping[str, float]], cells: str, seeds: Sequence[int], recipe: str = "simulated-human", epochs: int = 3
) -> list[dict[str, Any]]:
    """Return rows of ``scores.csv``."""
    out = []
    for variant, measures in values.items():
        for seed in seeds:
            for layer in ("conv4", "conv5"):
                more = 0.01 * seeds.index(seed) + (0.05 if layer == "conv4" and variant == "inpainting" else 0)
                for measure, value in measures.items():
                    where = {"recipe": recipe, "width": 0.125, "epochs": epochs, "variant": variant, "seed": seed, "cells": cells}
                    facts = {"low": None, "high": None, "better": "less" if measure in LESS else "more", "note": ""}
                    size = {"n_cells": 1200, "n_proteins": 0 if cells == "hpa-duloc" else 99}
                    out.append({**where, "layer": layer, "measure": measure, "value": round(value + more, 4), **facts, **size})
    return out


def runs(variants: Sequence[str], seeds: Sequence[int], recipe: str = "simulated-human", epochs: int = 3) -> list[dict[str, Any]]:
    """Return rows of ``runs.csv``: 36,000 pairs an epoch in 360 s, the second variant in half of that."""
    return [
        {
            "variant": variant, "recipe": recipe, "seed": seed, "width": 0.125, "epochs": epochs,
            "training": "" if variant == "inpainting" else f"pretext = {variant}", "pairs": 36_000 * epochs,
            "cpu_seconds": 360 * epochs / (2 if variant == "contrast" else 1),
        }
        for variant in variants
        for seed in seeds
    ]  # fmt: skip


def write(folder: Path, more_runs: Sequence[dict[str, Any]] = (), more_scores: Sequence[dict[str, Any]] = (), seeds: int = 3) -> Path:
    """Write both tables: three variants of some seeds on simulated cells, scored there and on real ones; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = list(range(seeds))
    pd.DataFrame([*runs(list(VALUES), numbers), *more_runs]).to_csv(folder / "runs.csv", index=False)
    scores = [*rows(VALUES, "simulated-human", numbers), *rows(REAL, "hpa-duloc", numbers), *more_scores]
    pd.DataFrame(scores).to_csv(folder / "scores.csv", index=False)
    return folder
