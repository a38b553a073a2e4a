"""The authors' pretrained Keras files (HDF5), read as weights of `PairedCellInpainting`.

Read with h5py alone: plain arrays and texts of bounded size; links to other files are refused.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from pci_core.encoders import POOL_AFTER, SOURCE_FILTERS, scaled
from pci_core.errors import CheckpointError
from pci_core.hdf5 import check_hdf5
from pci_core.model import UPSAMPLE_BEFORE, PairedCellInpainting
from pci_core.reading import is_file, refusing
from pci_core.storage import file_sha256
from pci_core.unpacking import check_arrays

_MAX_ARRAY = 1 << 26  # numbers in one array; the paper's largest kernel has 1.3 million
_MAX_TEXT = 1 << 24  # characters of one attribute
_MAX_NAMES = 10_000  # texts in one attribute

_SOURCE = tuple(f"conv{i}_1" for i in range(1, 6))
_DECODER = tuple(f"conv{i}_1" for i in range(6, 11))
_TARGET = re.compile(r"(?P<prefix>\w+?)conv(?P<number>[123])_1")
_NORM_PARTS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_LAYOUT = "Expected the layers conv1_1 … conv10_1, <prefix>conv1_1 … <prefix>conv3_1 and one 1x1 convolution of the authors' pair_model.py."

# What the paper's network fixes; the value also stands for a key that a version of Keras did not write.
_SETTINGS: dict[str, dict[str, Any]] = {
    "Conv2D": {"padding": "same", "strides": [1, 1], "data_format": "channels_last"},
    "BatchNormalization": {"epsilon": 1e-3},
    "MaxPooling2D": {"pool_size": [2, 2], "strides": [2, 2]},
    "UpSampling2D": {"size": [2, 2], "interpolation": "nearest"},
}

Layers = dict[str, dict[str, np.ndarray]]


def read_keras_h5(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a Keras HDF5 file of the paper's network (``model.save`` or ``save_weights`` of Keras 1.2 to 2).

    Convolutions are found by the authors' names. Each BatchNorm goes to the convolution that it follows in the
    stored graph, since its number depends on what else the session had built. Without a graph, they are dealt out
    in the order of their numbers, if the numbers of channels leave only one way.

    Parameters
    ----------
    path : path-like
        The ``.h5`` file.

    Returns
    -------
    state : dict of str to ndarray
        By the parameter names of `PairedCellInpainting`, kernels as (out, in, height, width), float32.
    facts : dict
        ``n_protein``, ``n_structural``, ``in_channels``, ``width``, ``kind`` (``"pci"``), ``target_prefix``, ``batchnorm``
        (how it was assigned), ``keras_version``, ``file``, ``file_sha256``.

    Raises
    ------
    CheckpointError
        Not there, damaged, foreign, of another architecture, or ambiguous.
    """
    path = Path(path)
    if not is_file(path):
        raise CheckpointError(f"weights file {path} is not there. Correct the path, or fetch the authors' archive.")
    check_hdf5(path, CheckpointError, "Fetch it again.")
    with refusing(path, CheckpointError, "is damaged or no Keras HDF5 file", "Fetch it again."), h5py.File(path, "r") as file:
        check_arrays(file)
        root = _child(file, "model_weights") if file.get("model_weights", getlink=True) else file
        layers = _read_layers(root, path)
        config = _text(file.attrs["model_config"]) if "model_config" in file.attrs else None
        version = _text(root.attrs.get("keras_version", file.attrs.get("keras_version", "")))
    prefix, out = _check_names(layers, path)
    targets = tuple(f"{prefix}conv{i}_1" for i in (1, 2, 3))
    if config is not None:
        norms = _norms_by_graph(_graph(config, path), layers, targets, out, path)
        how = "by the stored graph"
    else:
        norms = _norms_by_number(layers, targets, path)
        how = "by their numbers and channels: the file holds no graph"
    state = _state(layers, targets, out, norms, path)
    return state, {
        **_sizes(state, path),
        "kind": "pci",
        "target_prefix": prefix,
        "batchnorm": how,
        "keras_version": version,
        "file": path.name,
        "file_sha256": file_sha256(path),
    }


