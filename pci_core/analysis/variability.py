"""Which proteins vary from cell to cell, without naming compartments, and which of their cells belong together.

The paper ("Paired cell inpainting features enable quantitative analysis ...", "Clustering of single cells ...") ranks images by the
standard deviation of the two-location score and clusters the cells of one protein. Scores that need no location are ours:

- ``spread``: root mean square distance of an image's cells to their mean, features scaled to unit variance.
- ``relative``: log2 of the spread over the median spread of the images of other proteins whose means are nearest: some patterns
  vary in every cell, so a protein counts as variable where it varies more than those that look like it.
- ``direction``: share of the spread that lies in one direction, after cell-to-cell variation that all images have is levelled,
  over the share among as many cells drawn from all images: few cells always spread along few directions.
- ``combined``: ``relative`` + log2 of ``direction``: more spread than usual, and along one direction, as of two phenotypes. The
  default: on simulated cells of another seed than the book's no other did better for layers of paired cell inpainting.
- ``bimodality``: Sarle's coefficient of the cells along that direction; 1 for two points, 1/3 for a normal distribution.
"""

from __future__ import annotations

from collections.abc import Sequence

import anndata
import numpy as np
import pandas as pd

from pci_core.analysis import multilocalization
from pci_core.analysis.clusters import cut
from pci_core.analysis.knn import standardise
from pci_core.analysis.selection import label_text, require
from pci_core.analysis.trees import LINKAGES, Tree, grow
from pci_core.errors import AnalysisNeedsError, CellTableError, ParameterError, unknown_name

SCORES = {
    "combined": "relative spread and one direction",
    "relative": "spread against like proteins",
    "spread": "spread of the cells",
    "direction": "share of one direction",
    "bimodality": "bimodality along it",
}
NEIGHBOURS = 15
LEAST = 5  # cells of an image, as the paper's filter
_LEVEL = 0.5  # shrinkage of the common covariance: no direction in which hardly any cell varies is blown up
_DRAWS = 10


def check_choices(name: str, linkage: str = "ward") -> None:
    """Raise `UnknownNameError` unless there are such a score and such a linkage."""
    if name not in SCORES:
        raise unknown_name("score", name, SCORES)
    if linkage not in LINKAGES:
        raise unknown_name("linkage", linkage, LINKAGES)


def image_scores(adata: anndata.AnnData, *, neighbours: int = NEIGHBOURS, least: int = LEAST) -> pd.DataFrame:
    """Score how much the cells of every image vary.

    Parameters
    ----------
    adata : AnnData
        (cells, features) with ``image`` in obs.
    neighbours : int
        How many images of other proteins are taken for like; all where there are fewer.
    least : int
        Cells an image must have; others are left out.

    Returns
    -------
    DataFrame
        One row an image: ``image``; ``protein``, ``cell_line`` and ``location`` where the table has them; ``n_cells``; the
        `SCORES`. ``relative`` and ``combined`` are NaN where no
        image is of another protein.

    Raises
    ------
    AnalysisNeedsError
        No image has so many cells.
    CellTableError
        The features hold NaN or infinite values, or do not vary.
    ParameterError
        `neighbours` below 1 or `least` below 3.
    """
    if neighbours < 1 or least < 3:
        raise ParameterError(f"neighbours = {neighbours} and least = {least}; take at least 1 neighbour and at least 3 cells.")
    require(adata.obs, "image")
    image = label_text(adata.obs["image"]).to_numpy()
    names, code, counts = np.unique(image, return_inverse=True, return_counts=True)
    if counts.max() < least:
        raise AnalysisNeedsError(
            f"single-cell variability needs images of at least {least} cells; the largest has {counts.max()}. Take more fields an image."
        )
    used = np.flatnonzero(counts[code] >= least)
    names, code, counts = np.unique(image[used], return_inverse=True, return_counts=True)
    x = standardised(adata)[used].astype(np.float64)
    means = np.zeros((len(names), x.shape[1]))
    np.add.at(means, code, x)
    means /= counts[:, None]
    x -= means[code]
    levelled = x @ _levelling(x)
    first = np.array([np.flatnonzero(code == i)[0] for i in range(len(names))])
    out = pd.DataFrame({"image": names})
    for column in ("protein", "cell_line", "location"):
        if column in adata.obs and (label_text(adata.obs[column]) != "").any():
            out[column] = label_text(adata.obs[column]).to_numpy()[used][first]
    out["n_cells"] = counts
    # of a sample, so that images of few cells are not taken for steady
    out["spread"] = np.sqrt(np.bincount(code, (x**2).sum(1)) / (counts - 1))
    out["relative"] = _relative(out["spread"].to_numpy(), means, out.get("protein", out["image"]).to_numpy(), neighbours)
    shares = [_direction(levelled[code == i]) for i in range(len(names))]
    out["direction"], out["bimodality"] = np.array(shares).T
    out["direction"] /= _usual_share(levelled, counts)
    out["combined"] = out["relative"] + np.log2(out["direction"].where(out["direction"] > 0))
    return out[[c for c in out if c not in SCORES] + list(SCORES)]


