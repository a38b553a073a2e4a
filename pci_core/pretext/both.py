"""Inpainting and contrast at once, on one pass through the encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from pci_core.encoders import follow, scaled
from pci_core.model import PairedCellInpainting
from pci_core.pretext.contrast import contrast
from pci_core.pretext.head import head

PAINTING = 100.0  # weight of the painting's squared error, which is near 0.01 where the contrast is near 1


class InpaintingContrast(PairedCellInpainting):
    """Paint the target's protein from the source, and tell the pair from the cells of other images.

    What the encoder sees may be changed at random; what is painted is the target as it is.
    """

    pretext = "inpainting+contrast"
    over_batch = True
    hidden, embedded = 512, 128

    def __init__(self, n_protein: int = 1, n_structural: int = 1, width: float = 1.0, encoder: str = "paper", loss: str = "mse") -> None:
        super().__init__(n_protein, n_structural, width, encoder, loss)
        self.architecture["pretext"] = self.pretext
        self.head = head(self.source.outputs, scaled(self.hidden, width), self.embedded)
        follow(self)

    def loss(self, source: Tensor, target: Tensor, group: Tensor | None = None, views: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the loss of each pair, (N,): that of `contrast`, and the painting's times `PAINTING`.

        The arguments are those of `pci_core.pretext.contrast.Contrast.loss`.
        """
        p, n = self.architecture["n_protein"], len(source)
        maps, pooled = self.source.encode(torch.cat(views or (source, target)))
        painted = self.decoder(torch.cat([maps[:n], self.target(target[:, p:])], 1))
        with torch.autocast(pooled.device.type, enabled=False):
            first, second = self.head(pooled.float()).chunk(2)
        return PAINTING * self.error(painted, target[:, :p]) + contrast(first, second, group)
