"""Maps of a feature set in two dimensions by UMAP (supplementary figure 3 of the paper).

A map shows which cells lie near one another. Distances between far groups, sizes and densities of
groups mean little in it, and it scores nothing: the accuracies are for that.
"""

from __future__ import annotations

import anndata
import numpy as np

from pci_core.analysis.knn import standardise
from pci_core.errors import CellTableError


def umap(
    adata: anndata.AnnData,
    *,
    n_neighbors: int = 30,
    min_dist: float = 0.3,
    metric: str = "euclidean",
    seed: int = 0,
    max_cells: int | None = None,
) -> np.ndarray:
    """Lay the cells out in a plane; the defaults are the paper's for single cells.

    Features are centred and scaled first, as before every classification. A cross-validated
    supervised set has another space in each fold; of such a set the cells of fold 0 are laid out, in
    the space of the network that never saw their group.

    Parameters
    ----------
    adata : AnnData
        A feature set, (N, features).
    n_neighbors : int
        Neighbours of each cell that the map keeps together (20 in the paper where a row is a protein).
    min_dist : float
        How close points may lie, in units of the map.
    metric : str
        A distance that umap-learn knows.
    seed : int
        The same seed gives the same map on the same machine; it costs a second thread.
    max_cells : int, optional
        Lay out no more than so many cells, drawn at random.

    Returns
    -------
    ndarray
        (N, 2) float32 in the order of `adata`; NaN for cells that were not laid out.

    Raises
    ------
    CellTableError
        NaN or infinite features, no feature that differs between cells, or no more cells than neighbours.
    """
    values, rows = _space(adata)
    if max_cells is not None and len(rows) > max_cells:
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_cells, replace=False))
    if len(rows) <= n_neighbors:
        raise CellTableError(
            f"a map with {n_neighbors} neighbours needs more than {n_neighbors} cells, found {len(rows)}; choose fewer with n_neighbors."
        )
    x = np.asarray(values[rows], np.float64)
    bad = ~np.isfinite(x).all(0)
    if bad.any():
        named = list(adata.var_names[np.flatnonzero(bad)[:3]])
        raise CellTableError(f"{bad.sum()} features hold NaN or infinite values, e.g. {named}; leave out those columns or cells first.")
    if not np.ptp(x, axis=0).any():
        raise CellTableError(f"no feature differs between the {len(rows)} cells, so there is nothing to lay out.")
    from umap import UMAP  # here, since it takes seconds to load

    # a seed allows one thread only; saying so is what keeps umap from warning that it overrules the number
    reducer = UMAP(n_neighbors=n_neighbors, min_dist=min_dist, metric=metric, random_state=seed, n_jobs=1)
    out = np.full((adata.n_obs, 2), np.nan, np.float32)
    out[rows] = reducer.fit_transform(standardise(x))
    return out


def _space(adata: anndata.AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Return the features that share one space, (N, F), and the rows that may be laid out in it."""
    if "fold" in adata.obs and "fold_0" in adata.obsm:
        return np.asarray(adata.obsm["fold_0"]), np.flatnonzero(adata.obs["fold"].to_numpy() == 0)
    return np.asarray(adata.X), np.arange(adata.n_obs)
