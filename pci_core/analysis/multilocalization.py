"""Where a cell of a protein of two locations stands between the two (the paper's figure 5), and how well that tells its fraction.

The paper's score ("Single cell analysis of Multiply-Localized Proteins") is ``log(d1 / d2)``: d1 is the distance of the
cell's features to the mean of all cells annotated with the first location alone, d2 the same for the second. By this
formula, which is used here, a negative score is nearer to the first location; the paper's results section and its
figure 5 have it the other way round. Whether the paper scaled the features is not said; here they are, by default.

Four scores of one sign: ``paper`` as above; ``ratio`` the same, without the cell's own protein (or image) in either
mean; and two that are ours, not the paper's: ``projection``, the position on the line between the two means, and
``discriminant``, the same along a linear discriminant fitted on the cells of one location alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anndata
import numpy as np
import pandas as pd

from pci_core.analysis.discriminant import crossed
from pci_core.analysis.knn import standardise
from pci_core.analysis.selection import label_text, require, shared
from pci_core.errors import AnalysisNeedsError, CellTableError, ParameterError, unknown_name

SCORES = {
    "paper": "distance ratio as in the paper",
    "ratio": "distance ratio, own {unit} out of the means",
    "projection": "position between the means (ours)",
    "discriminant": "linear discriminant of the cells alone (ours)",
}
SETS = ("first", "second", "both")
_BLOCK = 8192
_NO_PATTERN = ("dead", "diffuse")  # simulated cells that do not show their location


def check_score(name: str) -> None:
    """Raise `UnknownNameError` unless a score of that name is among `SCORES`."""
    if name not in SCORES:
        raise unknown_name("score", name, SCORES)


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """Read pairs of locations: ``"Cytosol|Nucleoplasm,Nucleoli|Nucleoplasm"``.

    Raises
    ------
    ParameterError
        A part that is not two different names with a ``|`` between them, or none at all.
    """
    out = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        names = [n.strip() for n in part.split("|")]
        if len(names) != 2 or not all(names) or names[0].casefold() == names[1].casefold():
            raise ParameterError(f"'{part}' is no pair of locations; write two names with a | between them, e.g. 'Cytosol|Nucleoplasm'.")
        out.append((names[0], names[1]))
    if not out:
        raise ParameterError("no pair of locations was asked for; write e.g. 'Cytosol|Nucleoplasm'.")
    return out


def pairs_of(obs: pd.DataFrame, label: str = "location") -> pd.DataFrame:
    """List the pairs that can be analysed: ``first, second, n_both, n_first, n_second``, most cells first."""
    require(obs, label)
    counts = label_text(obs[label]).value_counts()
    rows = []
    for text, n in counts.items():
        terms = str(text).split(";")
        if len(terms) == 2 and terms[0] in counts and terms[1] in counts:
            rows.append((terms[0], terms[1], int(n), int(counts[terms[0]]), int(counts[terms[1]])))
    return pd.DataFrame(rows, columns=["first", "second", "n_both", "n_first", "n_second"])


def members(obs: pd.DataFrame, first: str, second: str, label: str = "location") -> np.ndarray:
    """Tell which cells are annotated with the first location alone, the second alone, or both and no other.

    Parameters
    ----------
    obs : DataFrame
        Cell table.
    first, second : str
        Locations, in any case.
    label : str
        Column with terms joined by ``;``.

    Returns
    -------
    ndarray of str
        (cells,) ``"first"``, ``"second"``, ``"both"``, or ``""``.

    Raises
    ------
    AnalysisNeedsError
        One of the three has fewer than two cells.
    """
    if label not in obs:
        raise AnalysisNeedsError(
            f"multi-localization needs the column '{label}'; the cells have: {', '.join(map(str, obs.columns))}. "
            "Add it to your field table, or name another one."
        )
    terms = label_text(obs[label]).str.casefold().map(lambda t: frozenset(filter(None, (x.strip() for x in t.split(";")))))
    a, b = first.strip().casefold(), second.strip().casefold()
    named = {frozenset([a]): "first", frozenset([b]): "second", frozenset([a, b]): "both"}
    out = np.array([named.get(t, "") for t in terms], dtype="<U6")
    counts = [int((out == s).sum()) for s in SETS]
    if min(counts) < 2:
        held = [f"'{p.first}|{p.second}' ({p.n_both:,} cells)" for p in pairs_of(obs, label).head(6).itertuples(index=False)]
        have = f"Pairs that it has: {', '.join(held)}" if held else "It has no cells of two locations that also occur alone"
        raise AnalysisNeedsError(
            f"multi-localization of '{first}' and '{second}' needs at least two cells of each alone and of both together; column "
            f"'{label}' has {counts[0]}, {counts[1]} and {counts[2]}. {have}. Choose a pair with -p pairs 'First|Second' or another recipe."
        )
    return out


def find_unit(obs: pd.DataFrame, sets: np.ndarray, group: str = "") -> tuple[np.ndarray, str]:
    """Choose what is left out, divided into folds and drawn whole: proteins; images or fields where a location has one protein.

    Parameters
    ----------
    obs : DataFrame
        Cell table.
    sets : ndarray of str
        From `members`.
    group : str
        The recipe's group column, if it has one: images that share a group count as one.

    Returns
    -------
    codes, name : ndarray of int, str
        (cells,) and ``"protein"``, ``"image"`` or ``"field"``.

    Raises
    ------
    AnalysisNeedsError
        All cells of one location alone are of a single field, so that leaving it out leaves no mean.
    """
    more = [group] if group else []
    require(obs, "image", *more)
    for name, columns in (("protein", ["protein", "image", *more]), ("image", ["image", *more]), ("field", ["field"])):
        if name in obs and (label_text(obs[name])[sets != ""] != "").all():
            codes = shared(obs, *columns)
            if all(len(np.unique(codes[sets == s])) > 1 for s in SETS[:2]):
                return codes, name
    raise AnalysisNeedsError(
        "multi-localization needs cells of at least two images or fields for each location alone, so that a cell's own can be left "
        "out; take a location with more images, or another recipe."
    )


def known_fraction(obs: pd.DataFrame, first: str, second: str) -> np.ndarray:
    """Return the known share of the protein in the second location: (cells,) float64, NaN where it is not known.

    From a column ``fraction_<second>`` (any case) of the table; else from the simulated truth, where a cell was matched to
    a true one and shows its pattern. Cells of one location alone have 0 or 1.
    """
    columns = {str(c).casefold(): c for c in obs.columns}
    given = columns.get(f"fraction_{second.strip()}".casefold())
    if given is not None:
        result: np.ndarray = pd.to_numeric(obs[given], errors="coerce").to_numpy(np.float64)
        return result
    out = np.full(len(obs), np.nan)
    if "sim_fraction" not in obs or "sim_location" not in obs:
        return out
    true, raw = label_text(obs["sim_location"]).str.casefold(), pd.to_numeric(obs["sim_fraction"], errors="coerce").to_numpy(np.float64)
    a, b = first.strip().casefold(), second.strip().casefold()
    for text, value in ((a, 0.0), (b, 1.0), (f"{a};{b}", raw), (f"{b};{a}", 1 - raw)):
        out = np.where(true == text, value, out)
    shown = ~label_text(obs["sim_phenotype"]).isin(_NO_PATTERN).to_numpy() if "sim_phenotype" in obs else np.ones(len(obs), bool)
    matched = obs["sim_matched"].astype(bool).to_numpy() if "sim_matched" in obs else np.ones(len(obs), bool)
    return np.asarray(np.where(shown & matched, out, np.nan))


def score(
    adata: anndata.AnnData, first: str, second: str, *, label: str = "location", group: str = "", scaled: bool = True, seed: int = 0
) -> pd.DataFrame:
    """Score every cell annotated with either location alone or with both.

    Parameters
    ----------
    adata : AnnData
        (cells, features).
    first, second : str
        The two locations, in any case.
    label : str
        Column of terms joined by ``;``.
    group : str
        The recipe's group column, see `find_unit`.
    scaled : bool
        Centre all features and scale them to unit variance first, over all cells of `adata`.
    seed : int
        Of the folds of the discriminant.

    Returns
    -------
    DataFrame
        One row a cell, by ``cell_id``: ``row`` (in `adata`), ``image``, ``protein`` and ``cell_line`` where the table
        has them, ``set`` (first, second, both), ``unit`` (code of what was left out; its name in ``attrs["unit"]``), the
        `SCORES` (no unit; negative = nearer to the first), and ``fraction`` (known share in the second, or NaN).

    Raises
    ------
    AnalysisNeedsError
        Too few cells or images, see `members` and `find_unit`.
    CellTableError
        The features hold NaN or infinite values.
    """
    obs = adata.obs
    sets = members(obs, first, second, label)
    units, name = find_unit(obs, sets, group)
    rows = np.flatnonzero(sets != "")
    x = np.asarray(adata.X)
    if not np.isfinite(x).all():
        raise CellTableError("the features hold NaN or infinite values, which have no distance. Leave those cells or columns out.")
    x = (standardise(x) if scaled else x)[rows].astype(np.float64)
    sets, units = sets[rows], np.unique(units[rows], return_inverse=True)[1]
    out = pd.DataFrame({"cell_id": obs.get("cell_id", pd.Series(adata.obs_names, obs.index)).astype(str).to_numpy()[rows], "row": rows})
    for column in ("image", "protein", "cell_line"):
        if column in obs and (label_text(obs[column]) != "").any():
            out[column] = label_text(obs[column]).to_numpy()[rows]
    own = _Means(x, sets, units)
    out["set"], out["unit"] = sets, units
    out["paper"] = _ratio(x, *own.of_all(len(x)))
    out["ratio"] = _in_blocks(_ratio, x, own)
    out["projection"] = _in_blocks(_position, x, own)
    out["discriminant"] = crossed(x, sets == "second", sets != "both", units, seed)
    out["fraction"] = known_fraction(obs, first, second)[rows]
    out.attrs |= {"unit": name, "first": first, "second": second}
    return out.set_index("cell_id")


class _Means:
    """The mean of the cells of either location alone, with or without those of a unit."""

    def __init__(self, x: np.ndarray, sets: np.ndarray, units: np.ndarray) -> None:
        self.units, self.parts = units, []
        for which in SETS[:2]:
            own = sets == which
            sums = np.zeros((units.max() + 1, x.shape[1]))
            np.add.at(sums, units[own], x[own])
            self.parts.append((sums, np.bincount(units[own], minlength=len(sums))))

    def of_all(self, n: int) -> list[np.ndarray]:
        """Return both means, once for each of n cells."""
        return [np.broadcast_to(s.sum(0) / c.sum(), (n, s.shape[1])) for s, c in self.parts]

    def without_own(self, rows: slice) -> list[np.ndarray]:
        """Return both means for each cell, without the cells of its own unit."""
        u = self.units[rows]
        return [(s.sum(0) - s[u]) / (c.sum() - c[u])[:, None] for s, c in self.parts]


def _ratio(x: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    tiny = np.finfo(np.float64).tiny
    return np.asarray(np.log(np.linalg.norm(x - one, axis=1) + tiny) - np.log(np.linalg.norm(x - two, axis=1) + tiny))


def _position(x: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return where a cell stands on the line from one mean (-1) to the other (1)."""
    line = two - one
    return np.asarray(2 * ((x - (one + two) / 2) * line).sum(1) / np.maximum((line**2).sum(1), np.finfo(np.float64).tiny))


