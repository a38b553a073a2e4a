"""Measurements of where a protein lies in its cell that a biologist can read.

In the spirit of Handfield et al. 2013 (PLoS Comput Biol 9:e1003085), which the paper compares with on yeast:
intensity-weighted distances of the protein to the cell's edge, its centre, its own centre of mass and itself,
and how it is spread. This is NOT the authors' software, nor their list of features: segmentation and formulas are our
own. Names say what is measured and in which unit: ``_um`` and ``_um2`` where the size of a pixel is known, else ``_px``.

The protein's weight in a pixel is its intensity above the crop's background (5th percentile), within the mask of
`pci_core.imaging.masks`. Where no pixel of the cell is above it, the protein counts as evenly spread, which is
what all ``_vs_even`` features (1 = as if evenly spread over this cell) compare with. Where the crop cuts a cell,
the crop's edge counts as the cell's.
"""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import torch
from scipy import ndimage as ndi
from scipy.fft import irfft2, next_fast_len, rfft2
from skimage.measure import label as connected

from pci_core.baselines import Measured
from pci_core.baselines.percell import Columns, per_cell
from pci_core.cells import CellDataset, Channel
from pci_core.imaging.masks import FALLBACK, cell_masks
from pci_core.preprocess import FULL_RANGE
from pci_core.recipe import Preprocess

BACKGROUND = 5  # percentile of the crop's protein channel
SPOT_CONTRAST = 1.3  # a spot is this many times as bright as its surroundings
SPOT_AREA = 3  # px at least, in a crop of 64 px
_SIDE = 64  # px of the crops on which lengths were set
_FOUND = "mask found"


def designed(dataset: CellDataset, spec: Preprocess, *, jobs: int = -1, quiet: bool = False) -> Measured:
    """Measure where the protein lies in its cell.

    Parameters
    ----------
    dataset : CellDataset
        (N, C, H, W) crops. Several protein channels are each measured, their names then end the features' names.
    spec : Preprocess
        Only ``full`` is used: raw intensities are given as a share of it.
    jobs : int
        Processes, -1 = all cores.
    quiet : bool
        No progress bar and no printed line.

    Returns
    -------
    Measured
        About 30 features, six more where a channel shows nuclei; ``facts`` count the cells whose mask is a stand-in.
    """
    full = spec.full or FULL_RANGE.get(torch.from_numpy(np.empty(0, dataset.crops.dtype)).dtype, 1.0)
    measure = partial(
        measure_designed, channels=tuple(dataset.channels), n_protein=dataset.n_protein, um_per_px=dataset.um_per_px, full=full
    )
    columns = per_cell(measure, dataset, "designed", jobs=jobs, quiet=quiet)
    found = columns.pop(_FOUND)
    facts = {
        "model": "designed",
        "note": "in the spirit of Handfield et al. 2013, not the authors' software",
        "unit": "um" if dataset.um_per_px else "px",
        "background": f"{BACKGROUND}th percentile of the crop's protein channel",
        "mask": "structural channels only, see pci_core.imaging.masks",
        "mask_fallback": FALLBACK,
        "cells_without_own_mask": int((~found).sum()),
    }
    return Measured(np.stack(list(columns.values()), 1).astype(np.float32), list(columns), facts)


def measure_designed(crops: np.ndarray, channels: tuple[Channel, ...], n_protein: int, um_per_px: float | None, full: float) -> Columns:
    """Measure a chunk of crops (n, C, H, W); see `designed`."""
    masks = cell_masks(crops, channels)
    raw = crops.astype(np.float64) / full
    markers = [c.name for c in channels[n_protein:]]
    rows = []
    for i, planes in enumerate(raw):
        row: dict[str, float] = {}
        for p in range(n_protein):
            nucleus = None if masks.nucleus is None else masks.nucleus[i]
            one = measure_cell(planes[p], masks.cell[i], nucleus, dict(zip(markers, planes[n_protein:], strict=True)), um_per_px)
            ending = f"_{channels[p].name}" if n_protein > 1 else ""
            row.update({f"designed_{k}{ending}": v for k, v in one.items()})
        rows.append(row)
    return {**{k: np.array([r[k] for r in rows]) for k in rows[0]}, _FOUND: masks.found}


