"""How far two maps of the same proteins agree, as numbers with permutation tests.

neighbourhood overlap
    Mean share of a protein's k nearest proteins that two maps have in common; by chance k / (n - 1).
correlation of class distances
    Pearson correlation, over all pairs of classes, of the distances between class means in one map and in the other
    (Mantel's test: the classes of one map are exchanged at random).

All is computed in feature space: a picture by UMAP has no distances that could be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pci_core.analysis.bootstrap import Interval, bootstrap
from pci_core.analysis.knn import neighbours
from pci_core.errors import AnalysisNeedsError

LEAST_CLASSES = 4  # three distances between three classes correlate highly by chance
Pairs = Sequence[tuple[np.ndarray, np.ndarray]]  # two maps (proteins, features) with the same proteins; several: their mean counts


@dataclass(frozen=True)
class Agreement:
    """An agreement with its 95 % bootstrap interval over proteins and its permutation test.

    Attributes
    ----------
    value, low, high : float
    chance, chance_high : float
        Mean and 95 % quantile of the agreement when the proteins (or classes) of one map are exchanged at random.
    p : float
        Share of permutations that agree at least as well, the observed one counted: never 0.
    n : int
        Proteins that it was computed on.
    """

    value: float
    low: float
    high: float
    chance: float
    chance_high: float
    p: float
    n: int


def overlap_by_protein(pairs: Pairs, k: int) -> np.ndarray:
    """Return the share of each protein's k nearest proteins that two maps have in common: (proteins,)."""
    out: np.ndarray = np.mean([_shared(*(neighbours(np.asarray(m, np.float32), k) for m in pair)) for pair in pairs], axis=0)
    return out


def _shared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    mask = np.zeros((len(one), len(one)), bool)
    np.put_along_axis(mask, other, True, axis=1)
    out: np.ndarray = np.take_along_axis(mask, one, axis=1).mean(axis=1)
    return out


