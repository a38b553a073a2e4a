"""Encoders, the part that is kept after training: the paper's, a residual one of the same cost, and that with channel attention.

Figure 1C and "Architecture" of Lu et al. 2019; where the text is silent, the authors' code: every block of the paper's encoder is
convolution, ReLU, BatchNorm with Keras' constants, and features are the ReLU output before BatchNorm. The others are what the paper's
discussion names as next to try: skip connections, so that the last layer can be used. All have five layers, conv1 … conv5, and keep a
quarter of the side. `width` scales the number of filters for small machines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pci_core.errors import unknown_name

SOURCE_FILTERS = (96, 256, 384, 384, 256)
RESIDUAL_FILTERS = (96, 128, 192, 256, 256)  # 1,014 million multiplications a crop of 64 px and 3 channels; the paper's 1,029
TARGET_FILTERS = (16, 32, 32)
POOL_AFTER = (0, 1)  # both encoders halve the side after their first and second block
ENCODERS = ("paper", "residual", "attention")
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")


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


class Encoder(nn.Module, ABC):
    """What every source cell encoder has: five layers by name, pooled features, and one map for a decoder.

    Attributes
    ----------
    channels : int
        Of a crop.
    outputs : int
        Channels of the map.
    dims : dict of str to int
        Number of features of each layer, by name.
    """

    channels: int
    outputs: int

    @property
    @abstractmethod
    def dims(self) -> dict[str, int]:
        """Number of features of each layer, by name."""

    def norms_rise(self) -> tuple[bool, ...]:
        """Tell for each layer whether a BatchNorm follows it that scales no channel by a negative number, see `features`."""
        return (False,) * len(LAYERS)

    @abstractmethod
    def activate(self, i: int, x: Tensor) -> Tensor:
        """Return the activation of layer `i`, from which features are pooled."""

    @abstractmethod
    def pass_on(self, i: int, activation: Tensor, rising: bool) -> Tensor:
        """Return what the layer after `i` takes."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, H, W) to what a decoder takes, (N, outputs, H / 4, W / 4), and the last layer's pooled features, (N, outputs)."""
        activation = x
        for i in range(len(LAYERS)):
            activation = self.activate(i, x)
            x = self.pass_on(i, activation, False)
        return x, highest(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to what a decoder takes, (N, outputs, H / 4, W / 4)."""
        for i in range(len(LAYERS)):
            x = self.pass_on(i, self.activate(i, x), False)
        return x

    def features(
        self, x: Tensor, layers: tuple[str, ...] = LAYERS, pooling: str = "max", rising: tuple[bool, ...] | None = None
    ) -> dict[str, Tensor]:
        """Pool the activations of the named layers over space, all in one pass.

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
        for i, name in enumerate(LAYERS[: deepest + 1]):
            x = self.activate(i, x)
            if name in layers:
                out[name] = (highest(x) if pooling == "max" else x.float().mean((2, 3))).float()
            if i < deepest:
                x = self.pass_on(i, x, rising[i])
        return out


def highest(x: Tensor) -> Tensor:
    """Return the greatest value of each map, (N, C)."""
    if x.device.type == "cpu":  # there the reduction of maps in channels last is slow in bfloat16; on a GPU a window this large is
        return F.max_pool2d(x, x.shape[2:]).flatten(1)
    return x.amax((2, 3))


def _blocks(inputs: int, filters: tuple[int, ...], width: float) -> nn.ModuleList:
    sizes = [inputs, *(scaled(f, width) for f in filters)]
    return nn.ModuleList(ConvBlock(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))


class SourceCellEncoder(Encoder):
    """The paper's encoder of all channels of one cell.

    Parameters
    ----------
    channels : int
        Protein and structural channels together.
    width : float
        Factor on the numbers of filters 96, 256, 384, 384, 256.
    """

    def __init__(self, channels: int, width: float = 1.0) -> None:
        super().__init__()
        self.blocks = _blocks(channels, SOURCE_FILTERS, width)
        self.channels, self.outputs = channels, scaled(SOURCE_FILTERS[-1], width)

    @property
    def dims(self) -> dict[str, int]:
        """Number of features of each layer, by name."""
        return {name: block.conv.out_channels for name, block in zip(LAYERS, self.blocks, strict=True)}  # type: ignore[union-attr, misc]

    def norms_rise(self) -> tuple[bool, ...]:
        """Tell for each block whether its BatchNorm scales no channel by a negative number (reading it makes a GPU wait)."""
        return tuple(torch.stack([(block.norm.weight >= 0).all() for block in self.blocks]).tolist())  # type: ignore[union-attr, operator]

    def activate(self, i: int, x: Tensor) -> Tensor:
        """Return the ReLU output of block `i`."""
        return F.relu(self.blocks[i].conv(x), inplace=True)  # type: ignore[union-attr, operator]  # nothing else needs what the convolution gave

    def pass_on(self, i: int, activation: Tensor, rising: bool) -> Tensor:
        """Return its BatchNorm, halved where the paper halves."""
        norm = self.blocks[i].norm
        if i not in POOL_AFTER:
            out: Tensor = norm(activation)  # type: ignore[operator]
            return out
        return norm(F.max_pool2d(activation, 2)) if rising else F.max_pool2d(norm(activation), 2)  # type: ignore[operator, no-any-return]


class _Stage(nn.Module):
    """Two 3x3 convolutions with BatchNorm beside a skip connection; with attention, each map is weighed by what all maps hold."""

    def __init__(self, inputs: int, outputs: int, attention: bool) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(c, outputs, 3, padding=1, bias=False) for c in (inputs, outputs))
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(2))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        inner = max(4, outputs // 8)
        self.weigh = (
            nn.Sequential(nn.Conv2d(outputs, inner, 1), nn.ReLU(), nn.Conv2d(inner, outputs, 1), nn.Sigmoid()) if attention else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W), >= 0."""
        y = self.norms[1](self.second(F.relu(self.norms[0](self.first(x)), inplace=True)))
        if self.weigh is not None:
            y = y * self.weigh(y.mean((2, 3), keepdim=True))
        out: Tensor = F.relu(y + self.skip(x), inplace=True)
        return out


class ResidualEncoder(Encoder):
    """An encoder with skip connections, of the cost of the paper's (He et al. 2016), or with channel attention (Hu et al. 2018) too.

    One convolution, then four stages of two; the side is halved where the paper's is.

    Parameters
    ----------
    channels : int
        Protein and structural channels together.
    width : float
        Factor on the numbers of filters 96, 128, 192, 256, 256.
    attention : bool
        Weigh each stage's maps.
    """

    def __init__(self, channels: int, width: float = 1.0, attention: bool = False) -> None:
        super().__init__()
        sizes = [scaled(f, width) for f in RESIDUAL_FILTERS]
        self.stem, self.norm = nn.Conv2d(channels, sizes[0], 3, padding=1, bias=False), nn.BatchNorm2d(sizes[0])
        self.stages = nn.ModuleList(_Stage(a, b, attention) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.channels, self.outputs, self._sizes = channels, sizes[-1], sizes

    @property
    def dims(self) -> dict[str, int]:
        """Number of features of each layer, by name."""
        return dict(zip(LAYERS, self._sizes, strict=True))

    def activate(self, i: int, x: Tensor) -> Tensor:
        """Return the output of the first convolution, or of stage `i`."""
        out: Tensor = F.relu(self.norm(self.stem(x)), inplace=True) if i == 0 else self.stages[i - 1](x)
        return out

    def pass_on(self, i: int, activation: Tensor, rising: bool) -> Tensor:
        """Return the activation, halved where the paper halves."""
        return F.max_pool2d(activation, 2) if i in POOL_AFTER else activation


class TargetMarkerEncoder(nn.Module):
    """Encode the structural channels of the target cell (16, 32, 32 filters)."""

    def __init__(self, structural: int, width: float = 1.0) -> None:
        super().__init__()
        self.blocks = _blocks(structural, TARGET_FILTERS, width)
        self.outputs = scaled(TARGET_FILTERS[-1], width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, structural, H, W) to the last block's BatchNorm output, (N, outputs, H / 4, W / 4)."""
        for i, block in enumerate(self.blocks):
            x = block(x)[1]
            if i in POOL_AFTER:
                x = F.max_pool2d(x, 2)
        return x


def build_encoder(name: str, channels: int, width: float = 1.0) -> Encoder:
    """Build a source cell encoder by name, with the weights that torch's global state gives.

    Parameters
    ----------
    name : str
        ``"paper"``, ``"residual"`` or ``"attention"``.
    channels : int
        Protein and structural channels together.
    width : float
        Factor on the numbers of filters.
    """
    if name == "paper":
        return SourceCellEncoder(channels, width)
    if name not in ENCODERS:
        raise unknown_name("encoder", name, ENCODERS)
    return ResidualEncoder(channels, width, attention=name == "attention")


def encoder_of(architecture: dict[str, Any]) -> Encoder:
    """Build the source cell encoder of a network's `architecture`."""
    channels = architecture["n_protein"] + architecture["n_structural"]
    return build_encoder(architecture.get("encoder", "paper"), channels, architecture["width"])


def follow(model: nn.Module) -> None:
    """Let the running statistics of every BatchNorm follow ten times as fast as in Keras.

    Larger batches make fewer steps: after 140 of them, with Keras' constant, a quarter of what inference takes for the mean and variance
    is still the initial 0 and 1.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1


def initialise(model: nn.Module) -> None:
    """Draw the weights of convolutions anew by Glorot's rule, Keras' default, with biases of 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
