"""Contrast: two cells of one image are to be alike, and unlike the cells of other images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pci_core.pretext.head import Embedding

TEMPERATURE = 0.2  # of the similarities: lower looks at the hardest others only, and many of these share the location


def contrast(source: Tensor, target: Tensor, group: Tensor | None = None, temperature: float = TEMPERATURE) -> Tensor:
    """Normalised temperature-scaled cross entropy of each pair (NT-Xent; Chen et al. 2020), without other cells of its image.

    Parameters
    ----------
    source, target : Tensor
        (N, D) float embeddings; row i of both is a pair.
    group : Tensor, optional
        (N,) integers: cells of the same number are never told apart. By default each pair is one of its own.
    temperature : float

    Returns
    -------
    Tensor
        (N,): the mean over both cells of -log of the share that the partner has among all cells of other images and itself; 0 where
        there are none.
    """
    n = len(source)
    z = F.normalize(torch.cat([source, target]).float(), dim=1)
    alike = z @ z.T / temperature
    of = torch.arange(n, device=z.device) if group is None or not len(group) else group.to(z.device)
    of = torch.cat([of, of])
    partner = torch.arange(2 * n, device=z.device).roll(n)
    left_out = of[:, None] == of[None, :]  # the cell itself, too
    left_out[torch.arange(2 * n, device=z.device), partner] = False
    both = F.cross_entropy(alike.masked_fill(left_out, float("-inf")), partner, reduction="none")
    return (both[:n] + both[n:]) / 2


class Contrast(Embedding):
    """Pull the embeddings of a pair together and apart from those of other images' cells.

    Proteins of the same location in different images are pushed apart as well; what the encoder cannot tell apart stays together.
    """

    pretext = "contrast"

    def loss(self, source: Tensor, target: Tensor, group: Tensor | None = None, views: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the loss of each pair, (N,), see `contrast`.

        Parameters
        ----------
        source, target : Tensor
            (N, C, H, W) in [0, 1], whole crops.
        group : Tensor, optional
            (N,) number of each pair's image.
        views : tuple of Tensor, optional
            The same crops, changed at random: what is embedded instead.
        """
        first, second = self(torch.cat(views or (source, target))).chunk(2)
        return contrast(first, second, group)
