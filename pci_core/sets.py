"""Sets: which cells may be paired with one another. The paper's are the images; any column of the cell table makes others.

The cells of an image are a range of rows. Those of a protein may lie anywhere in a dataset, image after image of it, so a set is
a range of positions in a list of rows; for images that list is the rows themselves and is not kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Sets:
    """Cells divided into sets.

    Attributes
    ----------
    starts : ndarray
        (sets + 1,) int64: set i is the positions ``starts[i]:starts[i + 1]``.
    rows : ndarray or None
        Row of the dataset at each position, ascending within a set; None where position and row are the same.
    column : str
        Column of the cell table whose values name the sets.
    """

    starts: np.ndarray
    rows: np.ndarray | None = None
    column: str = "image"

    @classmethod
    def of(cls, starts: np.ndarray | Sets) -> Sets:
        """Return sets as they are, or those whose ranges of rows begin at `starts` (see `CellDataset.starts`)."""
        return starts if isinstance(starts, Sets) else cls(np.asarray(starts, np.int64))

    @classmethod
    def by_column(cls, values: pd.Series, among: np.ndarray, column: str) -> tuple[Sets, np.ndarray]:
        """Divide cells by the values of a column.

        Parameters
        ----------
        values : Series
            (N,) one value a cell.
        among : ndarray of bool
            (N,) cells to take; the others are in no set.
        column : str
            What the column is called.

        Returns
        -------
        sets : Sets
            In the order in which their values first come, as images are.
        names : ndarray of str
            Value of each set.
        """
        rows = np.flatnonzero(among)
        code, names = pd.factorize(values.astype(str).to_numpy(dtype=object)[rows])
        order = np.argsort(code, kind="stable")  # stable: rows ascend within a set, so that images stay whole and are read at once
        starts = np.concatenate([[0], np.cumsum(np.bincount(code, minlength=len(names)))]).astype(np.int64)
        return cls(starts, rows[order].astype(np.int64), column), np.asarray(names, dtype=object)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> np.ndarray:
        """Cells of each set, (sets,) int64."""
        return np.diff(self.starts)

    @property
    def noun(self) -> str:
        """What the sets are called in a sentence, in the plural."""
        return "images" if self.column == "image" else f"values of '{self.column}'"

    def rows_of(self, which: np.ndarray) -> np.ndarray:
        """Return the rows of some sets, (n,) int64, set after set."""
        counts = self.counts[which]
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        positions = np.repeat(self.starts[which], counts) + within
        return np.asarray(positions if self.rows is None else self.rows[positions])

    def spans(self, which: np.ndarray) -> np.ndarray:
        """Return the rows of some sets as ranges, (k, 2) int64, ascending, neighbours joined.

        Parameters
        ----------
        which : ndarray of int
            Numbers of sets, in any order.
        """
        which = np.sort(np.asarray(which, np.int64))
        if self.rows is None:
            return joined(np.stack([self.starts[which], self.starts[which + 1]], 1))
        rows = np.sort(self.rows_of(which))
        return joined(np.stack([rows, rows + 1], 1))


def joined(spans: np.ndarray) -> np.ndarray:
    """Join ranges of rows that are neighbours.

    Parameters
    ----------
    spans : ndarray of int
        (k, 2), ascending, without overlap.

    Returns
    -------
    ndarray
        (at most k, 2).
    """
    if not len(spans):
        return spans
    apart = np.flatnonzero(spans[1:, 0] != spans[:-1, 1])
    return np.stack([spans[np.concatenate([[0], apart + 1]), 0], spans[np.concatenate([apart, [-1]]), 1]], 1)
