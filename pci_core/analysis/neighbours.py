"""Proteins like a known one, nearest in the dendrogram and in feature distance; `pci_core.analysis.retrieval` scores them.

*Nearest in the dendrogram* is: in the order of the height at which a protein's branch joins the query's (their
lowest common ancestor). All proteins of one branch join the query at one height; among these the feature distance
to the query decides. Standing side by side in the picture of a dendrogram means less: branches can be turned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from pci_core.analysis import trees
from pci_core.analysis.knn import constant_features, standardise
from pci_core.errors import AnalysisNeedsError, CellTableError, ParameterError, unknown_name
from pci_core.reading import is_file, read_csv, refusing

METHODS = ("dendrogram", "euclidean", "correlation")
COMBINE = ("mean", "nearest")
ATLAS = "https://www.proteinatlas.org"
PAPER_QUERY = "MKI67"
_MADE_UP = re.compile(r"SIM[HY]\d{4}")  # names that the simulators invent once their catalogue of real ones is used up


@dataclass(frozen=True)
class Space:
    """Proteins in feature space with their dendrogram; made by `space`.

    Attributes
    ----------
    names : tuple of str
        Proteins.
    values : ndarray
        (proteins, features) float32 means, centred and scaled to unit variance over proteins.
    tree : Tree
    gaps : ndarray
        (proteins - 1,) height of the branch that joins each two leaves that stand side by side.
    """

    names: tuple[str, ...]
    values: np.ndarray
    tree: trees.Tree
    gaps: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def methods(self) -> list[str]:
        """Return the ways to search that these features allow; a correlation needs three that are not constant."""
        return [m for m in METHODS if m != "correlation" or (~constant_features(self.values)).sum() > 2]

    def heights(self, row: int) -> np.ndarray:
        """Return the height of each protein's lowest common ancestor with one: (proteins,) float64, 0 for itself."""
        at = int(self.tree.place()[row])
        out = np.zeros(len(self))  # by place: the highest gap between the two is where they join
        out[at + 1 :] = np.maximum.accumulate(self.gaps[at:])
        out[:at] = np.maximum.accumulate(self.gaps[:at][::-1])[::-1]
        result: np.ndarray = out[self.tree.place()]
        return result

    def between(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the heights at which some proteins join each other: (rows, rows) float64."""
        return np.array([self.heights(int(r))[np.asarray(rows)] for r in rows])

    def distances(self, row: int, metric: str) -> np.ndarray:
        """Return the feature distance of each protein to one: (proteins,) float64."""
        out: np.ndarray = cdist(self.values[row : row + 1], self.values, metric)[0]
        return out

    def keys(self, row: int, method: str) -> tuple[np.ndarray, np.ndarray]:
        """Return what proteins are ordered by, seen from one: height or 0, then feature distance; each (proteins,)."""
        if method not in METHODS:
            raise unknown_name("way to search", method, METHODS)
        if method == "dendrogram":
            return self.heights(row), self.distances(row, self.tree.metric)
        return np.zeros(len(self)), self.distances(row, method)


def space(proteins: anndata.AnnData, *, linkage: str = "average", metric: str = "correlation") -> Space:
    """Centre and scale the features of proteins and grow their dendrogram.

    Parameters
    ----------
    proteins : AnnData
        (proteins, features), see `pci_core.features.aggregate`.
    linkage, metric : str
        Of the dendrogram, see `pci_core.analysis.trees.grow`; by default as in `pci_core.analysis.clusters`.

    Returns
    -------
    Space

    Raises
    ------
    CellTableError
        Fewer than two proteins, or values that are not finite.
    UnknownNameError
        No such linkage or metric.
    """
    values = standardise(np.asarray(proteins.X))
    tree = trees.grow(values, list(proteins.obs_names), linkage=linkage, metric=metric)
    gaps = np.zeros(len(tree) - 1)
    first, last = [*tree.place()], [*tree.place()]  # of the leaves below each node
    for a, b, height in tree.merges[:, :3]:
        a, b = sorted((int(a), int(b)), key=first.__getitem__)
        gaps[last[a]] = height
        first.append(first[a])
        last.append(last[b])
    return Space(tree.names, values, tree, gaps)


def find(names: Sequence[str], query: str | Sequence[str]) -> np.ndarray:
    """Return the rows of the proteins asked for, in the order asked for.

    Parameters
    ----------
    names : sequence of str
        Proteins.
    query : str or sequence of str
        Names, with commas between them. Upper and lower case are the same where that leaves one protein only.

    Raises
    ------
    UnknownNameError
        A protein that is not there; the nearest names are given.
    AnalysisNeedsError
        The paper's own query, ``MKI67``, is not there.
    ParameterError
        No name at all.
    """
    wanted = [q.strip() for q in (query.split(",") if isinstance(query, str) else query)]
    wanted = list(dict.fromkeys(q for q in wanted if q))
    if not wanted:
        raise ParameterError("no query protein: give a name, or several with commas between them, e.g. query='NCL,EN1'.")
    upper = pd.Series(range(len(names)), [n.upper() for n in names])
    out = []
    for name in wanted:
        same = [i for i, n in enumerate(names) if n == name] or np.atleast_1d(upper.get(name.upper(), [])).tolist()
        if len(same) != 1:
            if name == PAPER_QUERY:
                held = ", ".join(sorted(names)[:5])
                raise AnalysisNeedsError(
                    f"the search starts from a known protein, {PAPER_QUERY} by default, which is not among these {len(names)} "
                    f"(there is e.g. {held}). Give one of yours and the location to score: -p query NAME -p term LOCATION."
                )
            raise unknown_name("query protein", name, sorted(names, key=lambda n: n.upper() != name.upper()))
        out += [i for i in same if i not in out]
    return np.array(out, np.int64)


def ranks(space: Space, rows: Sequence[int] | np.ndarray, method: str = "dendrogram", combine: str = "mean") -> np.ndarray:
    """Rank all other proteins by how near they are to one or several.

    Parameters
    ----------
    space : Space
    rows : sequence of int
        Queries; they are not ranked themselves.
    method : str
        ``"dendrogram"``, ``"euclidean"`` or ``"correlation"`` (1 - r of the scaled features).
    combine : str
        With several queries: ``"mean"`` orders by the mean of the ranks that each query gives, equal ones by the
        nearer query; ``"nearest"`` by the distance (or height) to the nearest query alone.

    Returns
    -------
    ndarray
        (proteins,) int64 from 1; 0 for the queries.

    Raises
    ------
    UnknownNameError
        No such method or way to combine.
    CellTableError
        A query or protein of which this distance does not exist.
    """
    if combine not in COMBINE:
        raise unknown_name("way to combine queries", combine, COMBINE)
    rows = np.asarray(rows, np.int64)
    others = np.setdiff1d(np.arange(len(space)), rows)
    found = [space.keys(int(r), method) for r in rows]
    height, distance = (np.stack([f[i][others] for f in found]) for i in (0, 1))
    if not np.isfinite(distance).all():
        raise CellTableError(f"features of one value have no {method} distance; take another method.")
    everywhere = _places(height.ravel(), distance.ravel()).reshape(height.shape)  # each pair of query and protein
    near = everywhere.min(axis=0)
    first = near if combine == "nearest" else np.stack([_places(h, d) for h, d in zip(height, distance, strict=True)]).mean(axis=0)
    out = np.zeros(len(space), np.int64)
    out[others] = _places(first, near)
    return out


def _places(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the place, from 1, of each entry in the order by the first key, then by the second."""
    out = np.empty(len(first), np.int64)
    out[np.lexsort((second, first))] = np.arange(1, len(first) + 1)
    return out


def search(space: Space, rows: Sequence[int] | np.ndarray, combine: str = "mean") -> pd.DataFrame:
    """List all other proteins, the nearest in the dendrogram first, with their ranks by every method.

    Parameters
    ----------
    space : Space
    rows : sequence of int
        Queries.
    combine : str
        See `ranks`.

    Returns
    -------
    DataFrame
        Index ``protein``; ``rank`` (dendrogram), ``height`` (where its branch joins that of the nearest query),
        ``distance`` (to the nearest query, in the metric of the dendrogram), ``rank_euclidean``, ``rank_correlation``.
    """
    places = {m: ranks(space, rows, m, combine) for m in space.methods()}
    table = pd.DataFrame({"rank": places.pop("dendrogram")}, index=pd.Index(space.names, name="protein"))
    keys = [space.keys(int(r), "dendrogram") for r in rows]
    table["height"], table["distance"] = (np.min([k[i] for k in keys], axis=0) for i in (0, 1))
    for method, place in places.items():
        table[f"rank_{method}"] = place
    return table[table["rank"] > 0].sort_values("rank")


# --- annotation


def locations(cells: anndata.AnnData, column: str = "location") -> pd.Series:
    """Return the terms of each protein, all of its cells taken together, with ``;`` between them; "" for none."""
    if column not in cells.obs:
        return pd.Series("", index=pd.Index(np.unique(cells.obs["protein"].astype(str)), name="protein").drop("", errors="ignore"))
    seen = cells.obs[["protein", column]].astype(str).drop_duplicates()
    seen = seen[seen["protein"] != ""]
    joined = seen.groupby("protein")[column].agg(lambda s: ";".join(dict.fromkeys(t for v in s for t in v.split(";") if t)))
    return joined.sort_index()


def of_term(terms: pd.Series | Sequence[str], term: str) -> np.ndarray:
    """Tell which proteins have a term among theirs: (proteins,) bool."""
    return np.array([term in str(t).split(";") for t in terms], bool)


def all_terms(terms: pd.Series | Sequence[str]) -> list[str]:
    """Return every term that a protein has, in alphabetical order."""
    return sorted({t for text in terms for t in str(text).split(";") if t})


def members(terms: pd.Series, term: str, genes: str | None = None) -> np.ndarray:
    """Tell which proteins count as found: those of a term, or those named by `read_genes`: (proteins,) bool."""
    return of_term(terms, term) if genes is None else np.isin(terms.index.to_numpy(str), read_genes(genes))


def read_genes(text: str) -> list[str]:
    """Return names of genes: those in a text with commas, or in the column of gene names of a TSV, CSV or text file.

    Raises
    ------
    CellTableError
        A file without such a column.
    AnalysisNeedsError
        A path where no file is.
    """
    if not text.endswith((".tsv", ".csv", ".txt")):
        return [g.strip() for g in text.split(",") if g.strip()]
    path = Path(text)
    if not is_file(path):
        raise AnalysisNeedsError(f"{text} is not there: give a file of gene names, or the names themselves with commas between them.")
    with refusing(path, CellTableError, "cannot be read as names of genes in UTF-8", "Save it as text or CSV again."):
        if path.suffix == ".txt":
            return [g.strip() for g in path.read_text(encoding="utf-8-sig").splitlines() if g.strip()]
        table = read_csv(path, "\t" if path.suffix == ".tsv" else ",", dtype=str)
    columns = [c for c in ("Gene name", "gene", "protein", "Gene") if c in table]
    if not columns:
        raise CellTableError(f"{text} has no column 'Gene name', 'gene' or 'protein' (it has: {', '.join(table)}).")
    out: list[str] = table[columns[0]].dropna().tolist()
    return out


def links(names: Sequence[str], ensembl: Sequence[str] | None, organism: str) -> list[str]:
    """Return the Human Protein Atlas' page of each gene, by Ensembl id where there is one; "" for other organisms and made-up names."""
    if organism != "hsapiens":
        return [""] * len(names)
    ids = [""] * len(names) if ensembl is None else [str(e).split(".")[0] for e in ensembl]
    pages = [f"{ATLAS}/{e}" if e.startswith("ENSG") else f"{ATLAS}/search/{n}" for n, e in zip(names, ids, strict=True)]
    return ["" if _MADE_UP.fullmatch(n) else page for n, page in zip(names, pages, strict=True)]


def links_told(pages: Sequence[str], simulated: bool) -> str:
    """Return what must be known of links to pages of real proteins, where there are any and the cells are simulated."""
    if not simulated or not any(pages):
        return ""
    return " Links lead to the real protein of that name: **its picture there is not the simulated one here**."