def _text(value: Any) -> str:
    text = value.decode("utf-8") if isinstance(value, bytes) else str(value)
    if len(text) > _MAX_TEXT:
        raise ValueError("an attribute is far too long")
    return text


def _names(group: h5py.Group, key: str) -> list[str]:
    """Read a list of texts; Keras cuts a long one into ``key0``, ``key1``, …"""
    keys = [key] if key in group.attrs else list(itertools.takewhile(group.attrs.__contains__, (f"{key}{i}" for i in itertools.count())))
    if not keys:
        raise KeyError(f"no attribute '{key}' at {group.name}")
    names: list[str] = []
    for part in keys:
        if math.prod(group.attrs.get_id(part).shape) > _MAX_NAMES:
            raise ValueError(f"attribute '{part}' is far too long")
        names += [_text(name) for name in group.attrs[part]]
    return names


def _child(group: h5py.Group, name: str) -> Any:
    """Return a member of `group` without leaving the file."""
    for part in name.split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise KeyError(f"'{name}' is missing or a link")
        group = group[part]
    return group


def _read_layers(root: h5py.Group, path: Path) -> Layers:
    """Read all layers that have weights: layer -> variable (``kernel``, ``gamma``, …) -> array."""
    layers: Layers = {}
    for layer in _names(root, "layer_names"):
        group = _child(root, layer)
        variables = {}
        for name in _names(group, "weight_names"):
            data = _child(group, name)
            if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external or data.dtype.kind != "f":
                raise ValueError(f"'{layer}/{name}' holds no plain floating-point numbers")
            if data.size > _MAX_ARRAY:
                raise CheckpointError(f"{path}: '{layer}/{name}' has shape {data.shape}, far beyond the paper's network. {_LAYOUT}")
            value = np.asarray(data[()], np.float32)
            if not np.isfinite(value).all():
                raise CheckpointError(f"{path}: '{layer}/{name}' holds NaN or infinite weights. Use another checkpoint.")
            variables[name.rpartition("/")[2].partition(":")[0]] = value
        if variables:
            layers[layer] = variables
    return layers


def _check_names(layers: Layers, path: Path) -> tuple[str, str]:
    """Return the prefix of the target encoder's layers and the name of the 1x1 convolution."""
    convs = {name for name, variables in layers.items() if "kernel" in variables}
    missing = [name for name in _SOURCE + _DECODER if name not in convs]
    prefixes = {m["prefix"] for name in convs if (m := _TARGET.fullmatch(name))}
    if missing or len(prefixes) != 1:
        what = f"no layer {', '.join(missing)}" if missing else f"target encoders named {sorted(prefixes)}"
        raise CheckpointError(f"{path}: {what} (convolutions found: {', '.join(sorted(convs)) or 'none'}). {_LAYOUT}")
    prefix = prefixes.pop()
    targets = {f"{prefix}conv{i}_1" for i in (1, 2, 3)}
    rest = sorted(convs - targets - set(_SOURCE + _DECODER))
    others = sorted(name for name in set(layers) - convs if set(layers[name]) != set(_NORM_PARTS.values()))
    if targets - convs or len(rest) != 1 or others:
        raise CheckpointError(
            f"{path}: target layers missing: {sorted(targets - convs) or 'none'}; one output convolution expected, found {rest or 'none'}; "
            f"other layers with weights: {others or 'none'}. {_LAYOUT}"
        )
    return prefix, rest[0]


@dataclass(frozen=True)
class _Node:
    kind: str
    config: dict[str, Any]
    inputs: list[str]