def standardised(adata: anndata.AnnData) -> np.ndarray:
    """Return the features, centred and scaled over all cells, without those of one value: (cells, features) float32.

    Raises
    ------
    CellTableError
        NaN or infinite values, or no feature that varies.
    """
    x = np.asarray(adata.X)
    if not np.isfinite(x).all():
        raise CellTableError("the features hold NaN or infinite values, which have no distance. Leave those cells or columns out.")
    out = standardise(x)
    out = out[:, np.ptp(out, axis=0) > 0]
    if not out.shape[1]:
        raise CellTableError("no feature varies between cells, so there is no variability to score.")
    return out


def _levelling(residuals: np.ndarray) -> np.ndarray:
    """Return what makes the variation that the cells of all images share alike in all directions: (features, features)."""
    variance, axes = np.linalg.eigh(residuals.T @ residuals / len(residuals))
    variance = (1 - _LEVEL) * np.maximum(variance, 0) + _LEVEL * max(variance.mean(), np.finfo(float).tiny)
    return np.asarray(axes / np.sqrt(variance))


def _relative(spread: np.ndarray, means: np.ndarray, proteins: np.ndarray, neighbours: int) -> np.ndarray:
    out = np.full(len(spread), np.nan)
    norm = (means**2).sum(1)
    for i, mean in enumerate(means):
        other = np.flatnonzero(proteins != proteins[i])
        distance = norm[other] - 2 * means[other] @ mean  # up to the constant of the row
        near = other[np.argsort(distance, kind="stable")[:neighbours]]
        usual = np.median(spread[near]) if len(near) else np.nan
        if usual > 0 and spread[i] > 0:
            out[i] = np.log2(spread[i] / usual)
    return out


def _direction(x: np.ndarray) -> tuple[float, float]:
    x = x - x.mean(0)
    left, size, _ = np.linalg.svd(x, full_matrices=False)
    total = (size**2).sum()
    if not total > 0:
        return 0.0, 0.0
    a = left[:, 0] / left[:, 0].std()
    return float(size[0] ** 2 / total), float(((a**3).mean() ** 2 + 1) / (a**4).mean())


def _share(x: np.ndarray) -> float:
    x = x - x.mean(0)
    products = x @ x.T if len(x) <= x.shape[1] else x.T @ x
    return float(np.linalg.eigvalsh(products)[-1] / max(np.trace(products), np.finfo(float).tiny))


