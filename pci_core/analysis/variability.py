"""Which proteins vary from cell to cell, without naming compartments, and which of their cells belong together.

The paper ("Paired cell inpainting features enable quantitative analysis ...", "Clustering of single cells ...") ranks images by the
standard deviation of the two-location score and clusters the cells of one protein. Scores that need no location are ours:

- ``spread``: root mean square distance of an image's cells to their mean, features scaled to unit variance.
- ``relative``: log2 of the spread over the median spread of the images of other proteins whose means are nearest: some patterns
  vary in every cell, so a protein counts as variable where it varies more than those that look like it.
- ``direction``: share of the spread that lies in one direction, after cell-to-cell variation that all images have is levelled.
- ``combined``: ``relative`` + log2 of ``direction``: more spread than usual, and along one direction, as of two phenotypes. The
  default: it was best for the layers of paired cell inpainting on simulated cells of another seed than the book's.
- ``bimodality``: Sarle's coefficient of the cells along that direction; 1 for two points, 1/3 for a normal distribution.
"""

from __future__ import annotations

from collections.abc import Sequence

import anndata
import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.metrics import adjusted_rand_score

from pci_core.analysis.bootstrap import Interval, bootstrap
from pci_core.analysis.clusters import cut
from pci_core.analysis.knn import standardise
from pci_core.analysis.selection import label_text, require
from pci_core.analysis.trees import Tree, grow
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
_NO = ("", "0", "0.0", "no", "false", "nan", "none", "homogeneous")
_NO_PATTERN = ("", "dead", "diffuse")  # simulated cells that do not show the protein's pattern
_KINDS = {"two phenotypes": "location", "two levels": "intensity"}


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
    x = _space(adata)[used].astype(np.float64)
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
    out["combined"] = out["relative"] + np.log2(out["direction"].where(out["direction"] > 0))
    return out[[c for c in out if c not in SCORES] + list(SCORES)]


def _space(adata: anndata.AnnData) -> np.ndarray:
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


def protein_scores(images: pd.DataFrame) -> pd.DataFrame:
    """Average the scores of a protein's images (of several cell lines): one row a protein, highest ``combined`` first.

    Images stand for themselves where the table has no proteins.
    """
    by = "protein" if "protein" in images else "image"
    grouped = images.groupby(by, sort=True)
    out = grouped[list(SCORES)].mean().assign(n_images=grouped.size(), n_cells=grouped["n_cells"].sum())
    if "location" in images:
        out["location"] = grouped["location"].agg(lambda c: c.iloc[0] if c.nunique() == 1 else "")
    return out.reset_index().sort_values("combined", ascending=False, ignore_index=True)


# --- truth


def known_variation(obs: pd.DataFrame, by: str = "protein") -> pd.Series | None:
    """Return what is known of variation: one text a protein (or image), empty where it does not vary.

    Simulated: ``location`` (cells show one pattern or another) or ``intensity`` (bright and dim cells). Else from a column
    ``variable`` or one that begins with ``single_cell_variation`` (as the Human Protein Atlas has), any text but no, false or 0.

    Returns
    -------
    Series or None
        By the values of `by`; None where nothing is known.
    """
    require(obs, by)
    names = label_text(obs[by])
    if "sim_variation" in obs:
        told = label_text(obs["sim_variation"])
    elif "sim_kind" in obs:
        told = label_text(obs["sim_kind"]).map(_KINDS).fillna("")
    else:
        columns = [c for c in obs if _plain(c) == "variable" or _plain(c).startswith("single_cell_variation")]
        if not columns:
            return None
        found = np.zeros(len(obs), bool)
        for column in columns:
            found |= ~label_text(obs[column]).str.strip().str.casefold().isin(_NO).to_numpy()
        told = pd.Series(np.where(found, "variable", ""), index=obs.index)
    return told.groupby(names.to_numpy()).agg(lambda c: next((t for t in c if t), ""))


def _plain(column: object) -> str:
    return str(column).strip().casefold().replace("-", "_").replace(" ", "_")