def _graph(text: str, path: Path) -> dict[str, _Node]:
    try:
        listed = json.loads(text)["config"]["layers"]
        names = {layer["config"]["name"] for layer in listed}
        return {
            layer["config"]["name"]: _Node(layer["class_name"], layer["config"], list(_inputs(layer["inbound_nodes"], names)))
            for layer in listed
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: the stored model_config cannot be read ({type(error).__name__}: {error}). Fetch the file again."
        ) from error


def _inputs(node: Any, names: set[str]) -> Iterator[str]:
    """Find ``[layer, node, tensor, …]`` wherever this version of Keras wrote it."""
    if isinstance(node, list) and len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int) and node[0] in names:
        yield node[0]
    elif isinstance(node, list | dict):
        for part in node.values() if isinstance(node, dict) else node:
            yield from _inputs(part, names)


def _upstream(graph: dict[str, _Node], layers: Layers, name: str, depth: int = 0) -> list[tuple[str, tuple[str, ...]]]:
    """Return the nearest layers with weights, or inputs, before `name`, with the kinds of layers between."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for source in graph[name].inputs:
        if source in layers or not graph[source].inputs or depth > 8:
            found.append((source, ()))
        else:
            found += [(first, (*through, graph[source].kind)) for first, through in _upstream(graph, layers, source, depth + 1)]
        if len(found) > 8:
            break
    return found


def _norms_by_graph(graph: dict[str, _Node], layers: Layers, targets: tuple[str, ...], out: str, path: Path) -> dict[str, str]:
    """Return the BatchNorm of each encoder convolution; check that the graph is the paper's network."""

    def need(ok: bool, what: str) -> None:
        if not ok:
            raise CheckpointError(f"{path}: {what}. This is another architecture than the paper's; it cannot be imported.")

    absent = [name for name in layers if name not in graph]
    need(not absent, f"the stored graph does not know the layers {absent}")
    norms: dict[str, str] = {}
    for name in (n for n, variables in layers.items() if "gamma" in variables):
        before = _upstream(graph, layers, name)
        need(len(before) == 1 and before[0][1] == (), f"BatchNorm '{name}' follows {before}, expected one convolution")
        need(before[0][0] not in norms, f"'{before[0][0]}' is followed by two BatchNorms")
        norms[before[0][0]] = name
    need(set(norms) == {*_SOURCE, *targets}, f"BatchNorms follow {sorted(norms)}, expected one after each encoder convolution and no other")

    expected: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for chain in (_SOURCE, targets):
        for i in range(1, len(chain)):
            expected[chain[i]] = [(norms[chain[i - 1]], ("MaxPooling2D",) if i - 1 in POOL_AFTER else ())]
    expected[_DECODER[0]] = [(norms[_SOURCE[-1]], ("Concatenate",)), (norms[targets[-1]], ("Concatenate",))]
    for i in range(1, len(_DECODER)):
        expected[_DECODER[i]] = [(_DECODER[i - 1], ("UpSampling2D",) if i in UPSAMPLE_BEFORE else ())]
    expected[out] = [(_DECODER[-1], ())]
    for name, wanted in expected.items():
        before = _upstream(graph, layers, name)
        need(before == wanted, f"layer '{name}' follows {before}, expected {wanted}")
    for name, node in graph.items():
        settings = dict(_SETTINGS.get(node.kind, {}))
        if node.kind == "Conv2D":
            settings["activation"] = "linear" if name == out else "relu"
        for key, right in settings.items():
            value = node.config.get(key, right)
            same = math.isclose(value, right) if isinstance(right, float) and isinstance(value, float) else value == right
            need(same or (name == out and key == "padding"), f"layer '{name}' has {key} = {value!r}, expected {right!r}")
    return norms


