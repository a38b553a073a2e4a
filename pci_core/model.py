"""The networks: PairedCellInpainting = SourceCellEncoder + TargetMarkerEncoder + Decoder; Autoencoder.

Figure 1C and "Architecture" of Lu et al. 2019; where the text is silent, the authors' code: every
block is convolution, ReLU, BatchNorm with Keras' constants, and features are the ReLU output before
BatchNorm. Any number of channels; `width` scales the number of filters for small machines.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pci_core.errors import unknown_name

SOURCE_FILTERS = (96, 256, 384, 384, 256)
TARGET_FILTERS = (16, 32, 32)
DECODER_FILTERS = (256, 384, 384, 256, 96)
POOL_AFTER = (0, 1)  # both encoders halve the side after their first and second block
UPSAMPLE_BEFORE = (3, 4)  # the decoder doubles it before its fourth and fifth convolution
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")

# Nearest upsampling x2 followed by a 3-tap kernel (a, b, c) is a stride-2 transposed convolution
# with the 4 taps (c, b + c, a + b, a) = (c, b, a, 0) + (0, c, b, a): the same function for 4/9 of the multiplications.


def scaled(filters: int, width: float) -> int:
    """Return the number of filters at a width factor: a multiple of 4, at least 4, exact at width 1."""
    return max(4, round(filters * width / 4) * 4)


def check_layer(name: str) -> None:
    """Raise `UnknownNameError`, with the nearest names, unless `name` is one of ``conv1`` … ``conv5``."""
    if name not in LAYERS:
        raise unknown_name("layer", name, LAYERS)


class ConvBlock(nn.Module):
    """3x3 convolution, ReLU, BatchNorm (eps 1e-3, momentum 0.99 in Keras' sense), side kept."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, inputs, H, W) to the ReLU output and its BatchNorm, both (N, outputs, H, W)."""
        activation = F.relu(self.conv(x), inplace=True)  # nothing else needs what the convolution gave
        return activation, self.norm(activation)


class _Encoder(nn.Module):
    def __init__(self, inputs: int, filters: tuple[int, ...], width: float) -> None:
        super().__init__()
        sizes = [inputs, *(scaled(f, width) for f in filters)]
        self.blocks = nn.ModuleList(ConvBlock(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.outputs = sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the last block's BatchNorm output, (N, outputs, H / 4, W / 4)."""
        for i, block in enumerate(self.blocks):
            x = block(x)[1]
            if i in POOL_AFTER:
                x = F.max_pool2d(x, 2)
        return x


class SourceCellEncoder(_Encoder):
    """Encode all channels of one cell: the part that is kept after training.

    Parameters
    ----------
    channels : int
        Protein and structural channels together.
    width : float
        Factor on the numbers of filters 96, 256, 384, 384, 256.
    """

    def __init__(self, channels: int, width: float = 1.0) -> None:
        super().__init__(channels, SOURCE_FILTERS, width)

    @property
    def dims(self) -> dict[str, int]:
        """Number of features of each layer, by name."""
        return {name: block.conv.out_channels for name, block in zip(LAYERS, self.blocks, strict=True)}  # type: ignore[union-attr, misc]

    def norms_rise(self) -> tuple[bool, ...]:
        """Tell for each block whether its BatchNorm scales no channel by a negative number (reading it makes a GPU wait)."""
        return tuple(torch.stack([(block.norm.weight >= 0).all() for block in self.blocks]).tolist())  # type: ignore[union-attr, operator]

    def features(
        self, x: Tensor, layers: tuple[str, ...] = LAYERS, pooling: str = "max", rising: tuple[bool, ...] | None = None
    ) -> dict[str, Tensor]:
        """Pool the ReLU outputs of the named layers over space, all in one pass.

        The network between the layers is that of training, but for the order of two operations: a BatchNorm of fixed
        statistics that turns no channel round gives the same, bit for bit, before and after a max pooling, and after it
        there is a quarter of the pixels.

        Parameters
        ----------
        x : Tensor
            (N, C, H, W), preprocessed to [0, 1].
        layers : tuple of str
            Of ``conv1`` … ``conv5``; the pass ends at the deepest one named.
        pooling : str
            ``"max"`` (the paper) or ``"mean"``.
        rising : tuple of bool, optional
            What `norms_rise` returns, for callers that describe many batches; by default it is asked for here.

        Returns
        -------
        dict of str to Tensor
            (N, filters) float32 each.
        """
        for name in layers:
            check_layer(name)
        if pooling not in ("max", "mean"):
            raise unknown_name("pooling", pooling, ("max", "mean"))
        deepest = max(LAYERS.index(name) for name in layers)
        rising = (self.norms_rise() if rising is None else rising) if not self.training else (False,) * len(LAYERS)
        out = {}
        for i, block in enumerate(self.blocks[: deepest + 1]):
            x = F.relu(block.conv(x), inplace=True)  # type: ignore[union-attr, operator]
            if LAYERS[i] in layers:
                out[LAYERS[i]] = (_highest(x) if pooling == "max" else x.float().mean((2, 3))).float()
            if i == deepest:
                break
            if i in POOL_AFTER and rising[i]:
                x = block.norm(F.max_pool2d(x, 2))  # type: ignore[union-attr, operator]
            else:
                x = block.norm(x)  # type: ignore[union-attr, operator]
                x = F.max_pool2d(x, 2) if i in POOL_AFTER else x
        return out


def _highest(x: Tensor) -> Tensor:
    """Return the greatest value of each map, (N, C)."""
    if x.device.type == "cpu":  # there the reduction of maps in channels last is slow in bfloat16; on a GPU a window this large is
        return F.max_pool2d(x, x.shape[2:]).flatten(1)
    return x.amax((2, 3))


class TargetMarkerEncoder(_Encoder):
    """Encode the structural channels of the target cell (16, 32, 32 filters)."""

    def __init__(self, structural: int, width: float = 1.0) -> None:
        super().__init__(structural, TARGET_FILTERS, width)


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


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)  # Glorot, Keras' default
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class PairedCellInpainting(nn.Module):
    """Paint the protein of a target cell from a source cell and the target's structural markers.

    Parameters
    ----------
    n_protein, n_structural : int
        Channels of either kind; the protein's come first in a crop.
    width : float
        1 is the paper's network.
    """

    kind = "pci"

    def __init__(self, n_protein: int = 1, n_structural: int = 1, width: float = 1.0) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"kind": self.kind, "n_protein": n_protein, "n_structural": n_structural, "width": width}
        self.source = SourceCellEncoder(n_protein + n_structural, width)
        self.target = TargetMarkerEncoder(n_structural, width)
        self.decoder = Decoder(self.source.outputs + self.target.outputs, n_protein, width)
        _initialise(self)

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

    def loss(self, source: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of the painted protein, per cell: (N,) (the paper's equation for L).

        `source` and `target` are whole crops, (N, C, H, W) in [0, 1].
        """
        p = self.architecture["n_protein"]
        painted = self(source, target[:, p:])
        out: Tensor = (painted.float() - target[:, :p].float()).square().mean((1, 2, 3))
        return out


class Autoencoder(nn.Module):
    """The paper's baseline: the same encoder and decoder, one cell in, all its channels out."""

    kind = "autoencoder"

    def __init__(self, n_protein: int = 1, n_structural: int = 1, width: float = 1.0) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"kind": self.kind, "n_protein": n_protein, "n_structural": n_structural, "width": width}
        self.source = SourceCellEncoder(n_protein + n_structural, width)
        self.decoder = Decoder(self.source.outputs, n_protein + n_structural, width)
        _initialise(self)

    def forward(self, source: Tensor) -> Tensor:
        """Rebuild (N, C, H, W) from itself."""
        out: Tensor = self.decoder(self.source(source))
        return out

    def loss(self, source: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of the rebuilt source cell, per cell: (N,). The target is not used."""
        out: Tensor = (self(source).float() - source.float()).square().mean((1, 2, 3))
        return out


Model = PairedCellInpainting | Autoencoder
KINDS: dict[str, type[PairedCellInpainting] | type[Autoencoder]] = {"pci": PairedCellInpainting, "autoencoder": Autoencoder}


def build(kind: str, n_protein: int, n_structural: int, width: float = 1.0, seed: int | None = None) -> Model:
    """Build a network by name with reproducible initial weights.

    Parameters
    ----------
    kind : str
        ``"pci"`` or ``"autoencoder"``.
    n_protein, n_structural, width
        See `PairedCellInpainting`.
    seed : int or None
        Seed of the initial weights; None uses torch's global state.
    """
    if kind not in KINDS:
        raise unknown_name("model", kind, KINDS)
    if seed is None:
        return KINDS[kind](n_protein, n_structural, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return KINDS[kind](n_protein, n_structural, width)
