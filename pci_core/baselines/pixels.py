"""The protein channel itself, down-sampled: what a feature set must beat to be worth its name."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from pci_core.baselines import Measured, numbered
from pci_core.cells import CellDataset
from pci_core.preprocess import preprocess
from pci_core.recipe import Preprocess


def pixels(dataset: CellDataset, spec: Preprocess, pool: int = 4, batch_size: int = 1024) -> Measured:
    """Average the preprocessed protein channel over squares of pixels.

    Parameters
    ----------
    dataset : CellDataset
        (N, C, H, W) crops.
    spec : Preprocess
        As for the networks.
    pool : int
        Side of the squares, px.
    batch_size : int
        Cells at a time.

    Returns
    -------
    Measured
        (N, protein channels * H / pool * W / pool) float32 in [0, 1].
    """
    out = []
    for start in range(0, len(dataset), batch_size):
        raw = torch.from_numpy(dataset.read(np.arange(start, min(start + batch_size, len(dataset)))))
        protein = preprocess(raw, spec, dataset.n_protein)[:, : dataset.n_protein]
        out.append(F.avg_pool2d(protein, pool).flatten(1).numpy())
    values = np.concatenate(out)
    return Measured(values, numbered("pixels", values.shape[1]), {"model": "pixels", "pooling": f"mean of {pool} x {pool} px"})