def measure_cell(
    protein: np.ndarray, cell: np.ndarray, nucleus: np.ndarray | None, markers: dict[str, np.ndarray], um_per_px: float | None = None
) -> dict[str, float]:
    """Measure one protein in one cell.

    Parameters
    ----------
    protein : ndarray
        (H, W) intensity.
    cell : ndarray
        (H, W) bool. An empty one counts as the whole crop.
    nucleus : ndarray or None
        (H, W) bool.
    markers : dict of str to ndarray
        (H, W) intensity of each structural channel.
    um_per_px : float or None
        Pixel size; lengths are in px without it.

    Returns
    -------
    dict of str to float
        All finite.
    """
    if not cell.any():
        cell = np.ones_like(cell)
    size, unit = (um_per_px, "um") if um_per_px else (1.0, "px")
    base = np.percentile(protein, BACKGROUND)
    weight = np.where(cell, np.maximum(protein - base, 0), 0.0)
    level = float(weight.sum() / cell.sum())
    weight = weight / weight.sum() if level > 0 else cell / cell.sum()
    even = cell / cell.sum()
    depth = ndi.distance_transform_edt(np.pad(cell, 1))[1:-1, 1:-1]
    rows, columns = _grid(cell)

    def centre(w: np.ndarray) -> tuple[float, float]:
        return float((w * rows).sum()), float((w * columns).sum())

    middle, own = centre(even), centre(weight)
    from_middle = np.hypot(rows - middle[0], columns - middle[1])
    from_own = np.hypot(rows - own[0], columns - own[1])
    radius = np.sqrt(cell.sum() / np.pi)
    lengths = {
        "distance_to_edge": (weight * depth).sum(),
        "distance_to_cell_centre": (weight * from_middle).sum(),
        "distance_to_own_centre": (weight * from_own).sum(),
        "distance_to_itself": mean_distance(weight),
        "spread": np.sqrt((weight * from_own**2).sum()),
        "offset_from_cell_centre": np.hypot(own[0] - middle[0], own[1] - middle[1]),
    }
    out = {f"{k}_{unit}": float(v * size) for k, v in lengths.items()}
    expected = {
        "distance_to_edge": (even * depth).sum(),
        "distance_to_cell_centre": (even * from_middle).sum(),
        "distance_to_itself": mean_distance(even),
        "spread": np.sqrt((even * from_middle**2).sum()),
    }
    out.update({f"{k}_vs_even": float(lengths[k] / v) if v > 0 else 1.0 for k, v in expected.items()})
    out["offset_over_cell_radius"] = float(lengths["offset_from_cell_centre"] / radius)
    out["roundness"] = _roundness(weight, rows - own[0], columns - own[1])
    out.update(_concentration(weight[cell]))
    out.update(_zones(weight, cell, depth))
    out.update(_spots(weight, cell, size, unit))
    if nucleus is not None:
        out.update(_nuclear(weight, cell, nucleus, size, unit))
    outside = protein[~cell]
    out["mean_intensity"] = float(protein[cell].mean())
    out["mean_intensity_above_background"] = level
    out["log2_cell_over_surroundings"] = _log2_ratio(float(protein[cell].mean()), float(outside.mean()) if outside.size else 0.0)
    for name, marker in markers.items():
        signal = np.maximum(marker - np.percentile(marker, BACKGROUND), 0)
        out[f"log2_ratio_over_{name}"] = _log2_ratio(level, float(signal[cell].mean()))
        out[f"correlation_with_{name}"] = _correlation(protein[cell], marker[cell])
    return out


def mean_distance(weight: np.ndarray) -> float:
    """Mean distance (px) of two points drawn independently from `weight`, (H, W) that sums to 1; exact, by autocorrelation."""
    shape, distance = _lags(*weight.shape)
    overlap = irfft2(np.abs(rfft2(weight, shape)) ** 2, shape)
    return float((np.maximum(overlap, 0) * distance).sum())


@lru_cache(maxsize=4)
def _lags(height: int, width: int) -> tuple[tuple[int, int], np.ndarray]:
    shape = next_fast_len(2 * height - 1, real=True), next_fast_len(2 * width - 1, real=True)
    lags = [np.minimum(np.arange(n), n - np.arange(n)) for n in shape]
    return shape, np.hypot(*np.meshgrid(*lags, indexing="ij"))


