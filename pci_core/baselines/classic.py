"""The paper's classical features for human cells: intensity, correlation with the markers, Haralick texture.

Source: Methods, "Baseline Feature Extraction and Benchmarking". What the paper leaves open is decided here: sum, mean
and standard deviation are of raw intensities, since they say nothing once every crop is stretched to [0, 1];
texture is of the preprocessed protein channel in 255 grey levels, its 13 measurements (Haralick's, without the 14th)
averaged over the four directions. All are of the whole crop: these features know of no cell.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import version

import numpy as np
import torch

from pci_core.baselines import Measured
from pci_core.baselines.percell import Columns, per_cell
from pci_core.cells import CellDataset
from pci_core.preprocess import preprocess
from pci_core.recipe import Preprocess

SCALES = (1, 2, 4, 8, 16)  # px; the paper's five
LEVELS = 255  # 1 … 255: the implementation takes 0 for background


def classic(dataset: CellDataset, spec: Preprocess, *, jobs: int = -1, quiet: bool = False) -> Measured:
    """Measure the paper's classical features.

    Parameters
    ----------
    dataset : CellDataset
        (N, C, H, W) crops. Several protein channels are each measured.
    spec : Preprocess
        As for the networks; used for texture.
    jobs : int
        Processes, -1 = all cores.
    quiet : bool
        No progress bar and no printed line.

    Returns
    -------
    Measured
        For each protein channel ``classic_sum_…``, ``_mean_…``, ``_std_…`` (raw intensity), ``classic_correlation_…`` with each
        structural channel (Pearson; 0 where a channel is constant) and ``classic_haralick_…_<scale>px``: 68 features and one for each
        structural channel. Scales that do not fit into the crop are left out (``facts["scales_left_out"]``).
    """
    names = tuple(c.name for c in dataset.channels)
    side = min(dataset.crops.shape[2:])
    scales = tuple(s for s in SCALES if s < side)
    measure = partial(measure_classic, names=names, n_protein=dataset.n_protein, spec=spec, scales=scales)
    columns = per_cell(measure, dataset, "classic", jobs=jobs, quiet=quiet)
    facts = {
        "model": "classic",
        "library": f"cp_measure {version('cp_measure')} (Haralick)",
        "intensity": "raw, whole crop",
        "texture": f"preprocessed protein, {LEVELS} grey levels, mean of 4 directions",
        "scales_left_out": ", ".join(str(s) for s in SCALES if s not in scales) or "none",
    }
    return Measured(np.stack(list(columns.values()), 1).astype(np.float32), list(columns), facts)


def measure_classic(crops: np.ndarray, names: tuple[str, ...], n_protein: int, spec: Preprocess, scales: tuple[int, ...]) -> Columns:
    """Measure a chunk of crops (n, C, H, W); see `classic`."""
    raw = crops.astype(np.float64)
    stretched = preprocess(torch.from_numpy(crops), spec, n_protein)[:, :n_protein].numpy()
    out: Columns = {}
    for p in range(n_protein):
        name, protein = names[p], raw[:, p]
        out[f"classic_sum_{name}"] = protein.sum((1, 2))
        out[f"classic_mean_{name}"] = protein.mean((1, 2))
        out[f"classic_std_{name}"] = protein.std((1, 2))
        for s in range(n_protein, raw.shape[1]):
            out[f"classic_correlation_{name}_{names[s]}"] = correlation(protein, raw[:, s])
        for scale in scales:
            for feature, values in _haralick(stretched[:, p], scale).items():
                out[f"classic_haralick_{feature}_{name}_{scale}px"] = values
    return out


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of the pixels of each pair of images (n, H, W): (n,) in [-1, 1], 0 where one is constant."""
    varied = (np.ptp(a, axis=(1, 2)) > 0) & (np.ptp(b, axis=(1, 2)) > 0)
    a, b = a - a.mean((1, 2), keepdims=True), b - b.mean((1, 2), keepdims=True)
    norm = np.sqrt((a * a).sum((1, 2)) * (b * b).sum((1, 2)))
    return np.where(varied, (a * b).sum((1, 2)) / np.where(varied, norm, 1), 0.0)


def _haralick(images: np.ndarray, scale: int) -> dict[str, np.ndarray]:
    # imported here: numba takes a second, and these are the only lines that need it
    from cp_measure.core.measuretexture import F_HARALICK
    from cp_measure.core.numba.measuretexture import get_texture

    n, height, width = images.shape
    levels = np.rint(np.clip(images, 0, 1) * (LEVELS - 1)).astype(np.uint8) + 1
    # one tall label image: a call has its cost, a label none
    labels = np.repeat(np.arange(1, n + 1), height * width).reshape(n * height, width)
    found = get_texture(labels, levels.reshape(n * height, width), scale=scale)
    return {f.lower(): np.mean([found[f"{f}_{scale}_{d:02d}_256"] for d in range(4)], axis=0) for f in F_HARALICK}
