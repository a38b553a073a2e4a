"""Distances of all pairs of rows, condensed as scipy's `pdist` does, as products of matrices on every core.

``|x - y|^2 = |x|^2 + |y|^2 - 2 xy`` loses digits where x and y are nearly equal; such pairs are computed from their difference.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
from scipy.spatial.distance import pdist
from threadpoolctl import threadpool_limits

_FEW = 2000  # rows, up to which pdist takes no second
_BLOCK = 128  # rows at a time: with 12,000 others 12 MB on each core
_NEAR = 1e-4  # of |x|^2 + |y|^2: a squared distance below it is computed from the difference, one above keeps 11 digits


def condensed_distances(x: np.ndarray, metric: str) -> np.ndarray:
    """Return the distance of every pair of rows, as `scipy.spatial.distance.pdist` does and in its order.

    Parameters
    ----------
    x : ndarray
        (rows, features) float64, finite; for ``"correlation"`` no row of one value, for ``"cosine"`` none of zeros.
    metric : str
        ``"euclidean"``, ``"correlation"`` or ``"cosine"``.

    Returns
    -------
    ndarray
        (rows * (rows - 1) / 2,) float64. Up to 2,000 rows scipy's own; beyond within 1e-10 of them (relative; of correlations
        and cosines, where scipy subtracts from 1, within 1e-14 absolute), and the same for any number of cores.
    """
    n = len(x)
    if n <= _FEW:
        result: np.ndarray = pdist(x, metric)
        return result
    if metric != "euclidean":  # half the squared distance of rows brought to one length
        x = x - x.mean(1, keepdims=True) if metric == "correlation" else x
        x = x / np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]
    square = np.einsum("ij,ij->i", x, x)
    out = np.empty(n * (n - 1) // 2)

    def fill(start: int) -> None:
        stop = min(start + _BLOCK, n)
        product = (-2 * x[start:stop]) @ x[start:].T
        for i in range(start, stop):
            first = i * (2 * n - i - 1) // 2  # where the pairs of row i with later ones begin
            row, later = out[first : first + n - i - 1], square[i + 1 :] + square[i]
            np.add(product[i - start, i - start + 1 :], later, out=row)
            later *= _NEAR
            near = np.flatnonzero(row < later)  # all that rounding made negative are among them
            if len(near):
                gap = x[near + i + 1] - x[i]
                row[near] = np.einsum("ij,ij->i", gap, gap)
            if metric == "euclidean":
                np.sqrt(row, out=row)
            else:
                row *= 0.5

    # a thread for each block and none within a product: the passes over its distances then run side by side too
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(joblib.cpu_count(), thread_name_prefix="pairwise") as pool:
        list(pool.map(fill, range(0, n, _BLOCK)))
    return out
