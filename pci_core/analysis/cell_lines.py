"""Robustness to the cell line (the paper's table 2), for one feature set or several side by side.

Beyond the paper: how near a protein is to itself in another cell line among all proteins there, and what becomes of
everything once features are centred and scaled within each cell line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
from sklearn.metrics import pairwise_distances

from pci_core.analysis.bootstrap import bootstrap
from pci_core.analysis.distances import (
    ALL_TERMS,
    draw_line_pairs,
    draw_term_pairs,
    image_table,
    interval,
    protein_weights,
    proteins_by_term,
    score_pairs,
    score_terms,
)
from pci_core.analysis.image_distances import mean_distances
from pci_core.analysis.knn import standardise
from pci_core.errors import AnalysisNeedsError, CellTableError

SAME, DIFFERENT, DIFFERENCE = "same cell line", "different cell lines", "difference"
LINES = (SAME, DIFFERENT, DIFFERENCE)
MEDIAN, FIRST, FIVE = "median rank", "nearest is itself", "itself among the five nearest"
SCALINGS = ("over all cells", "within each cell line")

# conv3, conv4, classic, autoencoder, VGG16 on 41,285 images of the Human Protein Atlas: figure 2B (all locations), table 2
_PAPER: dict[str, tuple[float, float, float, float]] = {
    "conv3": (-0.574, -0.4855, -0.3953, 0.0902),
    "conv4": (-0.349, -0.2656, -0.2271, 0.0385),
    "classic": (-0.274, -0.3027, -0.1813, 0.1214),
    "autoencoder": (-0.281, -0.2486, -0.0965, 0.1521),
    "vgg16": (-0.325, -0.2525, -0.1515, 0.1010),
}


@dataclass(frozen=True)
class Robustness:
    """What `robustness` found for one feature set and one scaling.

    Attributes
    ----------
    terms : DataFrame
        Figure 2B, see `pci_core.analysis.distances.score_terms`.
    lines : DataFrame
        Table 2: ``what`` (of `LINES`), ``value, low, high, relative, relative_low, relative_high, same, expected, sd``.
    ranks : DataFrame
        See `line_ranks`.
    nearest : DataFrame
        See `summarise_ranks`.
    """

    terms: pd.DataFrame
    lines: pd.DataFrame
    ranks: pd.DataFrame
    nearest: pd.DataFrame


def paper_distances(features: str) -> dict[str, float]:
    """Return the paper's distances for a feature set of ours: by `ALL_TERMS` and `LINES`; empty where it has none.

    Every ``autoencoder_…`` layer has the paper's autoencoder beside it (it does not say which layer), and of VGG16
    the layer and strategy of its tables.
    """
    name = features.split("+")[0]
    name = "autoencoder" if re.fullmatch(r"autoencoder_conv[1-5]", name) else name
    name = "vgg16" if name == "vgg16_block4_conv1_protein" else name
    return dict(zip((ALL_TERMS, *LINES), _PAPER[name], strict=True)) if name in _PAPER else {}


def robustness(
    adata: anndata.AnnData,
    *,
    label: str = "location",
    line: str = "cell_line",
    min_proteins: int = 3,
    term_pairs: int = 1000,
    line_pairs: int = 10_000,
    within_line: bool = False,
    draws: int = 1000,
    seed: int = 0,
) -> Robustness:
    """Measure how a feature set groups images by location, within and across cell lines.

    Of a cross-validated supervised set only the cells of fold 0 are taken, in the space of the network that never saw
    them: its folds have no common space.

    Parameters
    ----------
    adata : AnnData
        (cells, features); obs has ``image``, ``protein``, `label` and `line`.
    label, line : str
        Columns of the location and of the cell line.
    min_proteins : int
        See `pci_core.analysis.distances.image_table`.
    term_pairs, line_pairs : int
        Pairs drawn: for each term and each of its others; for same and for different cell lines. The same images
        give the same pairs for every feature set.
    within_line : bool
        Centre and scale the features within each cell line instead of over all cells.
    draws, seed : int
        Of the bootstrap; seed also of the pairs.

    Raises
    ------
    AnalysisNeedsError
        Fewer than two terms with enough proteins, or no pairs of the same and of different cell lines.
    CellTableError
        NaN or infinite features.
    """
    adata = _one_space(adata)
    values = np.asarray(adata.X, np.float32)
    if not np.isfinite(values).all():
        bad = list(adata.var_names[~np.isfinite(values).all(0)])
        raise CellTableError(f"{len(bad)} features hold NaN or infinite values, e.g. {bad[:3]}; leave out those columns or cells first.")
    images = image_table(adata, label, min_proteins, line)
    lines = [draw_line_pairs(images, same, line_pairs, seed) for same in (True, False)]
    terms = draw_term_pairs(images, term_pairs, seed)
    x = scaled(values, adata.obs[line].astype(str).to_numpy() if within_line else None)
    code = images.index.get_indexer(adata.obs["image"].astype(str))
    every = pd.concat([terms, *lines], ignore_index=True)
    distance = mean_distances(x, code, every["a"].to_numpy(), every["b"].to_numpy())
    weights = protein_weights(images, draws, seed)
    at = np.cumsum([0, len(terms), *map(len, lines)])
    by_line = _score_lines(lines, [distance[i:j] for i, j in zip(at[1:], at[2:], strict=False)], images, weights)
    ranks = line_ranks(x, images, code)
    return Robustness(score_terms(terms, distance[: at[1]], images, weights), by_line, ranks, summarise_ranks(ranks, draws, seed))


def _one_space(adata: anndata.AnnData) -> anndata.AnnData:
    if "fold" not in adata.obs or "fold_0" not in adata.obsm:
        return adata
    rows = np.flatnonzero(adata.obs["fold"].to_numpy() == 0)
    return anndata.AnnData(np.asarray(adata.obsm["fold_0"])[rows], obs=adata.obs.iloc[rows])


def scaled(x: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Centre and scale features over all cells or, with `groups`, within each group: (cells, features) float32."""
    if groups is None:
        return standardise(x)
    out = np.empty(x.shape, np.float32)
    for group in np.unique(groups):
        out[groups == group] = standardise(x[groups == group])
    return out


