"""Names of feature sets, taken apart: ``conv4``, ``autoencoder_conv3_mean``, ``vgg16_block4_conv1_protein``, ``classic`` …"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pci_core.encoders import LAYERS
from pci_core.errors import unknown_name

BASELINES = ("classic", "cellprofiler", "designed", "supervised", "pixels", "provided")
NETWORKS = ("untrained", "autoencoder")
VGG16_BLOCKS = (*(f"block{b}_conv{c}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)), "fc1")
VGG16_STRATEGIES = ("protein", "channels", "rgb")
VGG16 = tuple(f"vgg16_{block}_{strategy}" for strategy in VGG16_STRATEGIES for block in VGG16_BLOCKS)

_NETWORK = re.compile(r"(?:(untrained|autoencoder)_)?(conv[1-5])(?:_(mean))?")


@dataclass(frozen=True)
class FeatureName:
    """A feature set's name taken apart.

    Attributes
    ----------
    family : str
        ``pci``, ``untrained``, ``autoencoder``, ``vgg16`` or the name of another baseline.
    layer : str
        Of a network; empty for the other baselines.
    pooling : str
        ``max`` or ``mean`` over space, empty where there is none.
    """

    family: str
    layer: str = ""
    pooling: str = ""

    @property
    def is_network(self) -> bool:
        """Whether it is a layer of one of our own networks."""
        return self.family in ("pci", *NETWORKS)


def parse_feature_name(name: str) -> FeatureName:
    """Take a feature set's name apart.

    Raises
    ------
    UnknownNameError
        With the nearest names there are.
    """
    if name in BASELINES:
        return FeatureName(name)
    if name in VGG16:
        return FeatureName("vgg16", name.removeprefix("vgg16_"), "max")
    match = _NETWORK.fullmatch(name)
    if match is None:
        raise unknown_name("feature set", name, feature_names())
    return FeatureName(match[1] or "pci", match[2], match[3] or "max")


def feature_names() -> list[str]:
    """Return the names of all feature sets (each layer of our own networks also with ``_mean`` behind it)."""
    return [*LAYERS, *(f"{m}_{layer}" for m in NETWORKS for layer in LAYERS), *BASELINES, *VGG16]


def split_names(names: str | Iterable[str]) -> list[str]:
    """Take names apart that were given as one text with commas, as on a command line; a list stays as it is."""
    listed = names.split(",") if isinstance(names, str) else names
    return list(dict.fromkeys(stripped for n in listed if (stripped := n.strip())))
