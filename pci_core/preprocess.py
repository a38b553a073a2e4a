"""Raw crops to [0, 1], on the device, in the batch ("Datasets, Preprocessing, and Training")."""

from __future__ import annotations

import torch
from torch import Tensor

from pci_core.recipe import Preprocess

FULL_RANGE = {torch.uint8: 255.0, torch.uint16: 65535.0}


def minmax(x: Tensor) -> Tensor:
    """Rescale each channel of each crop from its own minimum and maximum to [0, 1].

    Parameters
    ----------
    x : Tensor
        (N, C, H, W) float32.

    Returns
    -------
    Tensor
        (N, C, H, W) in [0, 1]; zeros where a channel is constant.
    """
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    span = high - low
    return (x - low) / torch.where(span > 0, span, torch.ones_like(span))


def clip(x: Tensor, floor: float, full: float) -> Tensor:
    """Rescale [floor, 1] of the full intensity range to [0, 1]; what is below becomes 0.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W) float32.
    floor : float
        Share of the full range below which a pixel counts as background.
    full : float
        Intensity that counts as 1.
    """
    return ((x / full - floor) / (1.0 - floor)).clamp_(min=0.0)


def preprocess(raw: Tensor, spec: Preprocess, n_protein: int) -> Tensor:
    """Make a batch of raw crops ready for the network.

    Parameters
    ----------
    raw : Tensor
        (N, C, H, W), uint8, uint16 or float32, protein channels first.
    spec : Preprocess
        The recipe's section.
    n_protein : int
        Number of protein channels.

    Returns
    -------
    Tensor
        (N, C, H, W) float32 in [0, 1].
    """
    full = spec.full or FULL_RANGE.get(raw.dtype, 1.0)
    x = raw.to(torch.float32)
    if spec.protein == spec.structural == "minmax":
        return minmax(x)
    parts = [
        minmax(part) if how == "minmax" else clip(part, spec.floor, full)
        for how, part in ((spec.protein, x[:, :n_protein]), (spec.structural, x[:, n_protein:]))
    ]
    return torch.cat(parts, 1)


def flip(x: Tensor, flips: Tensor) -> Tensor:
    """Mirror each crop as told.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W).
    flips : Tensor
        (N, 2) bool: vertical, horizontal.
    """
    if x.dtype == torch.uint16:  # torch has no flip for it; the bits are the same
        return flip(x.view(torch.int16), flips).view(torch.uint16)
    vertical, horizontal = flips[:, 0, None, None, None], flips[:, 1, None, None, None]
    x = torch.where(vertical, x.flip(2), x)
    return torch.where(horizontal, x.flip(3), x)
