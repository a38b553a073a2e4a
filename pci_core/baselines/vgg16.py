"""VGG16 trained on ImageNet (Simonyan and Zisserman 2015): the paper's transfer learning.

Each convolutional layer by its spatial maximum at the crop's own size, and the first fully connected
layer of crops enlarged to 224 px, under the paper's three ways to show a crop to a network of colour
photographs. The weights are torch's public ones; the paper took those of Keras, another training of
the same network.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from pci_core.baselines import Measured, numbered
from pci_core.cells import CellDataset
from pci_core.data.download import fetch
from pci_core.errors import CheckpointError, DatasetError, DownloadError, WeightsUnavailableError, unknown_name
from pci_core.names import VGG16 as NAMES
from pci_core.names import VGG16_BLOCKS
from pci_core.reading import is_file, refusing
from pci_core.recipe import Preprocess
from pci_core.storage import file_sha256
from pci_core.unpacking import check_torch

if TYPE_CHECKING:
    from torch import Tensor, nn

URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"  # its first 8 digits stand in the file's name
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet in [0, 1]; what the weights were trained with
FC_SIDE, FC_FEATURES = 224, 4096

BLOCK_FILTERS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
CONV_LAYERS = VGG16_BLOCKS[:-1]  # the last one is fc1


def parse_name(name: str) -> tuple[str, str]:
    """Split ``vgg16_block4_conv1_protein`` into layer and strategy.

    Raises
    ------
    UnknownNameError
        Not one of `NAMES`.
    """
    if name not in NAMES:
        raise unknown_name("VGG16 feature set", name, NAMES)
    layer, strategy = name.removeprefix("vgg16_").rsplit("_", 1)
    return layer, strategy


def build_vgg16(fc1: bool = False) -> nn.Sequential:
    """Build the network by torchvision's parameter names (``features.0.weight`` … ``classifier.0.bias``), without values: see `fill`.

    Parameters
    ----------
    fc1 : bool
        With the first fully connected layer (103 of the 138 million parameters); the two after it are never needed.
    """
    import torch
    from torch import nn

    convolutions: list[nn.Module] = []
    inputs = 3
    network = nn.Sequential()
    with torch.device("meta"):
        for filters in BLOCK_FILTERS:
            for outputs in filters:
                convolutions += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = outputs
            convolutions.append(nn.MaxPool2d(2))
        network.add_module("features", nn.Sequential(*convolutions))
        if fc1:
            side = FC_SIDE >> len(BLOCK_FILTERS)
            network.add_module("flatten", nn.Flatten())
            network.add_module("classifier", nn.Sequential(nn.Linear(inputs * side * side, FC_FEATURES), nn.ReLU(inplace=True)))
    return network


# --- weights


def load_weights(path: str | os.PathLike[str] | None = None, *, quiet: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a VGG16 file and what is known of them.

    Parameters
    ----------
    path : path-like, optional
        A ``.pth`` or ``.safetensors`` file with torchvision's names; by default torch's public file is downloaded
        once (528 MB) and verified by its hash.
    quiet : bool
        No progress bar for the download.

    Returns
    -------
    state : dict of str to Tensor
    facts : dict
        ``weights`` (SHA-256 of the file) and ``source``.

    Raises
    ------
    WeightsUnavailableError
        No path was given, and the public file could not be had.
    CheckpointError
        The file is not there, damaged, or holds something other than named tensors.
    """
    if path is None:
        try:
            file = fetch(URL, known_hash=f"sha256:{SHA256}", progress=not quiet)
        except DownloadError as error:
            raise WeightsUnavailableError(
                f"the ImageNet weights of VGG16 were not to be had, so nothing was computed. Tried {URL}: {error} "
                "A copy of the file from elsewhere is taken with --vgg16-weights PATH."
            ) from error
        return _read(file), {"weights": SHA256, "source": URL}
    file = Path(path)
    if not is_file(file):
        raise CheckpointError(f"VGG16 weights file {file} is not there. Correct the path after --vgg16-weights.")
    digest = file_sha256(file)
    return _read(file), {"weights": digest, "source": URL if digest == SHA256 else f"file {file.name}"}


def _read(file: Path) -> dict[str, Tensor]:
    import safetensors.torch
    import torch

    with refusing(file, CheckpointError, "is damaged or no file of weights", "Copy or download it again."):
        if file.suffix == ".safetensors":
            state = safetensors.torch.load_file(file)
        else:
            check_torch(file)
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as parts:  # torch looks at none of the check sums that it writes
                    damaged = parts.testzip()
                if damaged:
                    raise ValueError(f"the check sum of its part {damaged} is wrong")
            state = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()):
        raise CheckpointError(f"{file} holds no named tensors but {type(state).__name__}. Save the model's state_dict() and give that.")
    return dict(state)