def _in_blocks(what: Callable[..., np.ndarray], x: np.ndarray, own: _Means) -> np.ndarray:
    parts = [slice(i, i + _BLOCK) for i in range(0, len(x), _BLOCK)]
    return np.concatenate([what(x[p], *own.without_own(p)) for p in parts])


# --- proteins and images


def summary(scores: pd.DataFrame, by: Sequence[str], name: str = "ratio") -> pd.DataFrame:
    """Return mean and standard deviation of the score `name` (supplementary data 2), cells of both locations only.

    Parameters
    ----------
    scores : DataFrame
        From `score`.
    by : sequence of str
        E.g. ``["protein", "cell_line"]`` or ``["image"]``; columns that the table lacks are not used.

    Returns
    -------
    DataFrame
        `by`, ``mean, sd, n_cells, n_images`` and, where known, ``fraction_mean, fraction_sd``; lowest mean first. The standard
        deviation is that of a sample, NaN of a single cell.
    """
    check_score(name)
    keys = [c for c in by if c in scores] or ["image"]
    both = scores[scores["set"] == "both"]
    grouped = both.groupby(keys, sort=True)
    out = grouped[name].agg(mean="mean", sd="std", n_cells="size")
    out["n_images"] = grouped["image"].nunique()
    if both["fraction"].notna().any():
        out["fraction_mean"], out["fraction_sd"] = grouped["fraction"].mean(), grouped["fraction"].std()
    return out.reset_index().sort_values("mean", ignore_index=True)