def _score_lines(pairs: list[pd.DataFrame], distances: list[np.ndarray], images: pd.DataFrame, weights: np.ndarray) -> pd.DataFrame:
    found = [score_pairs(p, d, images, weights) for p, d in zip(pairs, distances, strict=True)]
    sizes = list(proteins_by_term(images).values())  # each adds to the variance of a mean over all pairs about what its proteins count
    rows = [
        (what, *interval(d.normalised, sizes, sizes), *interval(d.relative, sizes, sizes), d.same, d.expected, d.sd)
        for what, d in zip(LINES, found, strict=False)
    ]
    same, different = found
    rows.append((DIFFERENCE, *interval(different.normalised - same.normalised, sizes, sizes),
                 *interval(different.relative - same.relative, sizes, sizes),
                 np.nan, np.nan, np.nan))  # fmt: skip
    columns = ["what", "value", "low", "high", "relative", "relative_low", "relative_high", "same", "expected", "sd"]
    return pd.DataFrame(rows, columns=columns)


# --- ranks


def line_ranks(x: np.ndarray, images: pd.DataFrame, code: np.ndarray) -> pd.DataFrame:
    """Rank every protein of another cell line by its distance to a protein, and say where the protein itself stands.

    Distances are those of the means of the cells of a protein and line; all proteins take part, those of several
    locations too.

    Parameters
    ----------
    x : ndarray
        (cells, features), standardised.
    images : DataFrame
        From `pci_core.analysis.distances.image_table`.
    code : ndarray of int
        (cells,) row of `images`, -1 for none.

    Returns
    -------
    DataFrame
        One row a protein, its line and another line that has it: ``protein, location, cell_line, other_line, rank`` (1 =
        nearest; ties share the middle), ``n_candidates, n_same_location`` (both with the protein itself).

    Raises
    ------
    AnalysisNeedsError
        No protein is there in two cell lines.
    """
    used = np.flatnonzero((code >= 0) & (images["cell_line"].to_numpy(str) != "")[code])
    keys = images[["cell_line", "protein"]].astype(str)
    group = keys.groupby(["cell_line", "protein"], sort=True).ngroup().to_numpy()[code[used]]
    names = keys.drop_duplicates().sort_values(["cell_line", "protein"])
    sums = np.zeros((len(names), x.shape[1]))
    np.add.at(sums, group, x[used])
    size = np.bincount(group, minlength=len(names))
    keep = size > 0
    means, names = sums[keep] / size[keep, None], names[keep]
    line, protein = names["cell_line"].to_numpy(str), names["protein"].to_numpy(str)
    place = images.drop_duplicates("protein").set_index("protein")["location"].reindex(protein).to_numpy(str)
    out = []
    for one in np.unique(line):
        for other in np.unique(line):
            mine, theirs = np.flatnonzero(line == one), np.flatnonzero(line == other)
            shared, i, j = np.intersect1d(protein[mine], protein[theirs], return_indices=True)
            if one == other or not len(shared):
                continue
            distance = pairwise_distances(means[mine[i]], means[theirs])
            own = distance[np.arange(len(i)), j][:, None]
            rank = (distance < own).sum(1) + ((distance == own).sum(1) + 1) / 2
            alike = (place[mine[i]][:, None] == place[theirs]).sum(1)
            columns = {"protein": shared, "location": place[mine[i]], "cell_line": one, "other_line": other, "rank": rank}
            out.append(pd.DataFrame(columns | {"n_candidates": len(theirs), "n_same_location": alike}))
    if not out:
        raise AnalysisNeedsError(
            "ranking proteins across cell lines needs a protein with images in two cell lines; no protein of these "
            f"{len(images):,} images has them."
        )
    return pd.concat(out, ignore_index=True)


