"""Distances between images in feature space: of the same and of other locations (the paper's figure 2B).

The distance of two images is the mean Euclidean distance of all their pairs of cells, features at zero mean and unit
variance. Two images of one protein are never a pair. The paper names no formula where it says that distances are
*normalized to an expectation*. Two readings are possible, and both stand in the tables:

``normalised``
    (mean of same-location pairs - expectation) / standard deviation of the pairs of different locations. The one
    that is drawn: the paper's -0.574 for conv3 is an ordinary value of it.
``relative``
    (mean of same-location pairs - expectation) / expectation. For the paper's -0.574, cells of one location would have
    to lie at 43 % of the distance of other cells, all their scatter within an image included.

Intervals are 95 % bootstrap intervals over proteins, drawn anew within each location; a pair counts as often as both of
its proteins were drawn.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from pci_core.analysis.bootstrap import tail
from pci_core.errors import AnalysisNeedsError, CellTableError, ParameterError, unknown_name

ALL_TERMS = "all locations"
_ROUNDS = 200  # of drawing, until a constraint that leaves almost no pair is given up


def image_table(adata: anndata.AnnData, label: str = "location", min_proteins: int = 3, line: str = "cell_line") -> pd.DataFrame:
    """List the images, with the term of those that can be compared.

    Parameters
    ----------
    adata : AnnData
        (cells, features); obs has ``image``, ``protein`` and `label`.
    label : str
        Column of locations; several are joined by ``;``.
    min_proteins : int
        Least number of proteins of a term, 2 or more (30 in the paper).
    line : str
        Column of the cell line; where there is none, every image has the empty one.

    Returns
    -------
    DataFrame
        Index ``image``; ``protein, cell_line, location, n_cells, term``. `term` is the protein's only location, the same
        in all its images and shared by `min_proteins` proteins; else empty.

    Raises
    ------
    UnknownNameError, ParameterError
        A column that is not there; fewer than two proteins asked for.
    CellTableError
        Cells of one image that differ in protein, location or cell line.
    AnalysisNeedsError
        Fewer than two terms are left.
    """
    if min_proteins < 2:
        raise ParameterError(f"min_proteins is {min_proteins}; a pair of proteins of one location needs at least 2.")
    for column in ("image", "protein", label):
        if column not in adata.obs:
            raise unknown_name("column", column, adata.obs.columns)
    columns = {"protein": "protein", "cell_line": line, "location": label}
    obs = pd.DataFrame({new: adata.obs[old].astype(str) if old in adata.obs else "" for new, old in columns.items()})
    images = obs.groupby(adata.obs["image"].astype(str).rename("image"), sort=False)
    mixed = images.nunique().gt(1)
    if mixed.to_numpy().any():
        image, column = mixed.stack().idxmax()
        found = sorted(obs.loc[(adata.obs["image"] == image).to_numpy(), column].unique())[:3]
        raise CellTableError(
            f"the cells of image '{image}' have several values of '{columns[column]}' ({', '.join(found)}), so the distance of two "
            "images is no distance of two locations. Give such cells images of their own, or another column as label."
        )
    table = images.first().assign(n_cells=images.size())
    table = table[table["protein"] != ""]
    seen = table.groupby("protein")["location"].agg(lambda terms: terms.iloc[0] if terms.nunique() == 1 else "")
    single = seen[(seen != "") & ~seen.str.contains(";", regex=False)]
    shared = single[single.map(single.value_counts()) >= min_proteins]
    if shared.nunique() < 2:
        most = single.value_counts().head(3).to_dict()
        raise AnalysisNeedsError(
            f"comparing distances needs two values of '{label}' with at least {min_proteins} proteins of that value alone; found "
            f"{shared.nunique()} (most frequent: {most}). Lower min_proteins, or take more proteins."
        )
    return table.assign(term=table["protein"].map(shared).fillna(""))


# --- pairs


def draw_term_pairs(images: pd.DataFrame, n: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Draw pairs of proteins, and an image of each: n with the same term for every term, n for each other term.

    Parameters
    ----------
    images : DataFrame
        From `image_table`.
    n : int
        Pairs, with replacement; 1,000 in the paper.
    seed : int

    Returns
    -------
    DataFrame
        ``term`` (of image `a`), ``same`` (bool), ``a, b`` (row numbers of `images`).
    """
    _check_number("the number of pairs", n)
    rng, proteins = np.random.default_rng(seed), _Proteins(images)
    out = []
    for term, own in proteins.of_term.items():
        first = rng.integers(0, len(own), n)
        second = (first + rng.integers(1, len(own), n)) % len(own)
        out.append(_pairs(term, True, proteins.image(own[first], rng), proteins.image(own[second], rng)))
        for other, theirs in proteins.of_term.items():
            if other != term:
                a, b = (proteins.image(rng.choice(group, n), rng) for group in (own, theirs))
                out.append(_pairs(term, False, a, b))
    return pd.concat(out, ignore_index=True)


