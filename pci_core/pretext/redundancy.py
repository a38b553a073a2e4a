"""Redundancy: two cells of one image are to be alike, and no two numbers of an embedding are to say the same. There are no negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from pci_core.pretext.head import Embedding

ALIKE, SPREAD, APART = 25.0, 25.0, 1.0  # weights of the three terms, those of Bardes et al. 2022
_EPS = 1e-4


def redundancy(source: Tensor, target: Tensor) -> Tensor:
    """Variance, invariance and covariance of embeddings (VICReg; Bardes et al. 2022), for each pair.

    Parameters
    ----------
    source, target : Tensor
        (N, D) float embeddings; row i of both is a pair.

    Returns
    -------
    Tensor
        (N,): the squared difference of the pair, and, the same for all pairs of the batch, how far the standard deviations of the D
        numbers stay below 1 and how much they are correlated. The last two are 0 for a batch of one.
    """
    source, target = source.float(), target.float()
    each = ALIKE * (source - target).square().mean(1)
    if len(source) < 2:
        return each
    for z in (source, target):
        z = z - z.mean(0)
        each = each + SPREAD / 2 * torch.relu(1 - (z.square().sum(0) / (len(z) - 1) + _EPS).sqrt()).mean()
        covariance = z.T @ z / (len(z) - 1)
        away = covariance.square().sum() - covariance.diagonal().square().sum()
        each = each + APART / z.shape[1] * away
    return each


class Redundancy(Embedding):
    """Make the embeddings of a pair alike while each number varies over the batch and says something of its own.

    Proteins of the same location are not pushed apart.
    """

    pretext = "redundancy"
    hidden, embedded = 512, 256

    def loss(self, source: Tensor, target: Tensor, group: Tensor | None = None, views: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the loss of each pair, (N,), see `redundancy`; the arguments are those of `Contrast.loss`, `group` is not used."""
        first, second = self(torch.cat(views or (source, target))).chunk(2)
        return redundancy(first, second)
