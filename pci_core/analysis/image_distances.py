"""Mean distances of the cells of two images, for many pairs of images at a time.

Each image's cells are multiplied by those of a few hundred cells of its partners at once, on every core. Gathering the
partners costs as much as multiplying them, so of a pair the larger image stays and the smaller one is gathered.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
from threadpoolctl import threadpool_limits

_BLOCK = 1024  # cells of partners at a time: at 384 features 1.6 MB, which the processor's cache still holds
_TASK = 8  # blocks that a thread does in a row: 40 ms of work
_ROUND = 8  # products of matrices are a third faster where the number of rows is a multiple of this


def mean_distances(x: np.ndarray, image: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the mean Euclidean distance of all pairs of cells for each pair of images.

    Parameters
    ----------
    x : ndarray
        (cells, features) float32, standardised.
    image : ndarray of int
        (cells,) code of each cell's image; -1 for cells that count nowhere.
    a, b : ndarray of int
        (pairs,) codes of two images each, not one image twice (a cell has no distance to itself). A pair that stands
        twice, either way round, is computed once.

    Returns
    -------
    ndarray
        (pairs,) float64; products and roots are float32, their sums float64. The same for any number of cores.
    """
    n = int(max(a.max(), b.max())) + 1
    key, inverse = np.unique(np.minimum(a, b).astype(np.int64) * n + np.maximum(a, b), return_inverse=True)
    work = _Pairs(np.ascontiguousarray(x, np.float32), image, *np.divmod(key, n))
    ends = work.ends()
    tasks = [ends[i : i + _TASK + 1] for i in range(0, len(ends) - 1, _TASK)]
    # many small products: a thread for each core and none within a product, which would wait more than it works
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(min(joblib.cpu_count(), len(tasks)), thread_name_prefix="distances") as pool:
        found = np.concatenate(list(pool.map(work.means, tasks)))
    out = np.empty(len(key))
    out[work.order] = found
    return out[inverse]


class _Pairs:
    """Pairs of images in the order in which they are computed: all partners of one image in a row.

    Attributes
    ----------
    order : ndarray of int
        Which of the given pairs stands where.
    stays, partner : ndarray of int
        (pairs,) the image whose cells stay, and the one whose cells are gathered.
    """

    def __init__(self, x: np.ndarray, image: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        self._x, self._square = x, np.einsum("ij,ij->i", x, x)
        cells = np.argsort(image, kind="stable")
        self._cells = cells[np.searchsorted(image[cells], 0) :]
        self._size = np.bincount(image[self._cells], minlength=int(max(a.max(), b.max())) + 1)
        self._first = np.cumsum(self._size) - self._size
        larger = self._size[b] > self._size[a]
        stays, partner = np.where(larger, b, a), np.where(larger, a, b)
        self.order = np.lexsort((partner, stays))
        self.stays, self.partner = stays[self.order], partner[self.order]

    def ends(self) -> np.ndarray:
        """Return where a block of pairs ends and the next begins: one image that stays, some `_BLOCK` cells of its partners."""
        upto = np.cumsum(self._size[self.partner])
        full = np.searchsorted(upto, np.arange(_BLOCK, upto[-1], _BLOCK), side="right")
        return np.unique(np.concatenate([np.flatnonzero(np.diff(self.stays, prepend=-1)), full, [len(upto)]]))

    def means(self, ends: np.ndarray) -> np.ndarray:
        """Return the mean distance of each pair of some blocks."""
        partner = self.partner[ends[0] : ends[-1]]
        size = self._size[partner]
        upto = np.concatenate([[0], np.cumsum(size)])
        cells = self._cells[np.repeat(self._first[partner] - upto[:-1], size) + np.arange(upto[-1])]
        square = self._square[cells]
        block = ends - ends[0]
        room = np.empty((int(np.diff(upto[block]).max()), self._x.shape[1]), np.float32)
        out, before = np.empty(len(partner)), -1
        for start, stop in zip(block[:-1], block[1:], strict=True):
            if (one := int(self.stays[ends[0] + start])) != before:
                left, own = self._left(one)
                before = one
            low, high = upto[start], upto[stop]
            right = room[: high - low]
            np.take(self._x, cells[low:high], axis=0, out=right, mode="clip")  # "clip": without a copy for the case of an error
            distance = (left @ right.T)[: len(own)]
            distance += square[low:high]
            distance += own
            np.sqrt(np.maximum(distance, 0, out=distance), out=distance)
            total = np.add.reduceat(distance.sum(0, dtype=np.float64), upto[start:stop] - low)
            out[start:stop] = total / (len(own) * size[start:stop])
        return out

    def _left(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the cells of an image times -2, filled up with rows of 0, and the column of their squared norms."""
        cells = self._cells[self._first[image] : self._first[image] + self._size[image]]
        left = np.zeros((-(-len(cells) // _ROUND) * _ROUND, self._x.shape[1]), np.float32)
        np.multiply(self._x[cells], -2, out=left[: len(cells)])
        return left, self._square[cells, None]