def summarise_ranks(ranks: pd.DataFrame, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Say in three numbers how near proteins are to themselves in another cell line.

    Parameters
    ----------
    ranks : DataFrame
        From `line_ranks`.
    draws, seed : int
        Of the bootstrap over proteins. The candidates stay what they are.

    Returns
    -------
    DataFrame
        ``what, value, low, high, chance, location_only, n_proteins``. `chance`: of an order drawn at random;
        `location_only`: of one that puts the proteins of the same location first, in random order.
    """
    rank, n, alike = (ranks[c].to_numpy(float) for c in ("rank", "n_candidates", "n_same_location"))
    groups = ranks["protein"].to_numpy(str)
    rows = []
    for what, statistic in ((MEDIAN, lambda r: float(np.median(rank[r]))), (FIRST, lambda r: float((rank[r] < 2).mean())),
                            (FIVE, lambda r: float((rank[r] < 6).mean()))):  # fmt: skip
        at = bootstrap(statistic, groups, draws=draws, seed=seed)
        k = {FIRST: 1, FIVE: 5}.get(what)
        chance, known = ((np.minimum(k, m) / m).mean() if k else np.median((m + 1) / 2) for m in (n, alike))
        rows.append((what, at.value, at.low, at.high, chance, known, at.n_groups))
    return pd.DataFrame(rows, columns=["what", "value", "low", "high", "chance", "location_only", "n_proteins"])


# --- feature sets side by side


def side_by_side(found: Mapping[str, Mapping[str, Robustness]]) -> pd.DataFrame:
    """Put feature sets beside one another.

    Parameters
    ----------
    found : mapping
        By feature set, then by scaling (of `SCALINGS`), what `robustness` returned.

    Returns
    -------
    DataFrame
        ``features, scaled, what, value, low, high, paper, relative, chance, location_only``; `what` is `ALL_TERMS`, one of
        `LINES`, or a number of `summarise_ranks`. The paper's figures stand where features are scaled as it did.
    """
    rows = []
    for name, scalings in found.items():
        for scaling, r in scalings.items():
            paper = paper_distances(name) if scaling == SCALINGS[0] else {}
            overall = r.terms[r.terms["term"] == ALL_TERMS].rename(columns={"term": "what", "normalised": "value"})
            table = pd.concat([overall, r.lines, r.nearest], ignore_index=True)
            rows.append(table.assign(features=name, scaled=scaling, paper=table["what"].map(paper).astype(float)))
    columns = ["features", "scaled", "what", "value", "low", "high", "paper", "relative", "chance", "location_only"]
    return pd.concat(rows, ignore_index=True)[columns]


def laid_out(table: pd.DataFrame, whats: tuple[str, ...] = LINES) -> pd.DataFrame:
    """Lay out rows of `side_by_side` for reading: a row a feature set and scaling, the paper's figures in columns of their own."""
    part = table[table["what"].isin(whats)]
    digits = part["what"].map({MEDIAN: 1}).fillna(2 if set(whats) <= {FIRST, FIVE, MEDIAN} else 3).astype(int)
    texts = []
    for d, value, low, high in zip(digits, part["value"], part["low"], part["high"], strict=True):
        texts.append(f"{value:.{d}f} ({low:.{d}f} to {high:.{d}f})" if low == low else f"{value:.{d}f}")
    order = ["features", "scaled"]
    wide = part.assign(text=texts).pivot(index=order, columns="what", values="text")[list(whats)]
    paper = part.pivot(index=order, columns="what", values="paper").reindex(columns=list(whats)).dropna(how="all", axis=1)
    for what in paper:
        wide[f"{what}, paper (other cells)"] = paper[what].map(lambda v: "" if v != v else f"{v:.3f}")
    rows = part.drop_duplicates(order).set_index(order).index
    return wide.loc[rows].rename_axis(columns=None)
