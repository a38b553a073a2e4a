"""Nearest neighbours of every cell: one search for every k, with what must not be counted left out.

The search is by brute force, as products of matrices in blocks: exact, and for the hundreds of
features of a network's layer faster than a tree. Votes for all k come from the one list of neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

_BLOCK = 512  # rows at a time: 512 x 30,889 distances are 60 MB, and larger blocks are no faster


def constant_features(x: np.ndarray) -> np.ndarray:
    """Tell which features have one value for all cells: (features,) bool."""
    return np.asarray(x.max(0) == x.min(0))


def standardise(x: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """Centre and scale each feature to unit variance; constant features become 0.

    Parameters
    ----------
    x : ndarray
        (cells, features).
    reference : ndarray, optional
        (other cells, features) whose mean and standard deviation are used; by default those of `x`.

    Returns
    -------
    ndarray
        (cells, features) float32.
    """
    seen = x if reference is None else reference
    constant = constant_features(seen)
    mean = seen.mean(0, dtype=np.float64)
    std = np.where(constant, 1.0, seen.std(0, dtype=np.float64))
    out = ((x - mean) / std).astype(np.float32)
    out[:, constant] = 0.0
    result: np.ndarray = out
    return result


def neighbours(x: np.ndarray, k: int, leave_out: np.ndarray | None = None) -> np.ndarray:
    """Find the nearest other cells of every cell, nearest first.

    Parameters
    ----------
    x : ndarray
        (cells, features) float32, standardised.
    k : int
        How many.
    leave_out : ndarray, optional
        (cells,) group codes; a cell's own group is not searched. By default only the cell itself is left out.

    Returns
    -------
    ndarray
        (cells, k) int64 row numbers; -1 where fewer than k cells can be searched.
    """
    return neighbours_each(x, k, [leave_out])[0]


def neighbours_each(x: np.ndarray, k: int, leave_out: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """Do what `neighbours` does for several ways of leaving out, with the distances computed once."""
    own = [_Members(np.arange(len(x)) if groups is None else np.asarray(groups)) for groups in leave_out]
    return _search(x, x, k, own)


def neighbours_in(x: np.ndarray, reference: np.ndarray, k: int) -> np.ndarray:
    """Find the nearest cells of another set, nearest first.

    Parameters
    ----------
    x, reference : ndarray
        (cells, features) and (other cells, features) float32 in the same space.
    k : int
        How many.

    Returns
    -------
    ndarray
        (cells, k) int64 row numbers of `reference`; -1 where it has fewer than k.
    """
    return _search(x, reference, k, [None])[0]


class _Members:
    """The rows of each group, so that a block's own groups can be struck out without comparing all with all."""

    def __init__(self, groups: np.ndarray) -> None:
        _, self.code, self.sizes = np.unique(groups, return_inverse=True, return_counts=True)
        self.order = np.argsort(self.code, kind="stable")
        self.first = np.cumsum(self.sizes) - self.sizes

    def pairs(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (row of the block, row of the whole) for every pair of cells of one group."""
        code = self.code[start:stop]
        rows = np.repeat(np.arange(stop - start), self.sizes[code])
        ends = np.cumsum(self.sizes[code])
        within = np.arange(len(rows)) - np.repeat(ends - self.sizes[code], self.sizes[code])
        return rows, self.order[self.first[code[rows]] + within]


def _search(x: np.ndarray, reference: np.ndarray, k: int, own: Sequence[_Members | None]) -> list[np.ndarray]:
    import torch  # here, so that tables can be made and read without it

    same = reference is x
    data = torch.from_numpy(np.asarray(x, np.float32))
    other = data if same else torch.from_numpy(np.asarray(reference, np.float32))
    # (-2x, 1) times (y, |y|^2) is the squared distance up to a constant of the row: one product, no further pass
    left = torch.cat([-2 * data, torch.ones(len(data), 1)], 1)
    right = torch.cat([other, other.square().sum(1, keepdim=True)], 1).T
    take = min(k, len(other) - same)
    out = [np.full((len(data), k), -1, np.int64) for _ in own]
    room = torch.empty(min(_BLOCK, len(data)), len(other))
    for start in range(0, len(data), _BLOCK):
        stop = min(start + _BLOCK, len(data))
        distance = torch.mm(left[start:stop], right, out=room[: stop - start])
        for found, members in zip(out, own, strict=True):
            if members is not None:
                i, j = (torch.from_numpy(index) for index in members.pairs(start, stop))
                struck = distance[i, j]
                distance[i, j] = torch.inf
            value, index = distance.topk(take, largest=False)
            found[start:stop, :take] = torch.where(torch.isinf(value), -1, index).numpy()
            if members is not None and len(own) > 1:
                distance[i, j] = struck
    return out


def votes(near: np.ndarray, code: np.ndarray, ks: Iterable[int]) -> dict[int, np.ndarray]:
    """Predict the most frequent class among the first k neighbours, for each k.

    The lowest code wins a tie, as in scikit-learn.

    Parameters
    ----------
    near : ndarray of int
        (cells, at least the largest k) rows of the cells that vote, nearest first; -1 for none.
    code : ndarray of int
        Class of each cell that can vote, from 0.
    ks : iterable of int
        Numbers of neighbours.

    Returns
    -------
    dict of int to ndarray
        For each k (cells,) class codes, -1 where a cell has no neighbour.
    """
    wanted = set(ks)
    none = int(code.max()) + 1
    label = np.append(code, none)[near]  # row -1 is the last one: no class
    count = np.zeros((len(near), none + 1), np.int32)
    rows, out = np.arange(len(near)), {}
    for k in range(1, max(wanted, default=0) + 1):
        if k <= label.shape[1]:
            count[rows, label[:, k - 1]] += 1
        if k in wanted:
            seen = count[:, :none]
            out[k] = np.where(seen.any(1), seen.argmax(1), -1)
    return out


def vote(near: np.ndarray, code: np.ndarray, k: int) -> np.ndarray:
    """Predict by the first k neighbours, see `votes`: (cells,) class codes, -1 where a cell has no neighbour."""
    return votes(near, code, [k])[k]