def _norms_by_number(layers: Layers, targets: tuple[str, ...], path: Path) -> dict[str, str]:
    """Deal out BatchNorms by number, each encoder in its own order; only if the channels leave one way."""
    numbered: dict[int, str] = {}
    for name in (n for n, variables in layers.items() if "gamma" in variables):
        match = re.fullmatch(r"\D*?(?:_(\d+))?", name)
        number = int(match[1] or 0) if match else -1
        if number < 0 or number in numbered:
            raise CheckpointError(
                f"{path}: cannot tell the order of BatchNorm '{name}', and the file holds no graph. Save it with model.save()."
            )
        numbered[number] = name
    order = [numbered[number] for number in sorted(numbered)]
    sizes = [len(layers[name]["gamma"]) for name in order]
    ways = []
    if len(order) == len(_SOURCE) + len(targets):
        for chosen in itertools.combinations(range(len(order)), len(targets)):
            others = [i for i in range(len(order)) if i not in chosen]
            pairs = [*zip(_SOURCE, others, strict=True), *zip(targets, chosen, strict=True)]
            if all(layers[conv]["kernel"].shape[-1] == sizes[i] for conv, i in pairs):
                ways.append({conv: order[i] for conv, i in pairs})
    if len(ways) != 1:
        raise CheckpointError(
            f"{path}: the file holds no graph, and its {len(order)} BatchNorms ({', '.join(map(str, sizes))} channels, by number) fit the "
            f"encoders in {len(ways)} ways. Save it with model.save(), which keeps the graph."
        )
    return ways[0]


def _state(layers: Layers, targets: tuple[str, ...], out: str, norms: dict[str, str], path: Path) -> dict[str, np.ndarray]:
    state: dict[str, np.ndarray] = {}

    def put(place: str, layer: str, part: str, variable: str) -> None:
        if variable not in layers[layer]:
            raise CheckpointError(f"{path}: layer '{layer}' has no {variable} (found: {', '.join(layers[layer])}). {_LAYOUT}")
        value = layers[layer][variable]
        state[f"{place}.{part}"] = value.transpose(3, 2, 0, 1) if variable == "kernel" and value.ndim == 4 else value

    convs = {f"source.blocks.{i}": name for i, name in enumerate(_SOURCE)} | {f"target.blocks.{i}": name for i, name in enumerate(targets)}
    for place, name in convs.items():
        for part, variable in _NORM_PARTS.items():
            put(f"{place}.norm", norms[name], part, variable)
        state[f"{place}.norm.num_batches_tracked"] = np.zeros((), np.int64)
    places = {f"{place}.conv": name for place, name in convs.items()} | {f"decoder.convs.{i}": name for i, name in enumerate(_DECODER)}
    for place, name in {**places, "decoder.out": out}.items():
        put(place, name, "weight", "kernel")
        put(place, name, "bias", "bias")
    return state


def _sizes(state: dict[str, np.ndarray], path: Path) -> dict[str, Any]:
    """Tell the architecture from the shapes, and check that all of them belong to it."""
    first, marker, last = (state[f"{name}.weight"].shape for name in ("source.blocks.0.conv", "target.blocks.0.conv", "decoder.out"))
    filters = [state[f"source.blocks.{i}.conv.weight"].shape[0] for i in range(len(SOURCE_FILTERS))]
    widths = (n / 1000 for n in (1000, 500, 250, *range(30, 4001)))  # many fit, since filters are rounded to a multiple of 4
    width = next((w for w in widths if [scaled(f, w) for f in SOURCE_FILTERS] == filters), 0.0)
    facts = {"n_protein": last[0], "n_structural": marker[1] if len(marker) > 1 else 0, "width": width}
    if len(first) != 4 or not facts["n_structural"] or not width:
        raise CheckpointError(f"{path}: source encoder of {filters} filters, first kernels {first} and {marker}. {_LAYOUT}")
    with torch.device("meta"):  # shapes only, no memory
        model = PairedCellInpainting(**facts)
    for name, value in model.state_dict().items():
        if tuple(value.shape) != state[name].shape:
            raise CheckpointError(f"{path}: {name} has shape {state[name].shape}, expected {tuple(value.shape)} for {facts}. {_LAYOUT}")
    return {**facts, "in_channels": first[1]}