def _grid(like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    grid = np.indices(like.shape)
    return grid[0], grid[1]


def _roundness(weight: np.ndarray, y: np.ndarray, x: np.ndarray) -> float:
    """Short over long axis of the protein's own ellipse; 1 for a point."""
    yy, xx, yx = (weight * y * y).sum(), (weight * x * x).sum(), (weight * y * x).sum()
    root = np.hypot((yy - xx) / 2, yx)
    long, short = (yy + xx) / 2 + root, max((yy + xx) / 2 - root, 0.0)
    return float(np.sqrt(short / long)) if long > 1e-12 else 1.0


def _concentration(weight: np.ndarray) -> dict[str, float]:
    """How few pixels hold the protein; `weight` are the n pixels of the cell and sum to 1."""
    n = len(weight)
    falling = np.sort(weight)[::-1]
    held = np.cumsum(falling)
    lit = falling[falling > 0]
    return {
        "compactness_area_share_of_half": float((np.searchsorted(held, 0.5 - 1e-9) + 1) / n),
        "compactness_area_share_of_nine_tenths": float((np.searchsorted(held, 0.9 - 1e-9) + 1) / n),
        "gini": float((n + 1 - 2 * held.sum()) / n * -1) if n > 1 else 0.0,
        "brightest_over_mean": float(falling[0] * n),
        "variation": float(weight.std() * n),
        "evenness": float(-(lit * np.log(lit)).sum() / np.log(n)) if n > 1 else 1.0,
    }


def _zones(weight: np.ndarray, cell: np.ndarray, depth: np.ndarray) -> dict[str, float]:
    """Share of the protein in the outer, middle and inner third of the way from the edge to the deepest point."""
    share = depth / depth.max()
    bounds = {"outer": (0.0, 1 / 3), "middle": (1 / 3, 2 / 3), "inner": (2 / 3, 1.01)}
    return {f"share_in_{k}_third": float(weight[cell & (share > low) & (share <= high)].sum()) for k, (low, high) in bounds.items()}


def _spots(weight: np.ndarray, cell: np.ndarray, size: float, unit: str) -> dict[str, float]:
    """Places brighter than their surroundings: how many, how large, how much of the protein."""
    scale = min(cell.shape) / _SIDE
    inside = cell.astype(np.float64)
    # means over the cell's own pixels, so that the dark outside does not make the edge a spot
    near = ndi.gaussian_filter(weight, scale) / np.maximum(ndi.gaussian_filter(inside, scale), 1e-9)
    wide = ndi.gaussian_filter(weight, 5 * scale) / np.maximum(ndi.gaussian_filter(inside, 5 * scale), 1e-9)
    # 1 where even; the tenth of the mean keeps the noise of empty regions from counting
    contrast = 1.1 * near / (wide + 0.1 * weight[cell].mean())
    labels = connected(cell & (contrast > SPOT_CONTRAST), connectivity=1)
    peak = np.concatenate([[np.inf], ndi.maximum(contrast, labels, np.arange(1, labels.max() + 1))])[labels]
    labels = np.where(contrast >= (1 + peak) / 2, labels, 0)  # down to half its height, else brighter spots would be larger
    areas = np.bincount(labels.ravel())[1:]
    large = areas >= max(1, round(SPOT_AREA * scale**2))
    spots = np.concatenate([[False], large])[labels]
    areas = areas[large]
    return {
        "spot_count": float(len(areas)),
        f"spot_mean_area_{unit}2": float(areas.mean() * size**2) if len(areas) else 0.0,
        f"spot_largest_area_{unit}2": float(areas.max() * size**2) if len(areas) else 0.0,
        "spot_share_of_protein": float(weight[spots].sum()),
        "spot_share_of_area": float(areas.sum() / cell.sum()),
        "spot_strongest_contrast": float(contrast[cell].max()),
    }


def _nuclear(weight: np.ndarray, cell: np.ndarray, nucleus: np.ndarray, size: float, unit: str) -> dict[str, float]:
    """Where the protein lies from the nucleus; an empty nucleus holds nothing and is the cell's middle."""
    nucleus = nucleus & cell
    if not nucleus.any():
        rows, columns = _grid(cell)
        y, x = rows[cell].mean(), columns[cell].mean()
        away, at_edge = np.hypot(rows - y, columns - x), np.zeros_like(cell)
        into = np.zeros(cell.shape)
    else:
        away, into = ndi.distance_transform_edt(~nucleus), ndi.distance_transform_edt(np.pad(nucleus, 1))[1:-1, 1:-1]
        reach = 1.5 * min(cell.shape) / _SIDE
        at_edge = cell & (away <= reach) & (into <= reach)
    share = float(weight[nucleus].sum())
    cytoplasm = cell & ~nucleus
    edge_even = at_edge.sum() / cell.sum()
    density = [float(weight[m].mean()) if m.any() else 0.0 for m in (nucleus, cytoplasm)]
    return {
        f"distance_to_nucleus_{unit}": float((weight * away).sum() * size),
        f"distance_to_nuclear_edge_{unit}": float((weight * np.where(nucleus, into, away)).sum() * size),
        "share_in_nucleus": share,
        "log2_nucleus_over_cytoplasm": _log2_ratio(*density),
        "share_at_nuclear_edge_vs_even": float(weight[at_edge].sum() / edge_even) if edge_even > 0 else 0.0,
        "variation_in_nucleus": float(weight[nucleus].std() / density[0]) if density[0] > 0 else 0.0,
    }


def _log2_ratio(a: float, b: float) -> float:
    """log2 of a / b, held within ±10 (a thousand times), 0 where both are zero: fold changes up and down weigh the same."""
    if a <= 0 and b <= 0:
        return 0.0
    return float(np.clip(np.log2(max(a, 1e-12) / max(b, 1e-12)), -10, 10))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
