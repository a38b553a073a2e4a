"""Subclasses within one annotated location: do features see more than the annotation tells?

The paper clusters the proteins annotated as vesicles only (supplementary figure 4), and the punctate ones of a yeast
library (supplementary figure 5), with features centred and scaled over all proteins, and shows three clusters of each.
It has no score. Here clusters are cut by the rule of `pci_core.analysis.clusters` and compared with what is known:
the subclasses that simulated vesicles were drawn in, or, where a class is made of several locations, these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from pci_core.analysis import trees
from pci_core.analysis.bootstrap import bootstrap
from pci_core.analysis.clusters import cut
from pci_core.analysis.knn import standardise
from pci_core.analysis.neighbours import locations
from pci_core.errors import AnalysisNeedsError, ParameterError
from pci_core.features import aggregate

PUNCTATE = ("Golgi", "peroxisome", "endosome", "actin")  # yeast locations that look like dots
DEFAULTS: dict[str, tuple[tuple[str, ...], ...]] = {"hsapiens": (("Vesicles",),), "scerevisiae": (("punctate",), PUNCTATE)}


@dataclass(frozen=True)
class Subclasses:
    """Members of a class, clustered; made by `cluster`.

    Attributes
    ----------
    rows : AnnData
        (members, features): means of each protein, image or field, centred and scaled over *all* of the data set; obs
        has ``protein``, ``location``, ``n_cells``, ``truth`` ("" where unknown) and ``cluster`` (0 = in none).
    tree : Tree
        Of these rows.
    level : str
        What a row is: ``"protein"``, ``"image"`` or ``"field"``.
    min_size : int
        Fewest rows of a cluster.
    """

    rows: anndata.AnnData
    tree: trees.Tree
    level: str
    min_size: int

    @property
    def labels(self) -> np.ndarray:
        """Cluster of each row, from 1 along the dendrogram; 0 = in none."""
        out: np.ndarray = self.rows.obs["cluster"].to_numpy()
        return out

    def members(self) -> dict[str, list[str]]:
        """Return the proteins of each cluster, by its number as text; a protein whose rows lie in two is in both."""
        proteins = self.rows.obs["protein"].to_numpy(str)
        return {str(c): list(dict.fromkeys(proteins[self.labels == c])) for c in range(1, int(self.labels.max()) + 1)}


def class_terms(cells: anndata.AnnData, location: str | None, organism: str = "", column: str = "location") -> list[str]:
    """Return the locations that make up the class.

    Parameters
    ----------
    cells : AnnData
    location : str, optional
        Terms with commas between them. By default ``Vesicles`` for human cells; for yeast ``punctate`` where the table has
        it, else Golgi, peroxisome, endosome and actin.
    organism : str
        Of the recipe.
    column : str

    Raises
    ------
    AnalysisNeedsError
        A term that no protein has alone; the message names those there are.
    ParameterError
        No term at all.
    """
    counts = locations(cells, column).value_counts()
    counts = counts[[bool(t) and ";" not in t for t in counts.index]]
    held = ", ".join(f"{t} ({n})" for t, n in counts.items()) or "none"
    if location is None:
        for usual in DEFAULTS.get(organism, ()):
            if set(usual) <= set(counts.index):
                return list(usual)
        wanted = " or ".join(", ".join(t) for t in DEFAULTS.get(organism, ())) or "a location"
        raise AnalysisNeedsError(
            f"subclasses are looked for within the proteins of one location ({wanted} by default), which these cells lack. Locations of "
            f"one term, with the number of proteins: {held}. Choose with -p location."
        )
    terms = list(dict.fromkeys(t.strip() for t in location.split(",") if t.strip()))
    if not terms:
        raise ParameterError("no location: give a term, or several with commas between them, e.g. location='Golgi,peroxisome'.")
    missing = [t for t in terms if t not in counts.index]
    if missing:
        raise AnalysisNeedsError(
            f"no protein has the location '{missing[0]}' alone. Locations of one term, with the number of proteins: {held}."
        )
    return terms


def members(cells: anndata.AnnData, terms: Sequence[str], column: str = "location") -> np.ndarray:
    """Tell which cells are of proteins whose only location is one of the terms: (cells,) bool.

    Raises
    ------
    AnalysisNeedsError
        Fewer than two such proteins.
    """
    places = locations(cells, column)
    chosen = places.index[places.isin(list(terms))]
    if len(chosen) < 2:
        raise AnalysisNeedsError(
            f"subclasses need at least two proteins of the class; of {', '.join(terms)} alone there is {len(chosen)} "
            f"({', '.join(chosen)}). Take another location, or cells with more of its proteins."
        )
    out: np.ndarray = cells.obs["protein"].astype(str).isin(chosen).to_numpy()
    return out


def levels(cells: anndata.AnnData) -> list[str]:
    """Return what can be clustered: proteins, and images; fields where each protein has one image only."""
    n = cells.obs["protein"].nunique()
    finer = [c for c in ("image", "field") if c in cells.obs and cells.obs[c].nunique() > n]
    return ["protein", *finer[:1]]


def truth(cells: anndata.AnnData, terms: Sequence[str], column: str = "location") -> tuple[pd.Series, str]:
    """Return the known subclass of each protein of the class, and in words what it is.

    Parameters
    ----------
    cells : AnnData
        Those of the class.
    terms : sequence of str
        Its locations. Several are the subclasses themselves; within one, what the simulation drew is.
    column : str

    Returns
    -------
    Series of str and str
        By protein; empty texts, and an empty word, where nothing is known.
    """
    names = np.unique(cells.obs["protein"].astype(str))
    if len(terms) > 1:
        return locations(cells, column).loc[names], "location"
    known = pd.Series("", index=names)
    if "sim_subclass" in cells.obs:
        drawn = cells.obs[["protein", "sim_subclass"]].astype(str)
        drawn = drawn[drawn["sim_subclass"] != ""].groupby("protein")["sim_subclass"].agg(lambda s: s.value_counts().index[0])
        known.update(drawn)
    return (known, "simulated subclass") if known.nunique() > 1 else (pd.Series("", index=names), "")


def cluster(
    cells: anndata.AnnData,
    terms: Sequence[str],
    by: str = "protein",
    *,
    linkage: str = "average",
    metric: str = "correlation",
    min_size: int | None = None,
    n_clusters: int | None = None,
    within: str | None = None,
    column: str = "location",
) -> Subclasses:
    """Average the cells of a class by protein (or image, or field), and cut their dendrogram into clusters.

    Parameters
    ----------
    cells : AnnData
        (cells, features) of the whole data set: features are scaled over all of it, as in the paper.
    terms : sequence of str
        Locations of the class, see `class_terms`.
    by : str
        ``"protein"``, or a column of smaller units that each have one protein.
    linkage, metric : str
        See `pci_core.analysis.trees.grow`.
    min_size : int, optional
        Fewest rows of a cluster; by default a fifth of the rows, at least 2 and at most 5.
    n_clusters : int, optional
        So many clusters; by default the rule of `pci_core.analysis.clusters.cut` chooses.
    within : str, optional
        Column within whose values features are centred and scaled, e.g. ``cell_line``: else images of one cell line come
        together before those of one subclass do. Without effect on proteins, which are means over cell lines, and where
        a value has fewer than three rows.
    column : str

    Returns
    -------
    Subclasses

    Raises
    ------
    AnalysisNeedsError
        Fewer than two proteins of the class.
    ParameterError
        A size or number of clusters that the dendrogram does not allow.
    """
    inside = members(cells, terms, column)
    unit = "protein" if by == "protein" else "_unit"
    every = cells.obs[["protein"]].astype(str)
    if by != "protein":
        names = cells.obs[by].astype(str)
        every[unit] = [n if n.startswith(p) else f"{p} {n}" for p, n in zip(every["protein"], names, strict=True)]
        every.loc[every["protein"] == "", unit] = ""
    every["part"] = cells.obs[within].astype(str) if within in cells.obs else ""
    means = aggregate(anndata.AnnData(cells.X, obs=every, var=cells.var), by=unit)
    means.X = _scaled(np.asarray(means.X), means.obs["part"].to_numpy(str) if by != "protein" and "part" in means.obs else None)
    means = means[np.isin(means.obs_names, np.unique(every.loc[inside, unit]))].copy()
    proteins = means.obs["protein"].astype(str)
    means.obs["location"] = locations(cells, column).loc[proteins].to_numpy()
    means.obs["truth"] = truth(cells[inside], terms, column)[0].loc[proteins].to_numpy()
    size = max(2, min(5, len(means) // 5)) if min_size is None else min_size
    tree = trees.grow(means.X, means.obs_names, linkage=linkage, metric=metric)
    means.obs["cluster"] = cut(tree, min_size=size, n_clusters=n_clusters)
    return Subclasses(means, tree, by, size)


def _scaled(x: np.ndarray, part: np.ndarray | None) -> np.ndarray:
    """Centre and scale over all rows, or over those of each part where all of these have three or more."""
    names, code, counts = np.unique([""] * len(x) if part is None else part, return_inverse=True, return_counts=True)
    if len(names) < 2 or counts.min() < 3:
        return standardise(x)
    out = np.empty(x.shape, np.float32)
    for i in range(len(names)):
        out[code == i] = standardise(x[code == i])
    return out


# --- scores


def recovery(found: Subclasses, *, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Tell how well clusters, and nearest neighbours, find the known subclasses.

    Rows of one protein share subclass, antibody and picture, so that agreement among them says nothing: pairs of rows
    of one protein are not counted, nearest rows are those of another protein, and proteins, not rows, are drawn and dealt.

    Parameters
    ----------
    found : Subclasses
        Rows without a known subclass are left out.
    draws, seed : int
        Of the bootstrap over proteins, and of the dealings of subclasses among proteins that tell what chance gives.

    Returns
    -------
    DataFrame
        Rows ``adjusted Rand index`` (0 chance, 1 the same grouping; a row in no cluster is one by itself), ``purity``
        (share of rows whose subclass is the most frequent one of their cluster; none in a cluster is a miss) and ``nearest``
        (share of rows whose nearest row of another protein is of their subclass, whatever the clusters). Columns
        ``value, low, high, chance, chance_high`` (which one dealing in twenty exceeds), ``p, n_rows, n_proteins``.

    Raises
    ------
    AnalysisNeedsError
        Fewer than two subclasses are known.
    """
    obs = found.rows.obs
    known = (obs["truth"] != "").to_numpy()
    names, kind = np.unique(obs["truth"].to_numpy(str)[known], return_inverse=True)
    if len(names) < 2:
        raise AnalysisNeedsError("recovery of subclasses needs two that are known; these cells have none.")
    proteins, group = np.unique(obs["protein"].to_numpy(str)[known], return_inverse=True)
    label = found.labels[known]
    code = np.unique(np.where(label > 0, label, -1 - np.arange(len(label))), return_inverse=True)[1]
    near = _nearest(np.asarray(found.rows.X)[known], group, found.tree.metric)
    of_protein = np.zeros(len(proteins), np.int64)
    of_protein[group] = kind
    rng = np.random.default_rng(seed)
    dealt = [rng.permutation(of_protein)[group] for _ in range(draws)]
    ones = np.ones(len(code))
    fits = {"purity": lambda t: (label > 0) & (t == _majority(code, t)), "nearest": lambda t: t[near] == t}
    rows = []
    for what in ("adjusted Rand index", *fits):
        if what in fits:
            right = fits[what](kind)
            interval = bootstrap(lambda r, v=right: float(v[r].mean()), group, draws=draws, seed=seed)  # type: ignore[misc]
            chance = np.array([fits[what](t).mean() for t in dealt])
        else:
            interval = bootstrap(
                lambda r: between_rand(code, kind, group, np.bincount(r, minlength=len(code))), group, draws=draws, seed=seed
            )
            chance = np.array([between_rand(code, t, group, ones) for t in dealt])
        chance = chance[np.isfinite(chance)]
        p = (1 + (chance >= interval.value - 1e-9).sum()) / (1 + len(chance))
        high = np.quantile(chance, 0.95) if len(chance) else np.nan
        mean = chance.mean() if len(chance) else np.nan
        rows.append((what, interval.value, interval.low, interval.high, mean, high, p, len(code), len(proteins)))
    return pd.DataFrame(rows, columns=["what", "value", "low", "high", "chance", "chance_high", "p", "n_rows", "n_proteins"])


