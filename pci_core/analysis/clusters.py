"""Clusters of a dendrogram by a stated rule.

The paper's clusters (figure 4) were chosen by hand. Here they are chosen by excess of mass on the condensed
tree, as in HDBSCAN (Campello et al. 2013, 2015), on whatever dendrogram `pci_core.analysis.trees` has grown:

1. Walk down from the root. Where both branches of a node have at least ``min_size`` leaves, the cluster splits in
   two; where only one has, the leaves of the other fall out and the cluster goes on; where none has, it ends.
2. A cluster's mass is the sum over its leaves of ``1 / height where the leaf left it - 1 / height where it began``:
   large where many leaves stay together over a long way down. A correlation or cosine distance d is half the square of
   the Euclidean distance between the rows brought to one length, so there the height is sqrt(2 d).
3. Of all ways to cut the tree into clusters, take the one of the greatest mass; with a given number of
   clusters, the one of the greatest mass among those of that number.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd

from pci_core.analysis import trees
from pci_core.analysis.knn import constant_features, standardise
from pci_core.analysis.selection import label_text
from pci_core.analysis.trees import Tree
from pci_core.errors import AnalysisNeedsError, CellTableError, ParameterError
from pci_core.features import aggregate

_CLOSEST = 1e-6  # of the greatest height: equal rows merge at 0, whose inverse has no value


@dataclass
class _Condensed:
    """One cluster of the condensed tree: the node it begins at, its mass, the two clusters it splits into (or none)."""

    node: int
    mass: float
    parts: tuple[int, ...] = ()


def cut(tree: Tree, *, min_size: int = 5, n_clusters: int | None = None) -> np.ndarray:
    """Cut a dendrogram into clusters by excess of mass (see the module's text).

    Parameters
    ----------
    tree : Tree
    min_size : int
        The fewest leaves that a cluster may have, at least 2.
    n_clusters : int, optional
        Exactly so many clusters; by default the rule chooses, from two on.

    Returns
    -------
    ndarray of int
        (leaves,) 1, 2, ... along the dendrogram; 0 = in no cluster. All 0 where no node has two branches of
        ``min_size`` leaves: then the rule finds no clusters.

    Raises
    ------
    ParameterError
        ``min_size`` below 2 or above the number of leaves, or more clusters than the tree allows.
    CellTableError
        All leaves lie at one place.
    """
    _check_whole("min_size", min_size)
    if n_clusters is not None:
        _check_whole("n_clusters", n_clusters)
    if min_size < 2:
        raise ParameterError(f"min_size is {min_size}; a cluster has at least 2 members.")
    if min_size > len(tree):
        raise ParameterError(f"min_size is {min_size}, but there are only {len(tree)} leaves to cluster. Take a smaller one.")
    if not tree.merges[:, 2].max() > 0:
        raise CellTableError(f"all {len(tree)} leaves have the same features, so there is nothing to cluster.")
    condensed = _condense(tree, min_size)
    most = _ends(condensed)
    if n_clusters is not None and not 1 <= n_clusters <= most:
        raise ParameterError(
            f"n_clusters is {n_clusters}; this tree of {len(tree)} leaves allows 1 to {most} clusters of at least {min_size} members. "
            "Ask for another number, for smaller clusters (min_size), or leave n_clusters out."
        )
    out = np.zeros(len(tree), np.int64)
    if n_clusters is None and most < 2:
        return out
    members = [tree.leaves(node) for node in _best(condensed, n_clusters)]
    place = tree.place()
    for number, leaves in enumerate(sorted(members, key=lambda m: place[m].min()), 1):
        out[leaves] = number
    return out


def _check_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ParameterError(f"{name} is {value!r}; it must be a whole number.")


def _condense(tree: Tree, min_size: int) -> list[_Condensed]:
    """Return the clusters of the condensed tree, the root first and every cluster before its parts."""
    n = len(tree)
    branches = tree.merges[:, :2].astype(np.int64)
    size = np.concatenate([np.ones(n), tree.merges[:, 3]])
    heights = tree.merges[:, 2] if tree.metric == "euclidean" else np.sqrt(2 * np.maximum(tree.merges[:, 2], 0))
    density = 1 / np.maximum(heights, heights.max() * _CLOSEST)
    out = [_Condensed(2 * n - 2, 0.0)]
    todo = [(0, float(density[-1]))]
    while todo:
        number, began = todo.pop()
        node = out[number].node
        while True:
            here, (a, b) = float(density[node - n]), branches[node - n]
            large = [int(branch) for branch in (a, b) if size[branch] >= min_size]
            if len(large) != 1:
                out[number].mass += size[node] * (here - began)
                break
            lost = b if large[0] == a else a
            out[number].mass += size[lost] * (here - began)
            node = large[0]
        if large:
            out[number].parts = (len(out), len(out) + 1)
            for branch in large:
                todo.append((len(out), here))
                out.append(_Condensed(branch, 0.0))
    return out


def _ends(condensed: list[_Condensed]) -> int:
    """Return the greatest number of clusters."""
    return sum(not c.parts for c in condensed)


def most_clusters(tree: Tree, min_size: int) -> int:
    """Return the greatest number of clusters of at least ``min_size`` leaves that a dendrogram allows."""
    return _ends(_condense(tree, min_size))


def _best(condensed: list[_Condensed], n_clusters: int | None) -> list[int]:
    """Return the nodes of the cut of the greatest mass; every end of the condensed tree lies below one of them."""
    # best[c][k - 1]: the greatest mass of k clusters that cut the branch c; taken[c][k - 1]: how many of them lie in its first part
    best: list[np.ndarray] = [np.empty(0)] * len(condensed)
    taken: list[np.ndarray] = [np.empty(0, int)] * len(condensed)
    for c in reversed(range(len(condensed))):
        best[c], taken[c] = np.array([condensed[c].mass]), np.array([0])
        if condensed[c].parts:
            a, b = (best[p] for p in condensed[c].parts)
            total = np.full(len(a) + len(b), -np.inf)
            first = np.zeros(len(total), int)
            total[0] = condensed[c].mass
            for i in range(1, len(a) + 1):
                reached = slice(i, i + len(b))
                sums = a[i - 1] + b
                better = sums > total[reached]
                total[reached] = np.where(better, sums, total[reached])
                first[reached] = np.where(better, i, first[reached])
            best[c], taken[c] = total, first
    chosen, todo = [], [(0, n_clusters or int(best[0][1:].argmax()) + 2)]
    while todo:
        c, k = todo.pop()
        if k == 1:
            chosen.append(condensed[c].node)
        else:
            i = int(taken[c][k - 1])
            todo += [(condensed[c].parts[0], i), (condensed[c].parts[1], k - i)]
    return chosen


@dataclass(frozen=True)
class Clustering:
    """Proteins, their dendrogram and its clusters.

    Attributes
    ----------
    proteins : AnnData
        (proteins, features): X the mean of each protein's cells, centred and scaled over proteins; obs as from
        `pci_core.features.aggregate`, with the column ``cluster`` (0 = in none).
    tree : Tree
        Of the proteins, in the order of the rows.
    min_size : int
    n_clusters : int or None
        What was asked of `cut`.
    """

    proteins: anndata.AnnData
    tree: Tree
    min_size: int
    n_clusters: int | None

    @property
    def labels(self) -> np.ndarray:
        """Cluster of each protein, 1, 2, ... along the dendrogram; 0 = in none; (proteins,) int."""
        out: np.ndarray = self.proteins.obs["cluster"].to_numpy()
        return out

    @property
    def count(self) -> int:
        """How many clusters."""
        return int(self.labels.max())

    def members(self) -> dict[str, list[str]]:
        """Return the proteins of each cluster by its number as text, each in the order of the dendrogram."""
        names, labels = self.proteins.obs_names.to_numpy()[self.tree.order], self.labels[self.tree.order]
        return {str(c): names[labels == c].tolist() for c in range(1, self.count + 1)}


def cluster_proteins(
    cells: anndata.AnnData,
    *,
    by: str = "protein",
    linkage: str = "average",
    metric: str = "correlation",
    min_size: int = 5,
    n_clusters: int | None = None,
) -> Clustering:
    """Average the cells of each protein, centre and scale, grow a dendrogram and cut it (figure 4).

    Parameters
    ----------
    cells : AnnData
        (cells, features).
    by : str
        Column of obs whose values are clustered; cells where it is empty are left out.
    linkage, metric : str
        See `pci_core.analysis.trees.grow`; the paper says "hierarchical agglomerative" and no more.
    min_size, n_clusters
        See `cut`.

    Returns
    -------
    Clustering

    Raises
    ------
    AnalysisNeedsError
        Too few proteins for two clusters, features of one value only, or no clusters found by the rule.
    UnknownNameError, ParameterError
        No such column, linkage or metric; a size or number that the dendrogram does not allow.
    """
    proteins = aggregate(cells, by=by)
    _check_whole("min_size", min_size)
    least = max(2 * min_size, 2) if n_clusters != 1 else max(min_size, 2)
    if proteins.n_obs < least:
        raise AnalysisNeedsError(
            f"clustering needs at least {least} values of '{by}' for clusters of {min_size} or more; the cells have {proteins.n_obs} "
            f"({', '.join(proteins.obs_names[:5])}). Add proteins, or lower min_size."
        )
    if constant_features(np.asarray(proteins.X)).all():
        raise AnalysisNeedsError(
            f"all {proteins.n_vars} features have one value for all {proteins.n_obs} values of '{by}': there is nothing to cluster."
        )
    proteins.X = standardise(np.asarray(proteins.X))
    tree = trees.grow(proteins.X, proteins.obs_names, linkage=linkage, metric=metric)
    labels = cut(tree, min_size=min_size, n_clusters=n_clusters)
    if not labels.any():
        raise AnalysisNeedsError(
            f"the rule finds no clusters: nowhere does the dendrogram of {len(tree)} values of '{by}' part into two branches of at "
            f"least {min_size}. Lower min_size, or take another linkage than '{linkage}'."
        )
    proteins.obs["cluster"] = labels
    return Clustering(proteins, tree, min_size, n_clusters)


def feature_tree(found: Clustering) -> tuple[np.ndarray, Tree]:
    """Grow the dendrogram of the features, with the linkage and metric of the proteins' own.

    Returns
    -------
    tuple of ndarray and Tree
        (proteins, features that differ between proteins) and their tree.

    Raises
    ------
    AnalysisNeedsError
        Fewer than two features differ between proteins.
    """
    x = np.asarray(found.proteins.X)
    differ = ~constant_features(x)
    if differ.sum() < 2:
        raise AnalysisNeedsError(f"a heat map needs two features that differ between proteins; {differ.sum()} of {len(differ)} do.")
    names = found.proteins.var_names.to_numpy()[differ].tolist()
    return x[:, differ], trees.grow(x[:, differ].T, names, linkage=found.tree.linkage, metric=found.tree.metric)


def common_location(members: pd.Series) -> tuple[str, int]:
    """Return the term that most of some proteins have, and how many have it; proteins of several terms count for each.

    Parameters
    ----------
    members : Series of str
        Locations of the proteins, terms joined by ``;``.

    Returns
    -------
    tuple of str and int
        ``("", 0)`` where no location is known; of equally frequent terms the first in the alphabet.
    """
    counts = Counter(term for text in label_text(members) for term in sorted(set(text.split(";"))) if term)
    return min(counts.items(), key=lambda c: (-c[1], c[0])) if counts else ("", 0)
