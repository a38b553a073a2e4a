"""Which cells can be scored, and which of them share so much that one must not vote for the other."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pci_core.analysis.paper import PAPER_K
from pci_core.errors import CellTableError, unknown_name


def label_text(labels: pd.Series) -> pd.Series:
    """Return labels as text, empty where they are missing."""
    return labels.astype(object).where(labels.notna(), "").astype(str)


def has_one_term(labels: pd.Series) -> np.ndarray:
    """Tell where a label is one term, neither empty nor several joined by ``;``: (cells,) bool."""
    text = label_text(labels)
    out: np.ndarray = ((text != "") & ~text.str.contains(";", regex=False)).to_numpy()
    return out


def require(obs: pd.DataFrame, *columns: str) -> None:
    """Raise `UnknownNameError` for a column that the cell table does not have."""
    for column in columns:
        if column not in obs:
            raise unknown_name("column", column, obs.columns)


def independent_groups(obs: pd.DataFrame, label: str) -> str:
    """Return the column whose values share nothing but the class: ``image``, or ``field`` where classes are single images.

    In the authors' toy sets a protein is one image of several fields of view, so fields are the
    largest unit that can be drawn or left out.
    """
    require(obs, label, "image")
    images = obs.groupby(label, observed=True)["image"].nunique()
    return "image" if (images > 1).sum() > 1 or "field" not in obs else "field"


def scorable(obs: pd.DataFrame, label: str, k: int = PAPER_K) -> np.ndarray:
    """Tell which cells can be scored: (cells,) bool.

    Their label is one term, its class has more than k cells and, where whole images are left out (see
    `independent_groups`), more than one image: the only image of a class would never be found again.
    """
    require(obs, label)
    one = has_one_term(obs[label])
    text = label_text(obs[label])
    counts = text[one].value_counts()
    good = one & text.isin(counts.index[counts > k]).to_numpy()
    if independent_groups(obs[good], label) == "image":
        images = obs[good].groupby(label, observed=True)["image"].nunique()
        good &= text.isin(images.index[images > 1]).to_numpy()
    out: np.ndarray = good
    return out


def shared(obs: pd.DataFrame, *columns: str) -> np.ndarray:
    """Number the sets of cells that share a value of any of the columns, directly or through others.

    Parameters
    ----------
    obs : DataFrame
        Cell table.
    columns : str
        E.g. ``image``, or ``image, protein``: what is left out or split by. Empty values join nothing.

    Returns
    -------
    ndarray of int
        (cells,) codes from 0: cells of different codes share no value of any column.
    """
    require(obs, *columns)
    n = len(obs)
    cells, values, first = [], [], n  # a graph of cells and values, an edge where a cell has the value
    for column in columns:
        text = label_text(obs[column]).to_numpy()
        code, names = pd.factorize(text)
        has = np.flatnonzero(text != "")
        cells.append(has)
        values.append(first + code[has])
        first += len(names)
    row, column_of = np.concatenate(cells), np.concatenate(values)
    graph = coo_array((np.ones(len(row), np.int8), (row, column_of)), shape=(first, first))
    return np.asarray(pd.factorize(connected_components(graph, directed=False)[1][:n])[0])


def draw_groups(obs: pd.DataFrame, label: str, group: str, n_cells: int, seed: int = 0) -> np.ndarray:
    """Draw whole groups, one of each class in turn, until there are so many cells: (cells,) bool.

    Parameters
    ----------
    obs : DataFrame
        Cell table; cells without one term of `label` are not drawn.
    label : str
        Column whose classes take turns, so that rare ones stay in.
    group : str
        Column whose values are drawn whole, e.g. ``image``.
    n_cells : int
        Stop when there are at least so many.
    seed : int
    """
    require(obs, label, group)
    used = obs[has_one_term(obs[label])]
    named = pd.DataFrame({"label": label_text(used[label]), "group": label_text(used[group])})  # label and group may be one column
    pairs = named.groupby(["label", "group"]).size().reset_index(name="n")
    pairs = pairs.iloc[np.random.default_rng(seed).permutation(len(pairs))]
    pairs["turn"] = pairs.groupby("label").cumcount()
    pairs = pairs.sort_values("turn", kind="stable")
    taken = pairs[pairs["n"].cumsum() - pairs["n"] < n_cells]
    wanted = set(taken[["label", "group"]].itertuples(index=False, name=None))
    keys = zip(label_text(obs[label]), label_text(obs[group]), strict=True)
    return np.array([key in wanted for key in keys], bool)


class Omitted:
    """What was left out of a comparison and why, counted."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def add(self, what: str, n_cells: int, why: str) -> None:
        """Note one omission, unless it concerns nothing."""
        if n_cells:
            self.rows.append({"what": what, "n_cells": int(n_cells), "why": why})

    def table(self) -> pd.DataFrame:
        """Return columns ``what, n_cells, why``, one row an omission."""
        return pd.DataFrame(self.rows, columns=["what", "n_cells", "why"]).astype({"n_cells": "int64"})


def select(obs: pd.DataFrame, label: str, ways: dict[str, np.ndarray], more_than: int, omitted: Omitted) -> np.ndarray:
    """Choose the cells that every classifier and way of leaving out can score.

    Parameters
    ----------
    obs : DataFrame
        Cell table.
    label : str
        Column to predict.
    ways : dict of str to ndarray
        Codes of what is left out together, by name of the way, e.g. ``image``: a class needs at least
        two, or none of its cells could ever be found again.
    more_than : int
        A class needs more cells than this.
    omitted : Omitted
        Takes a row for every reason.

    Returns
    -------
    ndarray
        (cells,) bool.

    Raises
    ------
    CellTableError
        Fewer than two classes are left.
    """
    text = label_text(obs[label])
    several = text.str.contains(";", regex=False).to_numpy()
    empty = (text == "").to_numpy()
    omitted.add(f"cells without '{label}'", empty.sum(), "no label")
    omitted.add(f"cells with several terms of '{label}'", several.sum(), "several labels")
    used = ~empty & ~several
    before = text[used].nunique()
    for name, codes in ways.items():
        groups = pd.Series(codes[used]).groupby(text.to_numpy()[used]).nunique()
        for c in groups.index[groups < 2]:
            omitted.add(f"class '{c}'", (text[used] == c).sum(), f"class of one {name}: with the own {name} left out it cannot be found")
        used &= text.isin(groups.index[groups > 1]).to_numpy()
    counts = text[used].value_counts()
    for c, n in counts[counts <= more_than].sort_index().items():
        omitted.add(f"class '{c}'", n, f"class too small: {n} cells, more than {more_than} are needed")
    used &= text.isin(counts.index[counts > more_than]).to_numpy()
    left = text[used].nunique()
    if left < 2:
        reasons = "; ".join(f"{r['what']}: {r['why']} ({r['n_cells']} cells)" for r in omitted.rows[:8])
        raise CellTableError(
            f"column '{label}' has {before} class(es), {left} of which can be scored; classification needs at least two. "
            + (f"Left out: {reasons}. " if reasons else "")
            + "Choose another label, leave out another column, or add cells."
        )
    return np.asarray(used)