def known_phenotype(obs: pd.DataFrame) -> np.ndarray | None:
    """Return the simulated phenotype of each cell, empty where it is not known; None for real cells."""
    if "sim_phenotype" not in obs:
        return None
    out = label_text(obs["sim_phenotype"]).to_numpy().astype(object)
    none = np.isin(out.astype(str), _NO_PATTERN)
    if "sim_low" in obs:
        out = np.where(label_text(obs["sim_low"]).str.casefold().isin(("true", "1", "1.0")), out + ", dim", out)
    if "sim_matched" in obs:
        none |= ~obs["sim_matched"].astype(bool).to_numpy()
    out[none] = ""
    return np.asarray(out.astype(str))


def detection(scores: pd.DataFrame, truth: pd.Series, *, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Compare the scores with known variation.

    Parameters
    ----------
    scores : DataFrame
        From `protein_scores`.
    truth : Series
        From `known_variation`, by protein.
    draws, seed : int
        Of the bootstrap over proteins.

    Returns
    -------
    DataFrame
        ``score, kind, ap, low, high, auroc, auroc_low, auroc_high, chance, n_variable, n_proteins``: average precision and area under
        the ROC curve with 95 % intervals; ``chance`` is the share of variable proteins, what guessing gets for the first (0.5
        for the second). ``kind``: ``any``, or one kind of variation against proteins that do not vary, the other kinds left out.
    """
    known = scores[scores.iloc[:, 0].isin(truth.index)]
    what = truth.reindex(known.iloc[:, 0]).to_numpy()
    kinds = [k for k in np.unique(what) if k]
    rows = []
    for kind in ["any", *(kinds if len(kinds) > 1 else [])]:
        kept = np.ones(len(what), bool) if kind == "any" else (what == "") | (what == kind)
        y = what[kept] != ""
        for name in SCORES:
            s = known[name].to_numpy()[kept]
            good = np.isfinite(s)
            s, yes = s[good], y[good]
            if yes.all() or not yes.any():
                continue
            ap = bootstrap(lambda i, a=s, b=yes: _precision(b[i], a[i]), np.arange(len(s)), draws=draws, seed=seed)  # type: ignore[misc]
            roc = bootstrap(lambda i, a=s, b=yes: _area(b[i], a[i]), np.arange(len(s)), draws=draws, seed=seed)  # type: ignore[misc]
            row = (name, kind, ap.value, ap.low, ap.high, roc.value, roc.low, roc.high, yes.mean(), int(yes.sum()), len(yes))
            rows.append(row)
    columns = ["score", "kind", "ap", "low", "high", "auroc", "auroc_low", "auroc_high", "chance", "n_variable", "n_proteins"]
    return pd.DataFrame(rows, columns=columns)


def _precision(yes: np.ndarray, s: np.ndarray) -> float:
    """Return the average precision as scikit-learn does, ties as one step; many times faster, which the bootstrap needs."""
    if not yes.any():
        return float("nan")
    order = np.argsort(-s, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(s[order])), len(s) - 1)
    found = np.cumsum(yes[order])[ends]
    return float((np.diff(found, prepend=0) * found / (ends + 1)).sum() / found[-1])


def _area(yes: np.ndarray, s: np.ndarray) -> float:
    n = int(yes.sum())
    if not 0 < n < len(yes):
        return float("nan")
    return float((rankdata(s)[yes].sum() - n * (n + 1) / 2) / (n * (len(yes) - n)))


def chosen_on_half(scores: pd.DataFrame, truth: pd.Series, *, splits: int = 200, seed: int = 0) -> pd.DataFrame:
    """Choose the score on a random half of the proteins and measure it on the other half, many times.

    So the figure owes nothing to having picked the best of several scores on the proteins it is told of.

    Returns
    -------
    DataFrame
        One row a split: ``chosen`` (score of the highest average precision on one half), ``ap`` (of it on the other half) and
        ``chance`` (share of variable proteins there). Both halves hold half of the variable proteins; empty with fewer than four.
    """
    known = scores[scores.iloc[:, 0].isin(truth.index)]
    yes = (truth.reindex(known.iloc[:, 0]) != "").to_numpy()
    values = {n: known[n].to_numpy() for n in SCORES if np.isfinite(known[n]).all()}
    rng, rows = np.random.default_rng(seed), []
    for _ in range(splits if min(yes.sum(), (~yes).sum()) >= 4 else 0):
        half = np.zeros(len(yes), bool)
        for group in (np.flatnonzero(yes), np.flatnonzero(~yes)):
            half[rng.permutation(group)[: (len(group) + rng.integers(2)) // 2]] = True
        chosen = max(values, key=lambda n: _precision(yes[half], values[n][half]))
        rows.append((chosen, _precision(yes[~half], values[chosen][~half]), yes[~half].mean()))
    return pd.DataFrame(rows, columns=["chosen", "ap", "chance"])


# --- the cells of one image or protein


def cell_tree(adata: anndata.AnnData, rows: np.ndarray, *, linkage: str = "ward") -> Tree:
    """Cluster some cells (figure 6), features scaled over all cells of `adata`; leaves are called by row number.

    Raises
    ------
    CellTableError
        Fewer than two cells, or no feature varies.
    """
    return grow(_space(adata)[rows], [str(r) for r in rows], linkage=linkage)


def branches(tree: Tree, n: int = 2, *, min_size: int = 3) -> np.ndarray:
    """Cut a tree of cells into n branches of at least `min_size` cells: (leaves,) 1 … n, 0 for cells in none.

    ``n = 0`` leaves the number to the rule of `pci_core.analysis.clusters.cut`.

    Raises
    ------
    ParameterError
        The tree does not allow so many.
    """
    return cut(tree, min_size=min_size, n_clusters=n or None)


def branch_agreement(
    adata: anndata.AnnData, phenotype: np.ndarray, images: Sequence[str], *, n: int = 2, min_size: int = 3, linkage: str = "ward"
) -> pd.DataFrame:
    """Compare the branches of each image's dendrogram with the known phenotypes of its cells.

    Parameters
    ----------
    adata : AnnData
        (cells, features).
    phenotype : ndarray of str
        (cells,) from `known_phenotype`; cells without one are clustered but not scored.
    images : sequence of str
        Images to look at; those whose scored cells are of one phenotype are left out.
    n, min_size, linkage
        See `branches` and `cell_tree`.

    Returns
    -------
    DataFrame
        ``image, protein, ari, n_cells, n_phenotypes``; the adjusted Rand index is 1 for the same division and 0 on average for
        random ones. An image that cannot be cut into so many branches counts as one branch.
    """
    x, image = _space(adata), label_text(adata.obs["image"]).to_numpy()
    protein = label_text(adata.obs["protein"]).to_numpy() if "protein" in adata.obs else image
    rows = []
    for name in images:
        own = np.flatnonzero(image == name)
        scored = phenotype[own] != ""
        if len(np.unique(phenotype[own][scored])) < 2:
            continue
        tree = grow(x[own], [str(r) for r in own], linkage=linkage)
        try:
            found = branches(tree, n, min_size=min_size)
        except ParameterError:  # too few cells for so many branches
            found = np.zeros(len(own), np.int64)
        ari = adjusted_rand_score(phenotype[own][scored], found[scored])
        rows.append((name, protein[own[0]], ari, int(scored.sum()), len(np.unique(phenotype[own][scored]))))
    return pd.DataFrame(rows, columns=["image", "protein", "ari", "n_cells", "n_phenotypes"])


def mean_agreement(table: pd.DataFrame, *, draws: int = 1000, seed: int = 0) -> Interval:
    """Return the mean adjusted Rand index over images with its interval over proteins."""
    if not len(table):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    ari = table["ari"].to_numpy()
    return bootstrap(lambda i: float(ari[i].mean()), table["protein"].to_numpy(), draws=draws, seed=seed)


def find_group(obs: pd.DataFrame, name: str) -> tuple[np.ndarray, str]:
    """Return the rows of a protein or image by name, and which of the two it is.

    Raises
    ------
    UnknownNameError
        There is neither, with the nearest names.
    """
    known: list[str] = []
    for column in ("protein", "image"):
        if column in obs:
            text = label_text(obs[column])
            rows = np.flatnonzero((text == name).to_numpy())
            if len(rows):
                return rows, column
            known += sorted(set(text) - {""})
    raise unknown_name("protein or image", name, known)