def draw_line_pairs(images: pd.DataFrame, same_line: bool, n: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Draw pairs of proteins, and an image of each, of the same cell line or of different ones.

    Half of them are of the same term, half of any two different ones; as in the paper, terms that are frequent are
    drawn more often.

    Parameters
    ----------
    images : DataFrame
        From `image_table`.
    same_line : bool
        Whether the two images of a pair are of the same cell line.
    n : int
        Pairs of either half, with replacement; 10,000 in the paper.
    seed : int

    Returns
    -------
    DataFrame
        As from `draw_term_pairs`; ``term`` is `ALL_TERMS`.

    Raises
    ------
    AnalysisNeedsError
        There are no such pairs.
    """
    _check_number("the number of pairs", n)
    rng = np.random.default_rng([seed, same_line])
    return pd.concat([_pairs(ALL_TERMS, same, *_constrained(images, same, same_line, n, rng)) for same in (True, False)], ignore_index=True)


def _check_number(what: str, n: int) -> None:
    if n < 1:
        raise ParameterError(f"{what} is {n}; it must be at least 1.")


def _pairs(term: str, same: bool, a: np.ndarray, b: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"term": pd.Categorical.from_codes(np.zeros(len(a), np.int8), [term]).astype(object), "same": same, "a": a, "b": b})


class _Proteins:
    """The proteins of each term and the images of each protein."""

    def __init__(self, images: pd.DataFrame) -> None:
        rows = np.flatnonzero(images["term"] != "")
        used = images.iloc[rows]
        names, code = np.unique(used["protein"].to_numpy(str), return_inverse=True)
        self._rows = rows[np.argsort(code, kind="stable")]
        self._size = np.bincount(code, minlength=len(names))
        self._first = np.cumsum(self._size) - self._size
        terms = images["term"].to_numpy(str)[self._rows[self._first]]
        self.of_term = {str(term): np.flatnonzero(terms == term) for term in np.unique(terms)}

    def image(self, protein: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw an image of each protein."""
        out: np.ndarray = self._rows[self._first[protein] + rng.integers(0, self._size[protein])]
        return out


def _constrained(images: pd.DataFrame, same_term: bool, same_line: bool, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of images uniformly over pairs of proteins: within strata, until n fulfil what the strata cannot."""
    rows = np.flatnonzero((images["term"] != "") & (images["cell_line"] != ""))
    protein, term, line = (pd.factorize(images[c].iloc[rows])[0] for c in ("protein", "term", "cell_line"))
    stratum = (term if same_term else 0 * term) * (line.max(initial=0) + 1) + (line if same_line else 0)
    order = np.argsort(stratum, kind="stable")
    # an image counts so much the less the more its protein has, so that every protein is as likely
    upto = np.cumsum(1.0 / np.bincount(protein)[protein[order]]) if len(rows) else np.zeros(0)
    starts = np.flatnonzero(np.diff(stratum[order], prepend=-1))
    low = np.concatenate([[0.0], upto])[starts]
    weight = np.diff(np.append(low, upto[-1:]))
    found_a, found_b, found = [], [], 0
    for _ in range(_ROUNDS if len(rows) else 0):
        drawn = rng.choice(len(starts), n, p=weight**2 / (weight**2).sum())
        a, b = (
            order[np.searchsorted(upto, low[drawn] + rng.random(n) * weight[drawn], side="right").clip(max=len(rows) - 1)] for _ in "ab"
        )
        keep = (protein[a] != protein[b]) & ((term[a] == term[b]) == same_term) & ((line[a] == line[b]) == same_line)
        found_a.append(rows[a[keep]])
        found_b.append(rows[b[keep]])
        found += int(keep.sum())
        if found >= n:
            return np.concatenate(found_a)[:n], np.concatenate(found_b)[:n]
    raise AnalysisNeedsError(
        f"comparing cell lines needs images of two proteins of {'one location' if same_term else 'different locations'} in "
        f"{'one cell line' if same_line else 'different cell lines'}; these cells have {len(np.unique(line))} cell lines, "
        f"{len(np.unique(protein))} proteins and almost no such pair. Take a recipe with several proteins of a location in every line."
    )


# --- scores


@dataclass(frozen=True)
class Drawn:
    """Scores of a group of pairs: the first value is the score, the others those of the bootstrap's draws.

    Attributes
    ----------
    normalised, relative : ndarray
        (1 + draws,), NaN where a draw has no pair.
    same, expected, sd : float
        Mean distance of pairs of the same term; mean and standard deviation of those of different terms.
    """

    normalised: np.ndarray
    relative: np.ndarray
    same: float
    expected: float
    sd: float


def protein_weights(images: pd.DataFrame, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Draw the proteins of each term anew: (1 + draws, proteins) float64, how often each was drawn; the first row is 1.

    Columns are the proteins that have a term, sorted by name.

    Raises
    ------
    ParameterError
        A negative number of draws.
    """
    if draws < 0:
        raise ParameterError(f"the number of draws of the bootstrap is {draws}; it must be at least 0 (no intervals).")
    used = images[images["term"] != ""].drop_duplicates("protein").sort_values("protein")["term"].to_numpy(str)
    rng = np.random.default_rng(seed)
    out = np.ones((1 + draws, len(used)))
    for term in np.unique(used):
        at = np.flatnonzero(used == term)
        out[1:, at] = rng.multinomial(len(at), np.full(len(at), 1 / len(at)), draws)
    return out


def score_pairs(pairs: pd.DataFrame, distance: np.ndarray, images: pd.DataFrame, weights: np.ndarray) -> Drawn:
    """Compare pairs of the same term with pairs of different ones, under each of the bootstrap's weights.

    Parameters
    ----------
    pairs : DataFrame
        ``same, a, b``, e.g. those of one term from `draw_term_pairs`.
    distance : ndarray
        (pairs,) from `pci_core.analysis.image_distances.mean_distances`.
    images : DataFrame
        From `image_table`.
    weights : ndarray
        From `protein_weights`.
    """
    names = np.unique(images.loc[images["term"] != "", "protein"].to_numpy(str))
    code = np.searchsorted(names, images["protein"].to_numpy(str))
    a, b, same = code[pairs["a"]], code[pairs["b"]], pairs["same"].to_numpy()
    zero = float(distance.mean())  # moments about a near value: the variance of large numbers would lose digits

    def sums(at: np.ndarray, power: int) -> np.ndarray:
        values = (distance[at] - zero) ** power
        matrix = sparse.coo_array((values, (a[at], b[at])), shape=(len(names), len(names))).tocsr()
        out: np.ndarray = np.einsum("ij,ij->i", (matrix.T @ weights.T).T, weights)
        return out

    with np.errstate(invalid="ignore", divide="ignore"):  # a draw without a pair is NaN and not counted
        mean_same = zero + sums(same, 1) / sums(same, 0)
        n = sums(~same, 0)
        shift = sums(~same, 1) / n
        sd = np.sqrt(np.maximum(sums(~same, 2) / n - shift**2, 0))
        expected = zero + shift
        normalised, relative = (mean_same - expected) / sd, (mean_same - expected) / expected
    return Drawn(normalised, relative, float(mean_same[0]), float(expected[0]), float(sd[0]))


def interval(
    values: np.ndarray, sizes: Sequence[int] | np.ndarray, variances: Sequence[float] | np.ndarray | None = None
) -> tuple[float, float, float]:
    """Return a value with its 95 % interval from a row of the value and its draws; NaN where half of the draws have none.

    `sizes` (and `variances`) are the proteins of each location that were drawn within, see `pci_core.analysis.bootstrap.tail`.
    """
    drawn = values[1:][np.isfinite(values[1:])]
    if len(values) < 3 or len(drawn) < (len(values) - 1) / 2:
        return float(values[0]), np.nan, np.nan
    out = tail(sizes, variances)
    low, high = np.quantile(drawn, [out, 1 - out])
    return float(values[0]), float(low), float(high)


def proteins_by_term(images: pd.DataFrame) -> dict[str, int]:
    """Return how many proteins each location has, by its name."""
    used = images[images["term"] != ""]
    return {str(t): int(n) for t, n in used.groupby("term", observed=True)["protein"].nunique().items()}


def score_terms(pairs: pd.DataFrame, distance: np.ndarray, images: pd.DataFrame, weights: np.ndarray) -> pd.DataFrame:
    """Score every term, and their mean.

    Returns
    -------
    DataFrame
        One row a term and at last `ALL_TERMS`, each term weighing the same: ``term, normalised, low, high, relative,
        relative_low, relative_high, same, expected, sd, n_proteins, n_images, n_cells``.
    """
    found = {str(t): score_pairs(part, distance[part.index], images, weights) for t, part in pairs.groupby("term", sort=False)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw without a pair in any location is NaN and not counted
        drawn = {kind: np.nanmean([getattr(d, kind) for d in found.values()], axis=0) for kind in ("normalised", "relative")}
    rows = []
    proteins = proteins_by_term(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        spread = {kind: [float(np.nanvar(getattr(d, kind)[1:])) if len(d.normalised) > 1 else 0.0 for d in found.values()]
                  for kind in ("normalised", "relative")}  # fmt: skip
    every = [np.mean([getattr(d, kind) for d in found.values()]) for kind in ("same", "expected", "sd")]
    found[ALL_TERMS] = Drawn(drawn["normalised"], drawn["relative"], *map(float, every))
    for term, d in found.items():
        of = images[(images["term"] == term) if term != ALL_TERMS else (images["term"] != "")]
        numbers = (of["protein"].nunique(), len(of), int(of["n_cells"].sum()))
        sizes = [proteins[t] for t in found if t != ALL_TERMS] if term == ALL_TERMS else [proteins[term]]
        own = {kind: spread[kind] if term == ALL_TERMS else None for kind in spread}
        rows.append(
            (
                term,
                *interval(d.normalised, sizes, own["normalised"]),
                *interval(d.relative, sizes, own["relative"]),
                d.same,
                d.expected,
                d.sd,
                *numbers,
            )
        )
    columns = ["term", "normalised", "low", "high", "relative", "relative_low", "relative_high", "same", "expected", "sd"]
    return pd.DataFrame(rows, columns=[*columns, "n_proteins", "n_images", "n_cells"])
