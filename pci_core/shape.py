"""Descriptors of a cell's shape from the structural channels alone: what pairs are made harder by ("targets" in [training]).

The protein channel is never looked at, so that no choice of a pair depends on what the network is to learn. Of each structural
channel, brightness counts from its 1st to its 99th percentile as 0 to 1, and pixels above 1/2 are bright:

- ``size``: share of bright pixels.
- ``elongation``: (a² - b²) / (a² + b²) of the ellipse with the second moments of the bright pixels' brightness, half axes
  a >= b: 0 for a disc, towards 1 for a line. ``along`` and ``across``: elongation times cos 2θ and sin 2θ, θ the angle of the
  long axis to the rows of the crop; an axis has no direction, hence 2θ, and both are 0 for a round cell, which has no orientation.
- ``border``: share of that brightness in a frame of 1/8 of the crop's side: neighbours, or a cell that fills the crop.
- ``radius``: mean distance of that brightness from its centroid, in half sides of the crop.

In training, source and target are flipped independently. A flip turns θ into -θ: it changes the sign of ``across`` and nothing
else. So a target far in ``across`` alone may come to lie like its source after all; along or across the rows it stays.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pci_core.cells import CellDataset
from pci_core.errors import SamplingError

NAMES = ("size", "elongation", "along", "across", "border", "radius")
_BLOCK = 32 << 20  # bytes of a block of crops as float32; up to eight times as much is used on the way
_LOW, _HIGH, _BRIGHT = 0.01, 0.99, 0.5
_FRAME = 8  # the border is 1/8 of the side


def describe(channels: np.ndarray) -> np.ndarray:
    """Describe the shapes in structural channels.

    Parameters
    ----------
    channels : ndarray
        (N, S, H, W), any real type, raw intensities of the structural channels.

    Returns
    -------
    ndarray
        (N, 6 S) float32, for each channel the `NAMES`; zeros where a channel is constant.
    """
    n, s, h, w = channels.shape
    x = channels.reshape(n * s, h * w).astype(np.float32)
    low, high = (_percentile(x, share)[:, None] for share in (_LOW, _HIGH))
    span = np.where(high > low, high - low, np.float32(1))
    x = np.clip((x - low) / span, 0, 1)
    x = np.where((x > _BRIGHT) & (high > low), x, np.float32(0))
    yy, xx = (v.ravel().astype(np.float32) for v in np.mgrid[:h, :w])
    side = min(h, w)
    frame = np.minimum(np.minimum(yy, h - 1 - yy), np.minimum(xx, w - 1 - xx)) < max(1, side // _FRAME)
    mass = x.sum(1)
    total = np.where(mass > 0, mass, np.float32(1))
    y, z = (v - ((x * v).sum(1) / total)[:, None] for v in (yy, xx))  # no product of matrices: its rounding would depend on the block
    myy, mxx, mxy = ((x * a).sum(1) for a in (y * y, z * z, -y * z))  # y goes down, angles are counted upwards
    both = np.where(mxx + myy > 0, mxx + myy, np.float32(1))
    along, across = (mxx - myy) / both, 2 * mxy / both
    radius = (x * np.sqrt(y * y + z * z)).sum(1) / total / (side / 2)
    columns = [(x > 0).mean(1, dtype=np.float32), np.hypot(along, across), along, across, x[:, frame].sum(1) / total, radius]
    return np.stack(columns, 1).astype(np.float32).reshape(n, s * len(NAMES))


def _percentile(x: np.ndarray, share: float) -> np.ndarray:
    """Return a rank of each row's values: no interpolation, which would cost a second partition."""
    k = round(share * (x.shape[1] - 1))
    return np.asarray(np.partition(x, k, axis=1)[:, k])


def shapes(dataset: CellDataset, rows: np.ndarray) -> np.ndarray:
    """Describe the cells that pairs are drawn from, each descriptor on the same scale, so that distances count all alike.

    Costs one read of the crops, in blocks, before the first pair; several processes do it each for themselves.

    Parameters
    ----------
    dataset : CellDataset
    rows : ndarray of int
        Rows to describe, and over which the scale is taken.

    Returns
    -------
    ndarray
        (cells of the dataset, D) float32: mean 0 and variance 1 over `rows`; zeros in the other rows, and in a column that does
        not vary.

    Raises
    ------
    SamplingError
        No structural channel, or no descriptor that varies.
    """
    if not dataset.n_structural:
        raise SamplingError("targets = 'far' compares shapes in the structural channels, and the cells have none. Take 'random'.")
    rows = np.sort(np.asarray(rows, np.int64))
    out = np.zeros((len(dataset), dataset.n_structural * len(NAMES)), np.float32)
    for part in _blocks(dataset, rows):
        out[part] = describe(dataset.read(part)[:, dataset.n_protein :])
    found = out[rows].astype(np.float64)
    mean, spread = found.mean(0), found.std(0)
    varies = spread > 1e-6 * np.maximum(1.0, np.abs(mean))  # below it is the rounding of equal values
    if not varies.any():
        raise SamplingError(
            f"targets = 'far' needs cells that differ in shape, and all {len(rows)} are alike in the structural channels "
            f"({', '.join(c.name for c in dataset.channels[dataset.n_protein :])}). Look at the crops, or take 'random'."
        )
    out[rows] = np.where(varies, (found - mean) / np.where(varies, spread, 1.0), 0.0)
    return out


def _blocks(dataset: CellDataset, rows: np.ndarray) -> Iterator[np.ndarray]:
    size = max(1, _BLOCK // (4 * int(np.prod(dataset.crops.shape[1:]))))
    for first in range(0, len(rows), size):
        yield rows[first : first + size]
