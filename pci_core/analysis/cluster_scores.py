"""How far clusters agree with annotation, and how stable they are."""

from __future__ import annotations

from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
from scipy.cluster import hierarchy
from scipy.sparse import csr_array
from scipy.spatial.distance import pdist

from pci_core.analysis import trees
from pci_core.analysis.bootstrap import Interval, bootstrap
from pci_core.analysis.clusters import Clustering, cut, most_clusters
from pci_core.analysis.knn import standardise
from pci_core.analysis.selection import has_one_term, label_text, require
from pci_core.analysis.trees import Tree
from pci_core.errors import AnalysisNeedsError, ParameterError, unknown_name

UNITS = ("cell", "image")


@dataclass(frozen=True)
class Agreement:
    """How far clusters agree with annotated locations.

    Attributes
    ----------
    rand : Interval
        Adjusted Rand index; 0 is chance, 1 the same grouping. A protein in no cluster is a cluster of its own.
    purity : Interval
        Share of the proteins in clusters that have the most frequent location of their cluster.
    chance : Interval
        Purity when locations are dealt out anew among the same proteins: mean, and the middle 95 % of the dealings.
    n_proteins, n_clustered, n_locations : int
        Proteins compared (those with one location), those of them in a cluster, and their locations.
    """

    rand: Interval
    purity: Interval
    chance: Interval
    n_proteins: int
    n_clustered: int
    n_locations: int


def locations(found: Clustering) -> pd.Series | None:
    """Return the annotated locations of the proteins; None where they allow no comparison.

    That is where the cells have no column ``location``, where a protein has several values of it, or where fewer than two proteins
    or locations are left of those with one term.
    """
    if "location" not in found.proteins.obs:
        return None
    text = label_text(found.proteins.obs["location"])
    one = text[has_one_term(text)]
    return text if len(one) > 1 and one.nunique() > 1 else None


def agreement(labels: np.ndarray, locations: pd.Series, *, draws: int = 1000, seed: int = 0) -> Agreement:
    """Compare clusters with annotation, on the proteins whose location is one term.

    Intervals are by bootstrap over proteins. A protein drawn twice is not compared with itself, which would look
    like agreement, and each cluster's most frequent location is that of all its proteins.

    Parameters
    ----------
    labels : ndarray of int
        (proteins,) from `cut`.
    locations : Series of str
        (proteins,) terms joined by ``;``, empty or missing where not known.
    draws, seed : int
        Of the bootstrap and of the dealings.

    Raises
    ------
    AnalysisNeedsError
        Fewer than two proteins with one term, or fewer than two such terms.
    """
    one = has_one_term(locations)
    found = np.asarray(labels)[one]
    names, place = np.unique(label_text(locations)[one].to_numpy(), return_inverse=True)
    if len(found) < 2 or len(names) < 2:
        raise AnalysisNeedsError(
            f"agreement with annotation needs proteins of at least two locations; {len(found)} of {len(one)} have one term, "
            f"of {len(names)} kind(s)."
        )
    own = np.where(found > 0, found, found.max() + 1 + np.arange(len(found)))  # what is in no cluster agrees with nothing
    code = np.unique(own, return_inverse=True)[1]

    def rand(rows: np.ndarray) -> float:
        return _adjusted_rand(code, place, np.bincount(rows, minlength=len(code)).astype(float))

    clustered = found > 0
    inside, where = found[clustered], place[clustered]
    fits = np.full(len(found), np.nan)
    fits[clustered] = where == _majority(inside, where)
    rng = np.random.default_rng(seed)
    dealt = np.array([_purity(inside, rng.permutation(place)[clustered]) for _ in range(draws)])
    low, high = np.quantile(dealt, [0.025, 0.975]) if draws else (np.nan, np.nan)
    chance = Interval(float(dealt.mean()) if draws else np.nan, float(low), float(high), len(found))
    proteins = np.arange(len(found))
    return Agreement(
        bootstrap(rand, proteins, draws=draws, seed=seed),
        bootstrap(lambda rows: float(np.nanmean(fits[rows])), proteins, draws=draws, seed=seed),
        chance,
        len(found),
        int(clustered.sum()),
        len(names),
    )


