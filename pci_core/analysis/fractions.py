"""How well a score of two locations tells a cell's known fraction: rank correlation, and error after a one-parameter calibration.

Where fractions are known at all: simulated cells, or a table with a column ``fraction_<location>`` (`hpa-duloc`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit

from pci_core.analysis.bootstrap import Interval, bootstrap
from pci_core.analysis.multilocalization import SCORES, check_score, score
from pci_core.errors import unknown_name

WAYS = (("both", "cells"), ("all", "cells"), ("both", "images"), ("both", "cells within images"))


_FEWEST = 5  # cells or images: a rank correlation of fewer says nothing


@dataclass(frozen=True)
class Calibrated:
    """Fractions told from a score by one parameter.

    Attributes
    ----------
    scale : float
        a of ``fraction = 1 / (1 + exp(-a * score))``, fitted on all cells used; for drawing.
    error, guess : Interval
        Mean absolute error of the fraction on cells whose unit took no part in the fit; the same of guessing the
        mean fraction of the training cells.
    n_cells : int
    """

    scale: float
    error: Interval
    guess: Interval
    n_cells: int


class Ranks:
    """Average ranks of drawn rows, sorted once: the bootstrap asks for them a thousand times."""

    def __init__(self, values: np.ndarray) -> None:
        levels, self.code = np.unique(values, return_inverse=True)
        self.n = len(levels)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return the ranks of some rows among one another, from 1, ties shared."""
        code = self.code[rows]
        counts = np.bincount(code, minlength=self.n)
        return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[code])


def spearman(a: np.ndarray, b: np.ndarray) -> Callable[[np.ndarray], float]:
    """Return what gives Spearman's rank correlation of some rows; NaN where either has one value there."""
    one, two = Ranks(a), Ranks(b)

    def of_rows(rows: np.ndarray) -> float:
        x, y = one(rows), two(rows)
        x, y = x - x.mean(), y - y.mean()
        size = np.sqrt((x @ x) * (y @ y))
        return float(x @ y / size) if size > 0 else float("nan")

    return of_rows


def highest_spearman(truth: np.ndarray) -> float:
    """Return the highest Spearman correlation that a score without ties can have with a truth that has some."""
    n = len(truth)
    ties = np.unique(truth, return_counts=True)[1].astype(np.float64)
    return float(np.sqrt(max(0.0, 1 - (ties**3 - ties).sum() / (n**3 - n)))) if n > 1 else float("nan")


def agreement(
    scores: pd.DataFrame,
    *,
    names: Sequence[str] = tuple(SCORES),
    ways: Sequence[tuple[str, str]] = WAYS,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare every score with the known fraction.

    Parameters
    ----------
    scores : DataFrame
        From `score`; rows without a known fraction are not looked at.
    names : sequence of str
        Which scores.
    ways : sequence of (str, str)
        Which of the ways to look at it, ``cells`` and ``of`` below.
    draws, seed : int
        Of the bootstrap, which draws whole units.

    Returns
    -------
    DataFrame
        ``score, cells, of, spearman, low, high, highest, n, n_cells, n_units``. ``cells``: ``both`` (annotated with both
        locations) or ``all`` (with those of one alone, whose fraction is 0 or 1); ``of``: ``cells``, ``images`` (means of an
        image against its mean fraction) or ``cells within images`` (differences from the image's mean). ``highest`` is what
        ties in the truth allow. No row where no fraction is known, or where all known ones are equal.
    """
    rows = []
    known = scores[np.isfinite(scores["fraction"])]
    for cells, of in ways:
        part = known if cells == "all" else known[known["set"] == "both"]
        values = part[[*SCORES, "fraction", "unit"]]
        image = part["image"].to_numpy()
        if of == "images":
            values = values.groupby(image).mean()
        elif of == "cells within images":
            inside = [*SCORES, "fraction"]
            values = values.assign(**{c: values[c] - values.groupby(image)[c].transform("mean") for c in inside})
        if len(values) < _FEWEST or np.ptp(values["fraction"]) < 1e-9:
            continue
        truth, unit = values["fraction"].to_numpy(), values["unit"].to_numpy()
        for name in names:
            found = values[name].to_numpy()
            interval = bootstrap(spearman(found, truth), unit, draws=draws, seed=seed)
            counts = (highest_spearman(truth), len(values), len(part), interval.n_groups)
            rows.append((name, cells, of, interval.value, interval.low, interval.high, *counts))
    return pd.DataFrame(rows, columns=["score", "cells", "of", "spearman", "low", "high", "highest", "n", "n_cells", "n_units"])


def calibrate(
    scores: pd.DataFrame, name: str = "ratio", *, cells: str = "both", folds: int = 5, draws: int = 1000, seed: int = 0
) -> Calibrated:
    """Tell the fraction from a score by one parameter, and how far it is off on cells that took no part in the fit.

    ``fraction = 1 / (1 + exp(-a * score))``, a fitted by least squares on the cells of four fifths of the units, tested on
    the others, in turn. A score of 0 is a half.

    Parameters
    ----------
    scores : DataFrame
        From `score`.
    name : str
        Which of `SCORES`.
    cells : str
        ``"both"`` or ``"all"``: those fitted and tested on.
    folds, draws, seed : int
        Folds of whole units; draws of the bootstrap.

    Returns
    -------
    Calibrated
        NaN where the fraction is known for cells of fewer than two units.
    """
    check_score(name)
    if cells not in ("both", "all"):
        raise unknown_name("choice of cells", cells, ("both", "all"))
    part = scores[np.isfinite(scores["fraction"]) & ((scores["set"] == "both") | (cells == "all"))]
    s, truth, unit = part[name].to_numpy(), part["fraction"].to_numpy(), part["unit"].to_numpy()
    n_units = len(np.unique(unit))
    if n_units < 2:
        none = Interval(np.nan, np.nan, np.nan, n_units)
        return Calibrated(np.nan, none, none, len(part))
    fold = _deal(truth, unit, min(folds, n_units), seed)
    told, guessed = np.empty(len(s)), np.empty(len(s))
    for f in np.unique(fold):
        train, test = fold != f, fold == f
        told[test] = expit(_scale(s[train], truth[train]) * s[test])
        guessed[test] = truth[train].mean()
    off, by_mean = np.abs(told - truth), np.abs(guessed - truth)
    error = bootstrap(lambda i: float(off[i].mean()), unit, draws=draws, seed=seed)
    guess = bootstrap(lambda i: float(by_mean[i].mean()), unit, draws=draws, seed=seed)
    return Calibrated(_scale(s, truth), error, guess, len(part))


def _deal(truth: np.ndarray, unit: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Deal whole units out to folds in the order of their mean fraction, so that every fold has low and high ones: (cells,)."""
    names, codes = np.unique(unit, return_inverse=True)
    mean = np.bincount(codes, truth) / np.bincount(codes)
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(names)), mean))
    fold = np.empty(len(names), np.int64)
    for start in range(0, len(names), folds):
        part = order[start : start + folds]
        fold[part] = rng.permutation(folds)[: len(part)]
    return fold[codes]