def between_rand(a: np.ndarray, b: np.ndarray, group: np.ndarray, weight: np.ndarray) -> float:
    """Return the adjusted Rand index over pairs of rows of different groups.

    Parameters
    ----------
    a, b, group : ndarray of int
        (rows,) two groupings to compare, and which rows belong together; `b` has one value in each group.
    weight : ndarray
        (rows,) how often each counts.

    Returns
    -------
    float
        With every row a group of its own and all weights one, what scikit-learn's ``adjusted_rand_score`` gives; NaN where
        both groupings are trivial.
    """
    w = np.asarray(weight, float)

    def pairs(*codes: np.ndarray) -> float:  # ordered pairs that share all codes, those of one group not counted
        cell = np.ravel_multi_index(codes, [int(c.max()) + 1 for c in codes]) if codes else np.zeros(len(w), np.int64)
        own = cell * (int(group.max()) + 1) + group
        return float((_sums(cell, w) ** 2).sum() - (_sums(own, w) ** 2).sum())

    together, in_a, in_b, every = pairs(a, b), pairs(a), pairs(b), pairs()
    expected = in_a * in_b / every if every else np.nan
    most = (in_a + in_b) / 2
    return (together - expected) / (most - expected) if most != expected else np.nan


def _sums(code: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.bincount(np.unique(code, return_inverse=True)[1], weight)


def _majority(code: np.ndarray, values: np.ndarray) -> np.ndarray:
    counts = np.zeros((code.max() + 1, values.max() + 1))
    np.add.at(counts, (code, values), 1)
    return np.asarray(counts.argmax(axis=1)[code])


def _nearest(x: np.ndarray, group: np.ndarray, metric: str) -> np.ndarray:
    """Return the nearest row of another group of each row: (rows,)."""
    distance = cdist(x, x, metric)
    distance[group[:, None] == group[None]] = np.inf
    return np.asarray(distance.argmin(axis=1))