def _adjusted_rand(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float:
    """Return the adjusted Rand index of two groupings of weighted things, pairs of a thing with itself not counted."""
    both = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(both, (a, b), weights)
    itself = (weights**2).sum()
    together, in_a, in_b, every = ((w**2).sum() - itself for w in (both, both.sum(1), both.sum(0), both.sum()))
    expected = in_a * in_b / every if every else np.nan
    most = (in_a + in_b) / 2
    return float((together - expected) / (most - expected)) if most != expected else np.nan


def _majority(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the most frequent value of each thing's group: (things,)."""
    counts = np.zeros((groups.max(initial=0) + 1, values.max(initial=0) + 1), np.int64)
    np.add.at(counts, (groups, values), 1)
    return np.asarray(counts.argmax(axis=1)[groups])


def _purity(groups: np.ndarray, values: np.ndarray) -> float:
    return float((values == _majority(groups, values)).mean()) if len(values) else np.nan


def stability(
    cells: anndata.AnnData, found: Clustering, *, by: str = "protein", unit: str | None = None, draws: int = 50, seed: int = 0
) -> pd.DataFrame:
    """Tell how well each cluster is found again when the cells, or the images, of every protein are drawn anew.

    Each draw takes as many cells (or whole images) of every protein as it has, with replacement, and repeats the means, the
    scaling, the dendrogram and the cut. A cluster's score is the greatest Jaccard index with any cluster of the draw.

    Parameters
    ----------
    cells : AnnData
        What `found` was made from.
    found : Clustering
    by : str
        As in `cluster_proteins`.
    unit : str, optional
        ``"image"`` or ``"cell"``; by default images where at least half of the proteins have two or more, because
        cells of one image share its staining and focus.
    draws, seed : int

    Returns
    -------
    DataFrame
        One row a cluster: ``cluster, n_proteins, jaccard`` (mean over draws), ``low, high`` (middle 95 % of the draws),
        ``found_again`` (share of draws with a Jaccard index above 0.5), ``unit, draws``.

    Raises
    ------
    UnknownNameError
        No such unit, or the cells have no column of that name.
    ParameterError
        No draws.
    """
    if unit is not None and unit not in UNITS:
        raise unknown_name("unit to draw", unit, UNITS)
    if draws < 1:
        raise ParameterError(f"draws is {draws}; the bootstrap needs at least one.")
    labels = label_text(cells.obs[by]).to_numpy()
    used = np.flatnonzero(labels != "")
    protein = found.proteins.obs_names.get_indexer(labels[used])
    unit = unit or _independent(cells.obs, used, protein)
    sums, counts, owner = _units(cells, used, protein, unit)
    rng = np.random.default_rng(seed)
    best = np.zeros((draws, found.count))
    for i in range(draws):
        tree = _regrown(standardise(_redrawn(sums, counts, owner, rng)), found.tree)
        number = found.n_clusters and min(found.n_clusters, most_clusters(tree, found.min_size))
        best[i] = _best_jaccard(found.labels, cut(tree, min_size=found.min_size, n_clusters=number))
    low, high = np.quantile(best, [0.025, 0.975], axis=0)
    table = pd.DataFrame({"cluster": np.arange(1, found.count + 1), "n_proteins": np.bincount(found.labels, minlength=found.count + 1)[1:]})
    return table.assign(jaccard=best.mean(0), low=low, high=high, found_again=(best > 0.5).mean(0), unit=unit, draws=draws)


def _independent(obs: pd.DataFrame, used: np.ndarray, protein: np.ndarray) -> str:
    """Return which unit to draw by default."""
    if "image" not in obs:
        return "cell"
    images = pd.Series(label_text(obs["image"]).to_numpy()[used]).groupby(protein).nunique()
    return "image" if (images > 1).mean() >= 0.5 else "cell"


def _units(cells: anndata.AnnData, used: np.ndarray, protein: np.ndarray, unit: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the sum of features, the cells and the protein of every cell or image, those of one protein next to each other."""
    if unit == "cell":
        order = np.argsort(protein, kind="stable")
        return np.asarray(cells.X)[used[order]], np.ones(len(used)), protein[order]
    require(cells.obs, "image")
    # an image of several proteins (as in a pooled screen) is one unit for each of them
    pairs = pd.MultiIndex.from_arrays([protein, label_text(cells.obs["image"]).to_numpy()[used]])
    code, unique = pairs.factorize(sort=True)
    gather = csr_array((np.ones(len(used), np.float32), (code, np.arange(len(used)))), shape=(len(unique), len(used)))
    return np.asarray(gather @ np.asarray(cells.X)[used]), np.bincount(code).astype(float), unique.get_level_values(0).to_numpy()


def _redrawn(sums: np.ndarray, counts: np.ndarray, owner: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw as many units of every protein as it has, with replacement, and return each protein's mean: (proteins, features)."""
    size = np.bincount(owner)
    first = np.cumsum(size) - size
    drawn = first[owner] + (rng.random(len(owner)) * size[owner]).astype(np.int64)
    times = np.bincount(drawn, minlength=len(owner)).astype(np.float64)
    gather = csr_array((times.astype(sums.dtype), (owner, np.arange(len(owner)))), shape=(len(size), len(owner)))
    return np.asarray(gather @ sums) / np.bincount(owner, times * counts)[:, None]


def _regrown(x: np.ndarray, tree: Tree) -> Tree:
    """Grow a dendrogram as another was grown, without the best order of its leaves, which takes longest and changes no cluster."""
    if len(x) > trees.OPTIMAL_UP_TO:
        return trees.grow(x, tree.names, linkage=tree.linkage, metric=tree.metric)
    merges = hierarchy.linkage(pdist(x, tree.metric), tree.linkage)
    return Tree(tree.names, merges, hierarchy.leaves_list(merges).astype(np.int64), tree.linkage, tree.metric)


def _best_jaccard(labels: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the greatest Jaccard index of each cluster with any cluster of another cut: (clusters,)."""
    both = np.zeros((labels.max() + 1, other.max() + 1))
    np.add.at(both, (labels, other), 1)
    either = both.sum(1)[:, None] + both.sum(0)[None] - both
    index = both / np.maximum(either, 1)
    return np.asarray(index[1:, 1:].max(axis=1, initial=0))
