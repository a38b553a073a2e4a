"""The paper's networks: PairedCellInpainting = source cell encoder + TargetMarkerEncoder + Decoder; Autoencoder.

Figure 1C and "Architecture" of Lu et al. 2019; where the text is silent, the authors' code. Any number of channels. Other pretext tasks
on the same pairs are in `pci_core.pretext`, encoders in `pci_core.encoders`; networks are built by name in `pci_core.networks`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pci_core.encoders import TargetMarkerEncoder, build_encoder, initialise, scaled

DECODER_FILTERS = (256, 384, 384, 256, 96)
UPSAMPLE_BEFORE = (3, 4)  # the decoder doubles it before its fourth and fifth convolution

# Nearest upsampling x2 followed by a 3-tap kernel (a, b, c) is a stride-2 transposed convolution
# with the 4 taps (c, b + c, a + b, a) = (c, b, a, 0) + (0, c, b, a): the same function for 4/9 of the multiplications.


class Decoder(nn.Module):
    """The reversed encoder: paint channels from encoded cells. No BatchNorm, linear output.

    Parameters
    ----------
    inputs : int
        Channels of what is decoded (source and target encodings concatenated).
    outputs : int
        Channels to paint.
    width : float
        Factor on the numbers of filters.
    """

    def __init__(self, inputs: int, outputs: int, width: float = 1.0) -> None:
        super().__init__()
        sizes = [inputs, *(scaled(f, width) for f in DECODER_FILTERS)]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.out = nn.Conv2d(sizes[-1], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H / 4, W / 4) to (N, outputs, H, W)."""
        for i, conv in enumerate(self.convs):
            x = F.relu(upsample_conv(x, conv.weight, conv.bias) if i in UPSAMPLE_BEFORE else conv(x))  # type: ignore[arg-type]
        out: Tensor = self.out(x)
        return out


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Nearest upsampling x2, then a 3x3 'same' convolution, computed as one transposed convolution.

    Parameters
    ----------
    x : Tensor
        (N, inputs, h, w).
    weight : Tensor
        (outputs, inputs, 3, 3), the convolution's own parameter.
    bias : Tensor or None
        (outputs,).

    Returns
    -------
    Tensor
        (N, outputs, 2h, 2w).
    """
    with torch.autocast(weight.device.type, enabled=False):  # sums of taps are rounded once, in the product, not here
        taps = weight.flip(2, 3).transpose(0, 1)
        rows = F.pad(taps, (0, 0, 0, 1)) + F.pad(taps, (0, 0, 1, 0))
        folded = F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))
    return F.conv_transpose2d(x, folded, bias, stride=2, padding=1)


def weights_of(protein: Tensor) -> Tensor:
    """Return how much each pixel counts, (N, C, H, W), mean 1: where the protein is brightest, eleven times what it is without it."""
    weight = 0.1 + protein.clamp(0, 1)
    return weight / weight.mean((2, 3), keepdim=True)


def normalised(protein: Tensor) -> Tensor:
    """Bring each channel of each crop, (N, C, H, W), to mean 0 and standard deviation 1; a constant one to 0."""
    var, mean = torch.var_mean(protein, (2, 3), correction=0, keepdim=True)
    return (protein - mean) * torch.rsqrt(var + 1e-4)  # 1e-4: a deviation of 0.01 is what noise alone has


class PairedCellInpainting(nn.Module):
    """Paint the protein of a target cell from a source cell and the target's structural markers.

    Parameters
    ----------
    n_protein, n_structural : int
        Channels of either kind; the protein's come first in a crop.
    width : float
        1 is the paper's network.
    encoder : str
        See `pci_core.encoders.build_encoder`.
    loss : str
        ``"mse"`` (the paper), ``"weighted"`` or ``"normalised"``, see `error`.
    """

    kind = "pci"
    pretext = "inpainting"
    over_batch = False

    def __init__(self, n_protein: int = 1, n_structural: int = 1, width: float = 1.0, encoder: str = "paper", loss: str = "mse") -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"kind": self.kind, "n_protein": n_protein, "n_structural": n_structural, "width": width}
        self.architecture |= ({"encoder": encoder} if encoder != "paper" else {}) | ({"loss": loss} if loss != "mse" else {})
        self.source = build_encoder(encoder, n_protein + n_structural, width)
        self.target = TargetMarkerEncoder(n_structural, width)
        self.decoder = Decoder(self.source.outputs + self.target.outputs, n_protein, width)
        initialise(self)

    def forward(self, source: Tensor, target_markers: Tensor) -> Tensor:
        """Predict the target's protein.

        Parameters
        ----------
        source : Tensor
            (N, n_protein + n_structural, H, W) in [0, 1]; H and W multiples of 4.
        target_markers : Tensor
            (N, n_structural, H, W) in [0, 1].

        Returns
        -------
        Tensor
            (N, n_protein, H, W), linear.
        """
        out: Tensor = self.decoder(torch.cat([self.source(source), self.target(target_markers)], 1))
        return out

    def loss(self, source: Tensor, target: Tensor, group: Tensor | None = None, views: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Mean squared error of the painted protein, per cell: (N,) (the paper's equation for L).

        `source` and `target` are whole crops, (N, C, H, W) in [0, 1]; with `views`, the source is the first of them. `group`, the number
        of each pair's image, is not used.
        """
        p = self.architecture["n_protein"]
        return self.error(self(source if views is None else views[0], target[:, p:]), target[:, :p])

    def error(self, painted: Tensor, protein: Tensor) -> Tensor:
        """Return the squared error of each cell, (N,), of (N, n_protein, H, W); weighted, or of the normalised protein, as asked."""
        protein, how = protein.float(), self.architecture.get("loss", "mse")
        square = (painted.float() - (normalised(protein) if how == "normalised" else protein)).square()
        out: Tensor = (square * weights_of(protein) if how == "weighted" else square).mean((1, 2, 3))
        return out


class Autoencoder(nn.Module):
    """The paper's baseline: the same encoder and decoder, one cell in, all its channels out."""

    kind = "autoencoder"
    pretext = ""
    over_batch = False

    def __init__(self, n_protein: int = 1, n_structural: int = 1, width: float = 1.0, encoder: str = "paper") -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"kind": self.kind, "n_protein": n_protein, "n_structural": n_structural, "width": width}
        self.architecture |= {"encoder": encoder} if encoder != "paper" else {}
        self.source = build_encoder(encoder, n_protein + n_structural, width)
        self.decoder = Decoder(self.source.outputs, n_protein + n_structural, width)
        initialise(self)

    def forward(self, source: Tensor) -> Tensor:
        """Rebuild (N, C, H, W) from itself."""
        out: Tensor = self.decoder(self.source(source))
        return out

    def loss(self, source: Tensor, target: Tensor, group: Tensor | None = None, views: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Mean squared error of the rebuilt source cell, per cell: (N,). Nothing but `source` is used."""
        out: Tensor = (self(source).float() - source.float()).square().mean((1, 2, 3))
        return out
