"""The same cell on both sides of a split: told by its features, whatever it is called.

An image that is in a collection twice, under two names, stands in two groups; leaving out one of them leaves the other in. Two cells
of microscopy never have the same value in many features, so equal rows are one cell.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from pci_core.analysis.knn import constant_features, standardise

LEAST_FEATURES = 8  # fewer, or counts, may well be equal by chance
_DIGITS = 3  # of standardised features: last bits may depend on the machine that made either half of a table


def twins(x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Tell which cells have the same features as a cell of another group.

    Parameters
    ----------
    x : ndarray
        (cells, features), finite.
    groups : ndarray
        (cells,) what is left out together, e.g. image codes.

    Returns
    -------
    ndarray of bool
        (cells,); all false where fewer than `LEAST_FEATURES` features vary.
    """
    out = np.zeros(len(x), bool)
    if (~constant_features(x)).sum() < LEAST_FEATURES:
        return out
    code = np.unique(groups, return_inverse=True)[1]
    near = np.round(standardise(x), _DIGITS) + 0.0  # no negative zero
    key = np.array([int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest(), "big") >> 1 for row in near], np.int64)
    _, same, times = np.unique(key, return_inverse=True, return_counts=True)
    for value in np.flatnonzero(times > 1):
        rows = np.flatnonzero(same == value)
        out[rows] = len(np.unique(code[rows])) > 1
    return out