def neighbourhood_overlap(
    pairs: Pairs, k: int, *, within: np.ndarray | None = None, permutations: int = 1000, draws: int = 1000, seed: int = 0
) -> Agreement:
    """Measure how far proteins have the same nearest proteins in two maps.

    Parameters
    ----------
    pairs : sequence of (ndarray, ndarray)
        Two maps, (proteins, features) each, standardised, proteins in the same order; of several such pairs the mean.
    k : int
        Neighbours, from 1 to the number of proteins - 2.
    within : ndarray of str, optional
        (proteins,) class: proteins are exchanged within their class only. A low p then says that the maps agree in more
        than the classes.
    permutations, draws, seed : int
        Of the test and of the bootstrap; the neighbours of a protein stay what they are.

    Raises
    ------
    AnalysisNeedsError
        Not more than k + 1 proteins.
    """
    n = len(pairs[0][0])
    if not 1 <= k <= n - 2:
        raise AnalysisNeedsError(f"the overlap of {k} neighbours needs at least {k + 2} proteins and k of at least 1, found {n} proteins.")
    masks, lists = [], []
    for one, other in pairs:
        near = neighbours(np.asarray(other, np.float32), k)
        mask = np.zeros((n, n), bool)
        np.put_along_axis(mask, near, True, axis=1)
        masks.append(mask)
        lists.append(neighbours(np.asarray(one, np.float32), k))

    def by_protein(order: np.ndarray) -> np.ndarray:
        shares = [mask[order[:, None], order[near]].mean(axis=1) for mask, near in zip(masks, lists, strict=True)]
        return np.asarray(np.mean(shares, axis=0))

    observed = by_protein(np.arange(n))
    code = None if within is None else np.unique(within, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    null = np.array([by_protein(_permuted(rng, n, code)).mean() for _ in range(permutations)])
    at = bootstrap(lambda rows: float(observed[rows].mean()), np.arange(n), draws=draws, seed=seed)
    return _agreement(at, null)


def _permuted(rng: np.random.Generator, n: int, within: np.ndarray | None) -> np.ndarray:
    """Draw an order of n proteins; with class codes, one in which every protein takes the place of one of its class."""
    if within is None:
        return rng.permutation(n)
    out = np.empty(n, np.int64)
    out[np.argsort(within, kind="stable")] = np.lexsort((rng.random(n), within))
    return out


def _agreement(at: Interval, null: np.ndarray) -> Agreement:
    if not len(null):
        return Agreement(at.value, at.low, at.high, np.nan, np.nan, np.nan, at.n_groups)
    p = (1 + (null >= at.value - 1e-12).sum()) / (1 + len(null))  # the tolerance: sums of one set in another order
    return Agreement(at.value, at.low, at.high, float(null.mean()), float(np.quantile(null, 0.95)), float(p), at.n_groups)


def class_means(x: np.ndarray, code: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Return the means of the classes that are among the rows: (up to as many classes, features).

    Parameters
    ----------
    x : ndarray
        (proteins, features).
    code : ndarray of int
        (proteins,) class from 0, -1 for none.
    rows : ndarray of int, optional
        Rows to count, with repeats; by default each once.
    """
    rows = np.arange(len(x)) if rows is None else rows
    rows = rows[code[rows] >= 0]
    share = np.bincount(code[rows] * len(x) + rows, minlength=(code.max() + 1) * len(x)).reshape(-1, len(x)).astype(float)
    size = share.sum(1, keepdims=True)
    return np.asarray((share[size[:, 0] > 0] / size[size[:, 0] > 0]) @ x)


def _distances(means: np.ndarray) -> np.ndarray:
    square = (means**2).sum(1)
    return np.asarray(np.sqrt(np.maximum(square[:, None] + square - 2 * means @ means.T, 0)))


def class_correlation(pairs: Pairs, labels: np.ndarray, *, permutations: int = 1000, draws: int = 1000, seed: int = 0) -> Agreement:
    """Correlate the distances between classes in two maps.

    Parameters
    ----------
    pairs : sequence of (ndarray, ndarray)
        As in `neighbourhood_overlap`.
    labels : ndarray of str
        (proteins,) class; empty ones are left out.
    permutations, draws, seed : int
        Of Mantel's test and of the bootstrap over proteins; a class of which no protein was drawn is left out of that
        draw. Means of fewer different proteins lie further apart by chance, so with few proteins a class the interval
        reaches further down than up.

    Raises
    ------
    AnalysisNeedsError
        Fewer than four classes.
    """
    names = np.unique(labels[labels != ""])
    if len(names) < LEAST_CLASSES:
        raise AnalysisNeedsError(
            f"correlating the distances between classes needs at least {LEAST_CLASSES} classes, found {len(names)}: {', '.join(names)}."
        )

    code = np.where(labels == "", -1, np.searchsorted(names, labels))
    wide = [tuple(np.asarray(m, np.float64) for m in pair) for pair in pairs]

    def statistic(rows: np.ndarray) -> float:
        return float(np.mean([_correlated(*(_distances(class_means(m, code, rows)) for m in pair)) for pair in wide]))

    rng = np.random.default_rng(seed)
    known = [tuple(_distances(class_means(m, code)) for m in pair) for pair in wide]
    null = []
    for _ in range(permutations):
        order = rng.permutation(len(names))
        null.append(np.mean([_correlated(one, other[np.ix_(order, order)]) for one, other in known]))
    at = bootstrap(statistic, np.arange(len(labels)), draws=draws, seed=seed)
    return _agreement(at, np.array(null))


def _correlated(one: np.ndarray, other: np.ndarray) -> float:
    upper = np.triu_indices(len(one), 1)
    a, b = one[upper], other[upper]
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else np.nan


def has_classes(labels: np.ndarray) -> bool:
    """Tell whether at least two classes have two proteins each, which `nearest_same_class` needs."""
    return bool((np.unique(labels[labels != ""], return_counts=True)[1] > 1).sum() > 1)


def nearest_same_class(x: np.ndarray, labels: np.ndarray, *, permutations: int = 1000, draws: int = 1000, seed: int = 0) -> Agreement:
    """Measure how often the nearest protein has the same class, among proteins of classes with at least two.

    Parameters
    ----------
    x : ndarray
        (proteins, features), standardised.
    labels : ndarray of str
        (proteins,) class; empty ones are left out.
    permutations, draws, seed : int
        Classes are exchanged among proteins; the bootstrap is over proteins.

    Raises
    ------
    AnalysisNeedsError
        No two classes with two proteins each.
    """
    names, counts = np.unique(labels[labels != ""], return_counts=True)
    used = np.flatnonzero(np.isin(labels, names[counts > 1]))
    if not has_classes(labels):
        raise AnalysisNeedsError(f"a map by class needs two classes with at least two proteins each, found {(counts > 1).sum()}.")
    near, own = neighbours(np.asarray(x[used], np.float32), 1)[:, 0], labels[used]
    rng = np.random.default_rng(seed)
    shuffled = (rng.permutation(own) for _ in range(permutations))
    null = np.array([(s[near] == s).mean() for s in shuffled])
    at = bootstrap(lambda rows: float((own[near[rows]] == own[rows]).mean()), np.arange(len(used)), draws=draws, seed=seed)
    return _agreement(at, null)
