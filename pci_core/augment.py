"""Random changes of crops that keep where the protein is: what differs between images for other reasons is made to differ in every view.

Gain, background, noise and illumination are shared by the cells of an image, so that two of its cells can be told from those of other
images by them. A loss that asks for this learns them unless they are worth nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pci_core.errors import unknown_name


@dataclass(frozen=True)
class Strength:
    """How far the changes go; each cell and channel draws its own from the range, evenly.

    Attributes
    ----------
    gain : float
        Factor exp(±gain).
    offset : float
        Added to all pixels, ±offset.
    noise : float
        Largest standard deviation of normal noise.
    power : float
        Pixels to the power exp(±power): contrast between weak and strong.
    slope : float
        Illumination: factor from 1 - slope to 1 + slope across the crop, in any direction.
    bleed : float
        Largest share of each other channel that is seen in a channel.
    blur : float
        Largest share of a blurred copy (5x5 binomial) in place of the crop.
    """

    gain: float = 0.4
    offset: float = 0.1
    noise: float = 0.05
    power: float = 0.0
    slope: float = 0.0
    bleed: float = 0.0
    blur: float = 0.0


STRENGTHS: dict[str, Strength | None] = {
    "none": None,
    "standard": Strength(),
    "strong": Strength(power=0.5, slope=0.2, bleed=0.15, blur=1.0),
}


def strength_of(name: str, pretext: str) -> Strength | None:
    """Return a strength by name; empty: none for inpainting, as in the paper, ``standard`` for the others."""
    name = name or ("none" if pretext == "inpainting" else "standard")
    if name not in STRENGTHS:
        raise unknown_name("augmentation", name, STRENGTHS)
    return STRENGTHS[name]


Draws = dict[str, Tensor]


def draw(shape: tuple[int, ...], strength: Strength, generator: torch.Generator) -> Draws:
    """Draw the changes of a batch, on the generator's device.

    Parameters
    ----------
    shape : tuple of int
        (N, C, H, W).
    strength : Strength
    generator : torch.Generator
        All randomness comes from it.

    Returns
    -------
    dict of str to Tensor
        For `change`.
    """
    n, c, h, w = shape

    def even(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, device=generator.device)

    def around(limit: float, *size: int) -> Tensor:
        return (even(*size) * 2 - 1) * limit

    draws = {
        "turn": even(n) < 0.5,
        "gain": around(strength.gain, n, c, 1, 1).exp(),
        "offset": around(strength.offset, n, c, 1, 1),
        "noise": torch.randn(shape, generator=generator, device=generator.device) * (even(n, c, 1, 1) * strength.noise),
    }
    if strength.power:
        draws["power"] = around(strength.power, n, c, 1, 1).exp()
    if strength.slope:
        draws["slope"] = around(strength.slope / 2, n, c, 2, 1, 1)
    if strength.bleed and c > 1:
        draws["bleed"] = even(n, c, c) * strength.bleed * (1 - torch.eye(c, device=generator.device))
    if strength.blur:
        draws["blur"] = even(n, 1, 1, 1) * strength.blur
    return draws


def change(x: Tensor, draws: Draws) -> Tensor:
    """Change crops as drawn: transposed (square ones), bleed-through, blur, power, illumination, gain, offset, noise.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W) float32, >= 0.
    draws : dict of str to Tensor
        Of `draw` for the same shape.

    Returns
    -------
    Tensor
        (N, C, H, W) float32; not bounded.
    """
    h, w = x.shape[2:]
    if h == w:
        x = torch.where(draws["turn"].view(-1, 1, 1, 1), x.transpose(2, 3), x)
    if "bleed" in draws:
        x = x + torch.einsum("nij,njhw->nihw", draws["bleed"], x)
    if "blur" in draws:
        x = x + draws["blur"] * (_blurred(x) - x)
    if "power" in draws:
        x = (x + 1e-3) ** draws["power"]  # a power of 0 has no slope that is a number
    if "slope" in draws:
        down, across = (torch.linspace(-1, 1, side, device=x.device) for side in (h, w))
        x = x * (1 + draws["slope"][:, :, 0] * down.view(-1, 1) + draws["slope"][:, :, 1] * across)
    return (x * draws["gain"] + draws["offset"] + draws["noise"]).contiguous(memory_format=torch.channels_last)


def _blurred(x: Tensor) -> Tensor:
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=x.device, dtype=x.dtype) / 16
    c = x.shape[1]
    x = F.conv2d(F.pad(x, (2, 2, 0, 0), "replicate"), row.view(1, 1, 1, 5).expand(c, 1, 1, 5), groups=c)
    return F.conv2d(F.pad(x, (0, 0, 2, 2), "replicate"), row.view(1, 1, 5, 1).expand(c, 1, 5, 1), groups=c)
