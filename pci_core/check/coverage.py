"""Intervals: 95 in 100 must hold the truth. Data are drawn from known distributions again and again, the product's own functions give
the interval, and the share of intervals that hold the known truth is counted, for the kinds of intervals that are printed.

Few groups hold less than they promise, however one computes: such rows are reported, and what is promised begins at
`pci_core.analysis.bootstrap.FEW_GROUPS` groups.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from pci_core.analysis import bootstrap as intervals
from pci_core.analysis import distances, fractions, scores, variability_truth
from pci_core.check.result import Finding

LOW, HIGH = 0.93, 0.97
DRAWS = 300  # of each bootstrap; the percentiles of 1,000 are a little steadier
Held = dict[str, list[tuple[bool, bool]]]  # by interval: (truth below it, above it), one a repeat
Drawn = dict[str, tuple[float, float, float]]  # by interval: low, high, truth


def mean_over_proteins(n: int, rng: np.random.Generator) -> Drawn:
    """Mean of skewed values of n proteins of four cells each."""
    protein = rng.gamma(4.0, 1.0, n)
    cells = np.repeat(protein, 4) + rng.normal(0, 1, 4 * n)
    found = intervals.bootstrap(
        lambda rows: float(cells[rows].mean()), np.repeat(np.arange(n), 4), draws=DRAWS, seed=int(rng.integers(1 << 30))
    )
    return {"mean over proteins": (found.low, found.high, 4.0)}


def share_of_proteins(n: int, rng: np.random.Generator) -> Drawn:
    """Share of n proteins that have a property which 40 % of all have."""
    has = (rng.random(n) < 0.4).astype(float)
    found = intervals.bootstrap(lambda rows: float(has[rows].mean()), np.arange(n), draws=DRAWS, seed=int(rng.integers(1 << 30)))
    return {"share of proteins": (found.low, found.high, 0.4)}


def accuracy_over_images(n: int, rng: np.random.Generator) -> Drawn:
    """Balanced accuracy of four classes of n images of eight cells; images differ in how easy they are."""
    classes, cells = 4, 8
    easy = np.repeat(rng.beta(4, 2, classes * n), cells)
    code, image = np.repeat(np.arange(classes), n * cells), np.repeat(np.arange(classes * n), cells)
    predicted = np.where(rng.random(len(code)) < easy, code, (code + 1) % classes)
    found = scores.balanced_accuracy(code, predicted, image, draws=DRAWS, seed=int(rng.integers(1 << 30)))
    return {"balanced accuracy over images of a class": (found.low, found.high, 4 / 6)}


def spearman_over_proteins(n: int, rng: np.random.Generator) -> Drawn:
    """Spearman's rank correlation of two normal values with correlation 0.6."""
    r = 0.6
    a = rng.normal(size=n)
    b = r * a + np.sqrt(1 - r**2) * rng.normal(size=n)
    found = intervals.bootstrap(fractions.spearman(a, b), np.arange(n), draws=DRAWS, seed=int(rng.integers(1 << 30)))
    return {"Spearman correlation over proteins": (found.low, found.high, float(6 / np.pi * np.arcsin(r / 2)))}


SHIFT, SHARE = 1.5, 0.3  # of the scores of proteins that vary, and how many do


def variable_proteins_found(n: int, rng: np.random.Generator) -> Drawn:
    """Average precision and area under the ROC curve of a score by which proteins that vary are told from those that do not."""
    yes = rng.random(n) < SHARE
    names = [f"P{i}" for i in range(n)]
    table = pd.DataFrame({"protein": names, "sd": rng.normal(size=n) + SHIFT * yes})
    truth = pd.Series(np.where(yes, "some", ""), index=names)
    found = variability_truth.detection(table, truth, names=["sd"], draws=DRAWS, seed=int(rng.integers(1 << 30)))
    if not len(found):  # all or none of them vary
        return {}
    row = found.iloc[0]
    x = np.linspace(-8, 10, 20001)
    recall, noise = stats.norm.sf(x - SHIFT), stats.norm.sf(x)
    precision = SHARE * recall / np.maximum(SHARE * recall + (1 - SHARE) * noise, 1e-300)
    return {
        "average precision over proteins": (row["low"], row["high"], float(-np.trapezoid(precision, recall))),
        "area under the ROC curve over proteins": (row["auroc_low"], row["auroc_high"], float(stats.norm.cdf(SHIFT / np.sqrt(2)))),
    }


def distance_over_proteins(n: int, rng: np.random.Generator) -> Drawn:
    """Relative distance of proteins of one of three locations, n proteins each, one image a protein."""
    at = np.repeat(np.eye(3) * 2.0, n, axis=0) + rng.normal(0, 1, (3 * n, 3))
    i, j = np.triu_indices(3 * n, 1)
    term = np.repeat(list("abc"), n)
    images = pd.DataFrame({"protein": [f"P{k:04d}" for k in range(3 * n)], "term": term, "n_cells": 1})
    a = np.r_[i, j]  # a pair of different locations belongs to both, as `draw_term_pairs` has it for each location in turn
    b = np.r_[j, i]
    same = term[a] == term[b]
    pairs = pd.DataFrame({"term": term[a], "same": same, "a": a, "b": b})
    distance = ((at[a] - at[b]) ** 2).sum(1)  # squared, so that the truth is known: 2 x 3 within a location, and 2 x 2² more between
    weights = distances.protein_weights(images, DRAWS, int(rng.integers(1 << 30)))
    row = distances.score_terms(pairs, distance, images, weights).set_index("term").loc[distances.ALL_TERMS]
    return {"relative distance over proteins of a location": (row["relative_low"], row["relative_high"], 6 / 14 - 1)}


# function: numbers of groups that must hold (they were seen to, in 1,000 repeats), numbers that are reported
KINDS: dict[Callable[[int, np.random.Generator], Drawn], tuple[tuple[int, ...], tuple[int, ...]]] = {
    mean_over_proteins: ((30,), (4, 10)),
    share_of_proteins: ((100,), ()),
    accuracy_over_images: ((5, 10, 30), (3,)),
    spearman_over_proteins: ((30,), (10,)),
    variable_proteins_found: ((200,), (30, 100)),
    distance_over_proteins: ((10,), (4, 30)),
}
REPORTED_SHARE = 0.2  # of the repeats, where the number is only reported


def repeats(kind: Callable[[int, np.random.Generator], Drawn], n: int, seeds: range) -> Held:
    """Draw data of one kind anew for each seed; tell on which side the intervals miss the truth."""
    out: Held = {}
    for seed in seeds:
        for name, (low, high, truth) in kind(n, np.random.default_rng([seed, n, 3])).items():
            if np.isfinite([low, high]).all():
                out.setdefault(name, []).append((bool(truth < low), bool(truth > high)))
    return out


def findings(n: int, parts: list[Held], required: bool) -> list[Finding]:
    """Judge the share of intervals that hold the truth; limits are wider by the noise where fewer than 1,000 repeats were made."""
    out = []
    for name in dict.fromkeys(name for part in parts for name in part):
        missed = np.array([low or high for part in parts for low, high in part.get(name, [])], bool)
        noise = max(0.0, 3 * np.sqrt(0.05 * 0.95 / len(missed)) - 3 * np.sqrt(0.05 * 0.95 / 1000))
        what = f"95 % interval, {name}, {n} groups: share of {len(missed)} repeats that holds the truth"
        out.append(Finding("coverage", what, float(1 - missed.mean()), LOW - noise, min(1.0, HIGH + noise), required))
    return out or [Finding("coverage", f"95 % intervals of {n} groups: none was given", float("nan"), LOW, HIGH, required)]
