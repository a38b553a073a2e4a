"""The projection that a loss between embeddings is taken on; thrown away after training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pci_core.encoders import build_encoder, follow, initialise, scaled


def head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return a projection (N, inputs) -> (N, outputs) with one hidden layer.

    Features of a better encoder are lost where a loss acts on them directly: it wants them to hold nothing else.
    """
    return nn.Sequential(nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs))


class Embedding(nn.Module):
    """A source cell encoder with a head: two views in, two embeddings out.

    Parameters
    ----------
    n_protein, n_structural : int
        Channels of either kind; there may be no structural one.
    width : float
        Factor on the numbers of filters and on the head.
    encoder : str
        See `pci_core.encoders.build_encoder`.
    """

    kind = "pci"
    pretext = ""
    hidden, embedded = 512, 128
    over_batch = True  # the loss of a pair depends on the other pairs of the batch

    def __init__(self, n_protein: int = 1, n_structural: int = 1, width: float = 1.0, encoder: str = "paper") -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"kind": self.kind, "n_protein": n_protein, "n_structural": n_structural, "width": width}
        self.architecture |= {"pretext": self.pretext} | ({"encoder": encoder} if encoder != "paper" else {})
        self.source = build_encoder(encoder, n_protein + n_structural, width)
        self.head = head(self.source.outputs, scaled(self.hidden, width), self.embedded)
        initialise(self)
        follow(self)

    def forward(self, cells: Tensor) -> Tensor:
        """Map (N, C, H, W) in [0, 1] to embeddings, (N, embedded) float32."""
        with torch.autocast(cells.device.type, enabled=False):  # sums over a batch: bfloat16 has eight bits
            out: Tensor = self.head(self.pooled(cells).float())
        return out

    def pooled(self, cells: Tensor) -> Tensor:
        """Map (N, C, H, W) to the last layer's pooled features, (N, outputs)."""
        return self.source.encode(cells)[1]