def calibrations(scores: pd.DataFrame, *, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Calibrate every score, see `calibrate`: ``score, cells, error, low, high, guess, scale, n_cells, n_units``, one row each.

    ``guess`` is the error of telling every cell the mean fraction. No row where no fraction is known.
    """
    rows = []
    for cells in ("both", "all"):
        for name in SCORES:
            found = calibrate(scores, name, cells=cells, draws=draws, seed=seed)
            if np.isfinite(found.error.value):
                error = (found.error.value, found.error.low, found.error.high, found.guess.value)
                rows.append((name, cells, *error, found.scale, found.n_cells, found.error.n_groups))
    return pd.DataFrame(rows, columns=["score", "cells", "error", "low", "high", "guess", "scale", "n_cells", "n_units"])


def told_apart(scores: pd.DataFrame, name: str = "ratio", *, draws: int = 1000, seed: int = 0) -> Interval:
    """Return how well a score tells cells of one location alone from those of the other, which needs no known fraction.

    The area under the ROC curve: 0.5 is guessing; above, cells of the second location have the higher scores.
    """
    check_score(name)
    part = scores[scores["set"] != "both"]
    ranks, second = Ranks(part[name].to_numpy()), (part["set"] == "second").to_numpy()

    def area(rows: np.ndarray) -> float:
        yes = second[rows]
        n = int(yes.sum())
        return float((ranks(rows)[yes].sum() - n * (n + 1) / 2) / (n * (len(rows) - n))) if 0 < n < len(rows) else float("nan")

    return bootstrap(area, part["unit"].to_numpy(), draws=draws, seed=seed)


def compare_sets(
    sets: Mapping[str, anndata.AnnData],
    pairs: Sequence[tuple[str, str]],
    *,
    scores: Sequence[str] = ("ratio", "discriminant"),
    cells: str = "both",
    of: str = "cells",
    group: str = "",
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Do what `agreement` does for several feature sets of the same cells.

    Parameters
    ----------
    sets : mapping of str to AnnData
        Feature sets by name.
    pairs : sequence of (str, str)
        First and second location.
    scores : sequence of str
        Which of the scores.
    cells, of : str
        Which rows of `agreement`.
    group, draws, seed
        See `pci_core.analysis.multilocalization.score` and `agreement`.

    Returns
    -------
    DataFrame
        ``features, pair, score, value, low, high, highest, n_cells, n_units``.
    """
    rows = []
    for features, adata in sets.items():
        for first, second in pairs:
            scored = score(adata, first, second, group=group, seed=seed)
            found = agreement(scored, names=scores, ways=[(cells, of)], draws=draws, seed=seed)
            rows.append(found.assign(features=features, pair=f"{first} and {second}").rename(columns={"spearman": "value"}))
    return pd.concat(rows)[["features", "pair", "score", "value", "low", "high", "highest", "n_cells", "n_units"]].reset_index(drop=True)


def _scale(s: np.ndarray, truth: np.ndarray) -> float:
    unit = 1 / max(float(np.abs(s).mean()), 1e-12)  # the search is over powers of ten around a typical score
    found = minimize_scalar(lambda p: float(((expit(unit * 10**p * s) - truth) ** 2).mean()), bounds=(-3, 3), method="bounded")
    return unit * float(10**found.x)