def fill(network: nn.Sequential, state: dict[str, Tensor], source: str) -> nn.Sequential:
    """Give a network its weights; what it does not have (the two last layers of the classifier) is passed over.

    Raises
    ------
    CheckpointError
        A tensor is missing, or has another shape or values that are not finite.
    """
    import torch

    wanted = network.state_dict()
    missing = [k for k in wanted if k not in state]
    if missing:
        raise CheckpointError(
            f"{source}: {len(missing)} of the {len(wanted)} tensors needed of a VGG16 are missing, e.g. {', '.join(missing[:3])}; it has "
            f"{', '.join(list(state)[:3]) or 'none'} …. Give a state_dict of torchvision's vgg16 (without batch normalisation)."
        )
    differ = [f"{k} is {tuple(state[k].shape)}, not {tuple(v.shape)}" for k, v in wanted.items() if state[k].shape != v.shape]
    if differ:
        raise CheckpointError(
            f"{source}: {len(differ)} tensors are not of VGG16's shape: {'; '.join(differ[:3])}. Give a state_dict of torchvision's vgg16."
        )
    chosen = {k: state[k].to(torch.float32) for k in wanted}
    broken = [k for k, v in chosen.items() if not torch.isfinite(v).all()]
    if broken:
        raise CheckpointError(f"{source}: {', '.join(broken[:3])} hold NaN or infinite values. Copy or download the file again.")
    network.load_state_dict(chosen, assign=True)
    return network


# --- features


def colours(channels: int) -> tuple[int, int, int]:
    """Return the channel shown in red, green and blue, -1 where none is.

    The first protein channel is green. One further channel is red (the paper's yeast: RFP red, GFP green, blue
    empty); of two or more, the first is blue and the second red, as the Human Protein Atlas shows nucleus and
    microtubules. Further ones are left out.
    """
    others = list(range(1, channels))
    if len(others) < 2:
        return (others[0] if others else -1), 0, -1
    return others[1], 0, others[0]


def pictures(strategy: str, channels: int, n_protein: int) -> list[tuple[int, int, int]]:
    """Return what the network is shown of a crop: pictures, each by its red, green and blue channel (-1 = empty)."""
    if strategy == "rgb":
        return [colours(channels)]
    return [(c, c, c) for c in range(n_protein if strategy == "protein" else channels)]


