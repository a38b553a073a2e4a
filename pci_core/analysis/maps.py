"""Protein maps of several experiments, and how far they agree (the paper's figure 3 shows them and gives no number).

Experiments that show the same cells agree for that reason alone. `halves` deals the fields of view out to two halves
that are the same in every experiment, so that maps of different halves have no cell in common; two halves of one
experiment show how much agreement the number of cells allows at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anndata
import numpy as np
import pandas as pd

from pci_core.analysis.agreement import LEAST_CLASSES, Pairs, class_correlation, neighbourhood_overlap, overlap_by_protein
from pci_core.analysis.embed import umap
from pci_core.analysis.knn import standardise
from pci_core.errors import AnalysisNeedsError, CellTableError, unknown_name
from pci_core.features import aggregate

OVERLAP, CORRELATION = "neighbourhood overlap", "correlation of class distances"
ALL_CELLS, DISJOINT = "all cells", "no cell in common"
_LEAST_PROTEINS = 5
_COLUMNS = (
    "first",
    "second",
    "cells",
    "measure",
    "value",
    "low",
    "high",
    "chance",
    "chance_high",
    "p",
    "p_within",
    "n_proteins",
    "n_classes",
)
NO_MAPS = pd.DataFrame(columns=list(_COLUMNS))  # what `compare_maps` returns where there is nothing to compare


def protein_means(adata: anndata.AnnData, label: str = "location") -> anndata.AnnData:
    """Average the cells of each protein, then centre and scale each feature over the proteins.

    Of a cross-validated supervised set, the cells of fold 0 in the space of the network that never saw them.

    Parameters
    ----------
    adata : AnnData
        (cells, features); obs has ``protein``.
    label : str
        Column of the class.

    Returns
    -------
    AnnData
        (proteins, features) float32, sorted by name; obs: ``n_cells`` and `label`, empty where the cells of a protein
        differ in it or there is no such column.

    Raises
    ------
    UnknownNameError
        No column ``protein``.
    CellTableError
        NaN or infinite features.
    """
    if "fold" in adata.obs and "fold_0" in adata.obsm:
        rows = np.flatnonzero(adata.obs["fold"].to_numpy() == 0)
        adata = anndata.AnnData(np.asarray(adata.obsm["fold_0"])[rows], obs=adata.obs.iloc[rows])
    if "protein" not in adata.obs:
        raise unknown_name("column", "protein", adata.obs.columns)
    means = aggregate(anndata.AnnData(adata.X, obs=adata.obs[["protein"]], var=adata.var), by="protein")  # other columns would cost time
    if not np.isfinite(means.X).all():
        bad = list(means.var_names[~np.isfinite(means.X).all(0)])
        raise CellTableError(f"{len(bad)} features hold NaN or infinite values, e.g. {bad[:3]}; leave out those columns or cells first.")
    means.X = standardise(np.asarray(means.X))
    means.obs = means.obs[["n_cells"]].assign(**{label: ""})
    if label in adata.obs:
        named = adata.obs[label].astype(str).groupby(adata.obs["protein"].astype(str))
        means.obs[label] = named.first().where(named.nunique() == 1, "").reindex(means.obs_names).to_numpy()
    return means


def shown_classes(labels: Sequence[str] | np.ndarray, most: int = 34) -> np.ndarray:
    """Return the labels as they are coloured: several locations joined by ``;`` become empty (drawn in grey).

    A colour for the first of several locations would say of a protein what is half of the truth. Of more classes
    than can be told apart, the most frequent are kept.
    """
    text = np.array([("" if ";" in t else t) for t in np.asarray(labels).astype(str)], object)
    names, counts = np.unique(text[text != ""].astype(str), return_counts=True)
    kept = names[np.argsort(-counts, kind="stable")[:most]]
    return np.where(np.isin(text.astype(str), kept), text, "").astype(str)


def require_proteins(proteins: Sequence[str] | pd.Index | pd.Series, n_neighbors: int) -> None:
    """Raise `AnalysisNeedsError` unless there are more proteins than neighbours on a map; empty names do not count."""
    n = len(set(map(str, proteins)) - {""})
    if n <= n_neighbors:
        raise AnalysisNeedsError(
            f"a map with {n_neighbors} neighbours needs more than {n_neighbors} proteins, found {n}. "
            "Choose a smaller n_neighbors, or take more proteins."
        )


def lay_out(means: anndata.AnnData, *, n_neighbors: int = 20, min_dist: float = 0.3, seed: int = 0) -> np.ndarray:
    """Lay proteins out in a plane by UMAP, with the paper's parameters for proteins: (proteins, 2) float32.

    Raises
    ------
    AnalysisNeedsError
        No more proteins than neighbours.
    """
    require_proteins(means.obs_names, n_neighbors)
    return umap(means, n_neighbors=n_neighbors, min_dist=min_dist, seed=seed)


def example_rows(table: pd.DataFrame, label: str, wanted: str = "", n: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    """Choose cells to show for some classes, one a protein as far as they go.

    Parameters
    ----------
    table : DataFrame
        Of cells; without a column `label` there are no examples.
    label : str
    wanted : str
        Classes with commas between them; upper and lower case do not matter. Empty, or none of them there: the three with
        most proteins.
    n : int
        Cells of each.
    seed : int

    Returns
    -------
    dict of str to ndarray
        Row numbers by class, as the class is written in the table; classes that are not there are left out.
    """
    if label not in table:
        return {}
    terms, protein = table[label].astype(str).to_numpy(), table["protein"].astype(str).to_numpy()
    sizes = pd.Series(protein).groupby(terms).nunique().sort_values(ascending=False, kind="stable")
    known = {t.lower(): t for t in sizes.index if t and ";" not in t}
    asked = [known[w.strip().lower()] for w in wanted.split(",") if w.strip().lower() in known]
    rng, out = np.random.default_rng(seed), {}
    for term in asked or list(known.values())[:3]:
        rows = rng.permutation(np.flatnonzero(terms == term))
        turn = pd.Series(protein[rows]).groupby(protein[rows]).cumcount().to_numpy()
        out[term] = rows[np.argsort(turn, kind="stable")][:n]
    return out


def match(maps: Mapping[str, anndata.AnnData]) -> dict[str, anndata.AnnData]:
    """Keep the proteins that are in every map, in the same order.

    Raises
    ------
    AnalysisNeedsError
        Fewer than five.
    """
    shared = sorted(set.intersection(*(set(m.obs_names) for m in maps.values())))
    if len(shared) < _LEAST_PROTEINS:
        seen = "; ".join(f"{name}: {', '.join(m.obs_names[:3])} …" for name, m in maps.items())
        raise AnalysisNeedsError(
            f"comparing maps needs at least {_LEAST_PROTEINS} proteins that are in all of them, found {len(shared)} ({seen}). Name "
            "the proteins alike in the field tables, or leave an experiment out of modalities."
        )
    return {name: m[shared].copy() for name, m in maps.items()}


def halves(cells: Mapping[str, anndata.AnnData]) -> dict[str, tuple[anndata.AnnData, anndata.AnnData]]:
    """Deal the fields of view of every protein out to two halves, the same in every experiment.

    Parameters
    ----------
    cells : mapping of str to AnnData
        (cells, features) of each experiment; obs has ``protein`` and ``field``. Fields of one name count as the same
        cells. Proteins with a single field are in the first half only.

    Raises
    ------
    UnknownNameError
        No column ``field``.
    """
    for adata in cells.values():
        if "field" not in adata.obs:
            raise unknown_name("column", "field", adata.obs.columns)
    fields = (
        pd.concat([a.obs[["protein", "field"]].astype(str) for a in cells.values()]).drop_duplicates().sort_values(["protein", "field"])
    )
    turn = fields.groupby("protein").cumcount() % 2
    half = dict(zip(zip(fields["protein"], fields["field"], strict=True), turn, strict=True))
    out = {}
    for name, adata in cells.items():
        of = np.array([half[key] for key in zip(adata.obs["protein"].astype(str), adata.obs["field"].astype(str), strict=True)])
        out[name] = (adata[of == 0], adata[of == 1])
    return out


# --- all maps


def compare_maps(
    cells: Mapping[str, anndata.AnnData], *, label: str = "location", k: int = 5, permutations: int = 1000, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Measure the agreement of every two maps, and of the two halves of each.

    Parameters
    ----------
    cells : mapping of str to AnnData
        (cells, features) of each experiment, by the name it is shown under; obs has ``protein`` and, for the halves,
        ``field``. Feature sets may differ: only distances within a map are used.
    label : str
        Column of the class. A protein counts to the class it has in the first experiment; several locations to none.
    k : int
        Neighbours.
    permutations, draws, seed : int

    Returns
    -------
    DataFrame
        ``first, second, cells, measure, value, low, high, chance, chance_high, p, p_within, n_proteins, n_classes``. `cells` is
        `ALL_CELLS` or `DISJOINT` (each protein from one half of its fields here and the other half there, both ways round;
        `first` = `second` is the two halves of one experiment). `p_within`: proteins exchanged within classes only. No row
        where there are too few fields or classes.
    """
    kinds = {ALL_CELLS: {name: [protein_means(a, label)] for name, a in cells.items()}}
    if all("field" in a.obs for a in cells.values()):
        kinds[DISJOINT] = {name: [protein_means(h, label) for h in both if h.n_obs] for name, both in halves(cells).items()}
    names, rows = list(cells), []
    for kind, maps in kinds.items():
        flat = {f"{name} {i}": m for name, parts in maps.items() for i, m in enumerate(parts)}
        if kind == DISJOINT and (len(flat) < 2 * len(names) or len(set.intersection(*(set(m.obs_names) for m in flat.values()))) < k + 2):
            continue  # one field a protein: there are no halves
        flat = match(flat)
        labels = shown_classes(flat[f"{names[0]} 0"].obs[label], most=len(flat[f"{names[0]} 0"]))
        x = {name: np.asarray(m.X) for name, m in flat.items()}
        for i, one in enumerate(names):
            for other in names[i + (kind == ALL_CELLS) :]:
                ways = [(0, 0)] if kind == ALL_CELLS else [(0, 1)] if one == other else [(0, 1), (1, 0)]
                pairs = [(x[f"{one} {a}"], x[f"{other} {b}"]) for a, b in ways]
                rows += _rows((one, other, kind), pairs, labels, k, permutations, draws, seed)
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _rows(
    key: tuple[str, str, str], pairs: Pairs, labels: np.ndarray, k: int, permutations: int, draws: int, seed: int
) -> list[tuple[object, ...]]:
    several, n = len(set(labels[labels != ""])), len(labels)
    o = neighbourhood_overlap(pairs, k, permutations=permutations, draws=draws, seed=seed)
    # a protein without a class of its own could be exchanged with unlike ones, so it stays where it is
    own = np.where(labels == "", np.arange(n).astype(str), labels)
    inside = neighbourhood_overlap(pairs, k, within=own, permutations=permutations, draws=0, seed=seed).p
    out: list[tuple[object, ...]] = [(*key, OVERLAP, o.value, o.low, o.high, o.chance, o.chance_high, o.p, inside, n, several)]
    if several >= LEAST_CLASSES:
        c = class_correlation(pairs, labels, permutations=permutations, draws=draws, seed=seed)
        out.append((*key, CORRELATION, c.value, c.low, c.high, c.chance, c.chance_high, c.p, np.nan, n, several))
    return out


def overlap_curve(cells: Mapping[str, anndata.AnnData], ks: Sequence[int]) -> pd.DataFrame:
    """Return the neighbourhood overlap of every two maps for several numbers of neighbours: ``first, second, k, value, chance``."""
    maps = {name: np.asarray(m.X) for name, m in match({name: protein_means(a) for name, a in cells.items()}).items()}
    n = len(next(iter(maps.values())))
    rows = []
    for i, one in enumerate(maps):
        for other in list(maps)[i + 1 :]:
            for k in (k for k in ks if 1 <= k <= n - 2):
                rows.append((one, other, k, float(overlap_by_protein([(maps[one], maps[other])], k).mean()), k / (n - 1)))
    return pd.DataFrame(rows, columns=["first", "second", "k", "value", "chance"])