def examples(scores: pd.DataFrame, n: int = 4, name: str = "ratio", least: int = 5) -> list[str]:
    """Choose images to show: of both locations and one cell line, spread over the score, and the one that varies most.

    Parameters
    ----------
    scores : DataFrame
        From `score`.
    n : int
        How many, fewer where there are fewer.
    least : int
        Cells an image must have to be shown, where any has so many.

    Returns
    -------
    list of str
        Images, lowest mean score first.
    """
    both = scores[scores["set"] == "both"]
    if "cell_line" in both:
        both = both[both["cell_line"] == both.groupby("cell_line")["image"].nunique().idxmax()]
    table = both.groupby("image")[name].agg(["mean", "std", "size"]).sort_values("mean")
    table = table[table["size"] >= least] if (table["size"] >= least).any() else table
    chosen = {str(table["std"].fillna(0).idxmax())}
    for place in np.linspace(0, len(table) - 1, max(n - 1, 1)).round().astype(int):
        free = [i for i in sorted(range(len(table)), key=lambda j, p=place: abs(j - p)) if table.index[i] not in chosen]  # type: ignore[misc]
        if free and len(chosen) < n:
            chosen.add(str(table.index[free[0]]))
    return [str(i) for i in table.index if i in chosen]


def example_cells(scores: pd.DataFrame, images: Sequence[str], n: int = 8, name: str = "ratio") -> dict[str, pd.Series]:
    """Choose up to n cells of each image, evenly from the lowest score to the highest.

    Returns
    -------
    dict of str to Series
        By image: scores by ``cell_id``, lowest first.
    """
    out = {}
    for image in images:
        values = scores.loc[(scores["image"] == image) & (scores["set"] == "both"), name].sort_values(kind="stable")
        out[image] = values.iloc[np.unique(np.linspace(0, len(values) - 1, min(n, len(values))).round().astype(int))]
    return out