def _usual_share(levelled: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the share of one direction among as many cells of any images as each image has: (images,)."""
    rng, usual = np.random.default_rng(0), {}
    for n in np.unique(counts):
        drawn = [rng.choice(len(levelled), int(n), replace=False) for _ in range(_DRAWS)]
        usual[n] = np.mean([_share(levelled[rows]) for rows in drawn])
    return np.maximum([usual[n] for n in counts], np.finfo(float).tiny)


def protein_scores(images: pd.DataFrame, name: str = "combined") -> pd.DataFrame:
    """Average the scores of a protein's images (of several cell lines): one row a protein, the highest of score `name` first.

    Images stand for themselves where the table has no proteins.

    Raises
    ------
    UnknownNameError
        No such score.
    """
    check_choices(name)
    by = "protein" if "protein" in images else "image"
    grouped = images.groupby(by, sort=True)
    out = grouped[list(SCORES)].mean().assign(n_images=grouped.size(), n_cells=grouped["n_cells"].sum())
    if "location" in images:
        out["location"] = grouped["location"].agg(lambda c: c.iloc[0] if c.nunique() == 1 else "")
    return out.reset_index().sort_values(name, ascending=False, ignore_index=True)


def pick_image(images: pd.DataFrame, name: str = "combined", wanted: str = "") -> str:
    """Return the image to look at: the highest scoring one of a protein, by default of the highest scoring protein.

    Parameters
    ----------
    images : DataFrame
        From `image_scores`.
    name : str
        Which score.
    wanted : str
        A protein or an image.

    Raises
    ------
    UnknownNameError
        No such score, or neither a protein nor an image of that name has enough cells; with the nearest names.
    """
    proteins = protein_scores(images, name)
    by = str(proteins.columns[0])
    wanted = wanted or str(proteins[by].iloc[0])
    for column in dict.fromkeys((by, "image")):
        part = images[images[column] == wanted]
        if len(part):
            return str(part.loc[part[name].fillna(-np.inf).idxmax(), "image"])
    known = dict.fromkeys([*images[by], *images["image"]])
    raise unknown_name(f"protein or image of at least {int(images['n_cells'].min())} cells", wanted, known)


def location_spread(
    adata: anndata.AnnData, pairs: Sequence[tuple[str, str]], *, label: str = "location", group: str = "", least: int = LEAST
) -> pd.DataFrame:
    """Return the standard deviation of the two-location score in every image of both locations (the paper's way).

    Parameters
    ----------
    adata : AnnData
        (cells, features).
    pairs : sequence of (str, str)
        First and second location.
    label, group : str
        See `pci_core.analysis.multilocalization.score`; the score is its ``ratio``.
    least : int
        Cells an image must have.

    Returns
    -------
    DataFrame
        ``pair, image, protein, cell_line, mean, sd, n_cells``, highest first within a pair; ``attrs["left_out"]`` says why a
        pair is missing.
    """
    tables, left_out = [], {}
    for first, second in pairs:
        pair = f"{first} and {second}"
        try:
            scores = multilocalization.score(adata, first, second, label=label, group=group)
        except AnalysisNeedsError as error:
            left_out[pair] = str(error)
            continue
        keys = [c for c in ("image", "protein", "cell_line") if c in scores]
        table = multilocalization.summary(scores, keys)
        table = table[table["n_cells"] >= least].sort_values("sd", ascending=False)
        tables.append(table[[*keys, "mean", "sd", "n_cells"]].assign(pair=pair))
    columns = ["pair", "image", "protein", "cell_line", "mean", "sd", "n_cells"]
    out = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    out = out[[c for c in columns if c in out]]
    out.attrs["left_out"] = left_out
    return out


# --- the cells of one image or protein


def cell_tree(adata: anndata.AnnData, rows: np.ndarray, *, linkage: str = "ward") -> Tree:
    """Cluster some cells (figure 6), features scaled over all cells of `adata`; leaves are called by row number.

    Raises
    ------
    CellTableError
        Fewer than two cells, or no feature varies.
    """
    return grow(standardised(adata)[rows], [str(r) for r in rows], linkage=linkage)


def branches(tree: Tree, n: int = 2, *, min_size: int = 3) -> np.ndarray:
    """Cut a tree of cells into n branches of at least `min_size` cells: (leaves,) 1 … n, 0 for cells in none.

    ``n = 0`` leaves the number to the rule of `pci_core.analysis.clusters.cut`.

    Raises
    ------
    ParameterError
        The tree does not allow so many.
    """
    return cut(tree, min_size=min_size, n_clusters=n or None)
