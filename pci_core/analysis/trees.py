"""Hierarchical agglomerative clustering: the tree itself, which other analyses cut, walk or draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster import hierarchy

from pci_core.analysis.pairwise import condensed_distances
from pci_core.errors import CellTableError, unknown_name

LINKAGES = ("average", "ward", "complete", "single")
METRICS = ("euclidean", "correlation", "cosine")
OPTIMAL_UP_TO = 1500  # leaves; the best order of 4,000 takes two minutes and grows steeply


@dataclass(frozen=True)
class Tree:
    """A dendrogram.

    Attributes
    ----------
    names : tuple of str
        One a leaf, in the order of the rows it was made from.
    merges : ndarray
        (leaves - 1, 4) float64 as scipy's linkage matrix: the two nodes joined, height, leaves below. Node
        ``leaves + i`` is made by row i.
    order : ndarray
        (leaves,) int64: the leaves from one end of the dendrogram to the other.
    linkage, metric : str
        How it was made.
    """

    names: tuple[str, ...]
    merges: np.ndarray
    order: np.ndarray
    linkage: str
    metric: str

    def __len__(self) -> int:
        return len(self.names)

    def place(self) -> np.ndarray:
        """Return where each leaf stands in the dendrogram: (leaves,) int64."""
        out = np.empty(len(self), np.int64)
        out[self.order] = np.arange(len(self))
        return out

    def parents(self) -> np.ndarray:
        """Return the node above each node, -1 for the root: (2 * leaves - 1,) int64."""
        out = np.full(2 * len(self) - 1, -1, np.int64)
        for i, (a, b) in enumerate(self.merges[:, :2].astype(np.int64)):
            out[a] = out[b] = len(self) + i
        return out

    def leaves(self, node: int) -> np.ndarray:
        """Return the leaves below a node, in the order of the dendrogram."""
        out, todo = [], [int(node)]
        while todo:
            n = todo.pop()
            if n < len(self):
                out.append(n)
            else:
                todo += self.merges[n - len(self), :2].astype(int).tolist()
        place = self.place()
        return np.array(sorted(out, key=place.__getitem__), np.int64)


def grow(values: np.ndarray, names: Sequence[str], *, linkage: str = "average", metric: str = "euclidean") -> Tree:
    """Cluster rows from the bottom up.

    Parameters
    ----------
    values : ndarray
        (rows, features), centred and scaled already (`pci_core.analysis.knn.standardise`), finite.
    names : sequence of str
        One a row.
    linkage : str
        ``"average"``, ``"ward"``, ``"complete"`` or ``"single"``; ``"ward"`` is for Euclidean distances only.
    metric : str
        ``"euclidean"``, ``"correlation"`` or ``"cosine"``.

    Returns
    -------
    Tree
        Up to 1,500 leaves in the order in which neighbours differ least, more in scipy's order.

    Raises
    ------
    UnknownNameError
        No such linkage or metric.
    CellTableError
        Fewer than two rows, NaN or infinite values, or rows that have no correlation because all their values are one.
    """
    if linkage not in LINKAGES:
        raise unknown_name("linkage", linkage, LINKAGES)
    if metric not in METRICS or (linkage == "ward" and metric != "euclidean"):
        raise unknown_name(
            "metric" if linkage != "ward" else "metric for Ward's linkage", metric, METRICS if linkage != "ward" else METRICS[:1]
        )
    x = np.asarray(values, np.float64)
    if len(x) < 2:
        raise CellTableError(f"a dendrogram needs at least two rows, found {len(x)}.")
    if not np.isfinite(x).all():
        raise CellTableError("the features to cluster hold NaN or infinite values. Leave those rows or columns out.")
    # rows without a direction: their distance would be a division of rounding errors
    flat = {"correlation": x.max(1) == x.min(1), "cosine": ~x.any(1)}.get(metric, np.zeros(1, bool))
    if flat.any():
        raise CellTableError(
            f"{flat.sum()} of {len(x)} rows to cluster are rows of one value, which have no {metric} distance. Leave those rows out, or "
            "take metric='euclidean'."
        )
    distances = condensed_distances(x, metric)
    merges = hierarchy.linkage(distances, linkage, optimal_ordering=len(x) <= OPTIMAL_UP_TO)
    return Tree(tuple(map(str, names)), merges, hierarchy.leaves_list(merges).astype(np.int64), linkage, metric)