def vgg16(
    dataset: CellDataset,
    spec: Preprocess,
    names: Sequence[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 128,
    quiet: bool = False,
) -> dict[str, Measured]:
    """Describe each cell by layers of VGG16, all that are asked for in one pass over the crops.

    Parameters
    ----------
    dataset : CellDataset
        (N, C, H, W) crops; memory does not grow with N but for the result.
    spec : Preprocess
        As for the other networks; [0, 1] is then normalised by ImageNet's mean and standard deviation.
    names : sequence of str
        Of `NAMES`: ``vgg16_<layer>_<strategy>``. Strategies: ``protein`` (the protein channel as grey), ``channels``
        (each channel as grey, their features one after another), ``rgb`` (one coloured picture, see `colours`).
    weights : path-like, optional
        See `load_weights`.
    device, precision : str
        See `pci_core.device`.
    batch_size : int
        Crops at a time; the result does not depend on it beyond rounding.
    quiet : bool
        No printed line and no progress bar.

    Returns
    -------
    dict of str to Measured
        By name, in the order asked for. A convolutional layer gives 64 to 512 features a picture, the maximum
        over space of its ReLU output; ``fc1`` gives the 4,096 of its ReLU output.

    Raises
    ------
    UnknownNameError
        A name that is not one of `NAMES`.
    WeightsUnavailableError, CheckpointError
        See `load_weights` and `fill`.
    DatasetError
        Crops too small for the poolings before a layer.

    Notes
    -----
    "Other feature sets" in the Methods of the paper and its supplementary figure 2: block4_conv1 of the protein
    alone at the crop's own size was best there (69.33 %), fc1 at 224 px gave 65.64 %.
    """
    import torch

    from pci_core import device as devices
    from pci_core.feed import Feed
    from pci_core.preprocess import preprocess

    parsed = {name: parse_name(name) for name in names}
    if not parsed:
        return {}
    _, n_channels, height, width = dataset.crops.shape
    for layer, _ in parsed.values():
        poolings = 0 if layer == "fc1" else int(layer[5]) - 1
        if min(height, width) >> poolings < 1:
            raise DatasetError(
                f"{dataset.folder}: crops of {height}x{width} px are too small for {layer} of VGG16, which comes after {poolings} "
                f"poolings; it needs at least {1 << poolings} px. Take an earlier block or fc1, which enlarges the crops."
            )
    wanted: dict[tuple[int, int, int], set[str]] = {}  # layers by picture: grey pictures serve two strategies
    shown = {strategy: pictures(strategy, n_channels, dataset.n_protein) for _, strategy in parsed.values()}
    for layer, strategy in parsed.values():
        for picture in shown[strategy]:
            wanted.setdefault(picture, set()).add(layer)

    with_fc1 = any(layer == "fc1" for layer, _ in parsed.values())
    state, known = load_weights(weights, quiet=quiet)
    where = devices.choose_device(device)
    dtype = devices.choose_precision(where, precision)
    devices.tune(where)
    network = fill(build_vgg16(with_fc1), state, str(weights or URL))
    del state
    network.to(where, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    feed = Feed(dataset, where, use="once")
    if not quiet:
        print(f"Extracting {len(parsed)} VGG16 feature sets of {len(dataset)} cells on {devices.describe(where, dtype)}; crops {feed.told}")

    size = {**dict(zip(CONV_LAYERS, (f for block in BLOCK_FILTERS for f in block), strict=True)), "fc1": FC_FEATURES}
    out = {n: np.empty((len(dataset), size[layer] * len(shown[how])), np.float32) for n, (layer, how) in parsed.items()}
    with torch.inference_mode(), tqdm(total=len(dataset), unit=" cells", disable=quiet) as bar:
        for index, raw in feed.in_order(batch_size):
            x = preprocess(raw, spec, dataset.n_protein)
            with devices.autocast(where, dtype):
                found = {picture: _layers(network, _colour(x, picture), layers) for picture, layers in wanted.items()}
            block = slice(int(index[0]), int(index[-1]) + 1)
            for name, (layer, how) in parsed.items():
                out[name][block] = torch.cat([found[picture][layer] for picture in shown[how]], 1).cpu().numpy()
            bar.update(len(index))

    facts = {"model": "vgg16", **known, "precision": str(dtype).removeprefix("torch.")}
    return {name: Measured(out[name], numbered(name, out[name].shape[1]), {**facts, **_told(dataset, *parsed[name])}) for name in parsed}


def _colour(x: Tensor, picture: tuple[int, int, int]) -> Tensor:
    """Make (N, 3, H, W) of (N, C, H, W) in [0, 1], normalised as ImageNet; an empty colour is black."""
    import torch

    with_black = torch.cat([x, torch.zeros_like(x[:, :1])], 1)  # -1 is the last plane
    mean, std = (x.new_tensor(v)[:, None, None] for v in (MEAN, STD))
    return ((with_black[:, list(picture)] - mean) / std).contiguous(memory_format=torch.channels_last)


def _layers(network: nn.Sequential, x: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """Pool the ReLU outputs of the named layers over space, (N, filters) float32 each; fc1 as it is."""
    import torch
    import torch.nn.functional as F

    convolutional = [layer for layer in CONV_LAYERS if layer in layers]
    out = {}
    if convolutional:
        names = iter(CONV_LAYERS)
        h = x
        for module in network.features:  # type: ignore[union-attr]
            h = module(h)
            if isinstance(module, torch.nn.ReLU):
                name = next(names)
                if name in convolutional:
                    out[name] = h.amax((2, 3)).float()
                if name == convolutional[-1]:
                    break
    if "fc1" in layers:
        part = max(1, len(x) * x.shape[2] * x.shape[3] // FC_SIDE**2)  # as many pixels at a time as at the crop's own size
        smaller = max(x.shape[2:]) > FC_SIDE
        resized = (F.interpolate(p, (FC_SIDE, FC_SIDE), mode="bilinear", antialias=smaller) for p in x.split(part))
        out["fc1"] = torch.cat([network(p.contiguous(memory_format=torch.channels_last)).float() for p in resized])
    return out


def _told(dataset: CellDataset, layer: str, strategy: str) -> Mapping[str, Any]:
    names = [c.name for c in dataset.channels]
    told: dict[str, Any] = {"layer": layer, "strategy": strategy, "pooling": "none" if layer == "fc1" else "max"}
    told["input"] = f"{FC_SIDE} px" if layer == "fc1" else "the crop's own size"
    if strategy == "rgb":
        used = colours(len(names))
        told |= {colour: "" if c < 0 else names[c] for colour, c in zip(("red", "green", "blue"), used, strict=True)}
        told["channels_left_out"] = ", ".join(n for i, n in enumerate(names) if i not in used)
    return told
