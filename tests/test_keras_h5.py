"""The import of the authors' Keras files: made-up ones with every fault, and the reference."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pci_core.errors import CheckpointError
from pci_core.keras_h5 import read_keras_h5
from pci_core.model import PairedCellInpainting
from pci_core.networks import build
from pci_core.weights import import_keras

pytestmark = pytest.mark.usefixtures("looked_at_here")
REFERENCE = os.environ.get("PCI_TEST_REFERENCE")
needs_reference = pytest.mark.skipif(not REFERENCE, reason="PCI_TEST_REFERENCE names no folder with the Keras reference")

# The order in which the authors' script builds the encoder blocks, and so numbers their BatchNorms.
BUILT = ("conv1_1", "conv2_1", "rfpconv1_1", "rfpconv2_1", "conv3_1", "conv4_1", "conv5_1", "rfpconv3_1")


def random_model(n_structural: int = 1, width: float = 0.25) -> PairedCellInpainting:
    model = build("pci", 1, n_structural, width, seed=0)
    assert isinstance(model, PairedCellInpainting)
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.from_numpy(rng.uniform(0.1, 1, tuple(value.shape)).astype(np.float32)))
    return model


@dataclass
class KerasFile:
    """A Keras file of a network as one can spoil it before it is written."""

    weights: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    graph: list[dict[str, Any]] | None = field(default_factory=list)
    root: str = "model_weights"
    keras3: bool = False

    def layer(self, name: str, kind: str, inputs: list[str], **config: Any) -> None:
        assert self.graph is not None
        nodes: list[Any] = [[[i, 0, 0, {}] for i in inputs]] if inputs else []
        if self.keras3:
            nodes = [{"args": [{"class_name": "__keras_tensor__", "config": {"keras_history": [i, 0, 0]}} for i in inputs], "kwargs": {}}]
        self.graph.append({"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes})

    def named(self, name: str) -> dict[str, Any]:
        assert self.graph is not None
        return next(layer for layer in self.graph if layer["name"] == name)

    def write(self, path: Path, layer_order: Callable[[list[str]], list[str]] = list) -> Path:
        with h5py.File(path, "w") as file:
            root = file.create_group(self.root) if self.root else file
            root.attrs["layer_names"] = np.array(layer_order(list(self.weights)), "S")
            root.attrs["keras_version"] = "2.0.4-tf"
            if self.graph is not None:
                file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": {"name": "model", "layers": self.graph}})
            for name, variables in self.weights.items():
                group = root.create_group(name)
                group.attrs["weight_names"] = np.array([f"{name}/{v}:0" for v in variables], "S")
                for variable, value in variables.items():
                    group[f"{name}/{variable}:0"] = value
        return path


def keras_file(model: PairedCellInpainting, first_number: int = 1, prefix: str = "rfp", keras3: bool = False) -> KerasFile:
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    file = KerasFile(keras3=keras3)

    def conv(name: str, place: str, inputs: list[str], activation: str = "relu") -> str:
        kernel = state[f"{place}.weight"].transpose(2, 3, 1, 0)
        file.weights[name] = {"kernel": kernel, "bias": state[f"{place}.bias"]}
        file.layer(name, "Conv2D", inputs, activation=activation, padding="valid" if kernel.shape[0] == 1 else "same", strides=[1, 1])
        return name

    def block(name: str, place: str, source: str) -> str:
        conv(name, f"{place}.conv", [source])
        number = BUILT.index(name.replace(prefix, "rfp")) + first_number
        norm = f"batch_normalization_{number}" if number else "batch_normalization"
        parts = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
        file.weights[norm] = {keras: state[f"{place}.norm.{ours}"] for keras, ours in parts.items()}
        file.layer(norm, "BatchNormalization", [name], epsilon=0.001, momentum=0.99)
        return norm

    def other(name: str, kind: str, inputs: list[str], **config: Any) -> str:
        file.layer(name, kind, inputs, **config)
        return name

    ends = []
    for encoder, pre, count in (("source", "", 5), ("target", prefix, 3)):
        last = other(f"{encoder}_in", "InputLayer", [])
        for i in range(count):
            last = block(f"{pre}conv{i + 1}_1", f"{encoder}.blocks.{i}", last)
            if i < 2:
                last = other(f"{encoder}_pool_{i}", "MaxPooling2D", [last], pool_size=[2, 2], strides=[2, 2])
        ends.append(last)
    last = other("concatenate", "Concatenate", ends)
    for i in range(5):
        if i > 2:
            last = other(f"up_{i}", "UpSampling2D", [last], size=[2, 2])
        last = conv(f"conv{i + 6}_1", f"decoder.convs.{i}", [last])
    conv("y_gfp", "decoder.out", [last], "linear")
    return file


def assert_same(state: dict[str, torch.Tensor], model: PairedCellInpainting) -> None:
    expected = model.state_dict()
    assert set(state) == set(expected)
    for name, value in expected.items():
        assert torch.equal(state[name], value), name
    model.load_state_dict(state)


@pytest.mark.parametrize("first_number", [0, 1, 9])
@pytest.mark.parametrize("keras3", [False, True])
def test_by_the_graph(first_number: int, keras3: bool, tmp_path: Path) -> None:
    model = random_model(n_structural=2)
    path = keras_file(model, first_number, keras3=keras3).write(tmp_path / "w.h5")
    state, facts = import_keras(path)
    assert_same(state, model)
    assert (facts["n_protein"], facts["n_structural"], facts["in_channels"], facts["width"]) == (1, 2, 3, 0.25)
    assert facts["batchnorm"] == "by the stored graph" and facts["keras_version"] == "2.0.4-tf"


def test_names_and_order_in_the_file_do_not_matter(tmp_path: Path) -> None:
    """BatchNorms of random numbers, layers listed at random: only the graph tells."""
    model = random_model()
    file = keras_file(model, prefix="nuc")
    text = json.dumps([file.graph, list(file.weights)])
    rng = np.random.default_rng(3)
    for i, new in enumerate(rng.permutation(90)[:8], 1):
        text = text.replace(f'"batch_normalization_{i}"', f'"bn_{new + 100}"')
        file.weights = {k if k != f"batch_normalization_{i}" else f"bn_{new + 100}": v for k, v in file.weights.items()}
    file.graph = json.loads(text)[0]
    state, facts = import_keras(file.write(tmp_path / "w.h5", lambda names: rng.permutation(names).tolist()))
    assert_same(state, model)
    assert facts["target_prefix"] == "nuc"


@pytest.mark.parametrize("width", [0.05, 0.1, 0.5])
def test_other_widths(width: float, tmp_path: Path) -> None:
    model = random_model(width=width)
    state, facts = import_keras(keras_file(model).write(tmp_path / "w.h5"))
    assert_same(state, model)
    assert facts["width"] == pytest.approx(width, abs=0.01)  # filters are rounded to a multiple of 4: 4 of 384 is 0.01


@pytest.mark.parametrize("root", ["model_weights", ""])
def test_without_graph_by_number(root: str, tmp_path: Path) -> None:
    model = random_model()
    file = keras_file(model, first_number=7)
    file.graph, file.root = None, root
    # 7 … 14: sorted as text, 10 would come before 7
    state, facts = import_keras(file.write(tmp_path / "w.h5", lambda names: names[::-1]))
    assert_same(state, model)
    assert "no graph" in facts["batchnorm"]


def test_without_graph_and_ambiguous(tmp_path: Path) -> None:
    """Source and target with equal numbers of channels: the numbers alone do not tell them apart."""
    file = keras_file(random_model())
    file.graph = None
    for name, channels in (("rfpconv3_1", 64), ("batch_normalization_8", 64)):
        file.weights[name] = {k: np.ones((*v.shape[:-1], channels), np.float32) for k, v in file.weights[name].items()}
    with pytest.raises(CheckpointError, match="w.h5.*in 2 ways"):
        read_keras_h5(file.write(tmp_path / "w.h5"))


def _drop_conv(file: KerasFile) -> None:
    del file.weights["conv4_1"]


def _drop_norm(file: KerasFile) -> None:
    del file.weights["batch_normalization_3"]


def _drop_bias(file: KerasFile) -> None:
    del file.weights["conv7_1"]["bias"]


def _extra_conv(file: KerasFile) -> None:
    file.weights["conv11_1"] = file.weights["conv10_1"]


def _swap_graph(file: KerasFile) -> None:
    file.named("conv4_1")["inbound_nodes"], file.named("conv5_1")["inbound_nodes"] = [[["conv2_1", 0, 0, {}]]], [[["conv1_1", 0, 0, {}]]]


def _swap_concatenation(file: KerasFile) -> None:
    file.named("concatenate")["inbound_nodes"][0].reverse()


def _no_pooling(file: KerasFile) -> None:
    file.named("conv2_1")["inbound_nodes"] = [[["batch_normalization_1", 0, 0, {}]]]


def _other_activation(file: KerasFile) -> None:
    file.named("conv3_1")["config"]["activation"] = "elu"


def _other_epsilon(file: KerasFile) -> None:
    file.named("batch_normalization_5")["config"]["epsilon"] = 1e-5


def _bilinear(file: KerasFile) -> None:
    file.named("up_3")["config"]["interpolation"] = "bilinear"


def _shape(file: KerasFile) -> None:
    file.weights["conv8_1"]["kernel"] = np.ones((3, 3, 96, 95), np.float32)


def _nan(file: KerasFile) -> None:
    file.weights["conv8_1"]["bias"] = np.full(96, np.nan, np.float32)


def _integers(file: KerasFile) -> None:
    file.weights["conv8_1"]["bias"] = np.ones(96, np.int64)


def _graph_is_nonsense(file: KerasFile) -> None:
    file.graph = [{"class_name": "Conv2D"}]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_drop_conv, "no layer conv4_1"),
        (_drop_norm, "BatchNorms follow"),
        (_drop_bias, "conv7_1.*no bias"),
        (_extra_conv, "conv11_1"),
        (_swap_graph, "conv4_1.*another architecture"),
        (_swap_concatenation, "conv6_1.*another architecture"),
        (_no_pooling, "conv2_1.*MaxPooling2D"),
        (_other_activation, "activation = 'elu'"),
        (_other_epsilon, "epsilon = 1e-05"),
        (_bilinear, "interpolation"),
        (_shape, "decoder.convs.2.weight has shape"),
        (_nan, "NaN"),
        (_integers, "no plain floating-point"),
        (_graph_is_nonsense, "model_config"),
    ],
)
def test_foreign_files(spoil: Callable[[KerasFile], None], says: str, tmp_path: Path) -> None:
    file = keras_file(random_model())
    spoil(file)
    with pytest.raises(CheckpointError, match=rf"w\.h5.*{says}"):
        read_keras_h5(file.write(tmp_path / "w.h5"))


def test_links_out_of_the_file_are_refused(tmp_path: Path) -> None:
    keras_file(random_model()).write(tmp_path / "other.h5")
    path = keras_file(random_model()).write(tmp_path / "w.h5")
    with h5py.File(path, "r+") as file:
        del file["model_weights/conv3_1"]
        file["model_weights/conv3_1"] = h5py.ExternalLink("other.h5", "/model_weights/conv3_1")
    with pytest.raises(CheckpointError, match="conv3_1.*link"):
        read_keras_h5(path)


def test_huge_array_is_not_read(tmp_path: Path) -> None:
    path = keras_file(random_model()).write(tmp_path / "w.h5")
    with h5py.File(path, "r+") as file:
        group = file["model_weights/conv3_1/conv3_1"]
        del group["kernel:0"]
        group.create_dataset("kernel:0", (3, 3, 1 << 20, 1 << 20), "f4", chunks=(3, 3, 16, 16))  # 40 TB that were never written
    with pytest.raises(CheckpointError, match="GB of memory"):
        read_keras_h5(path)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98])
def test_truncated_file(share: float, tmp_path: Path) -> None:
    path = keras_file(random_model()).write(tmp_path / "w.h5")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"w\.h5 is damaged"):
        read_keras_h5(path)


def test_damaged_bytes_never_pass_for_another_error(tmp_path: Path, thorough: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 has no checksums: a changed weight may pass (the authors' files have git hashes); nothing else may."""
    monkeypatch.undo()  # on damage the library may loop for ever: looked at in a process of its own, as in earnest
    path = keras_file(random_model(width=0.05)).write(tmp_path / "w.h5")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60 if thorough else 8):  # half a second each
        damaged = bytearray(content)
        for place in rng.integers(0, len(damaged), 10):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged))
        try:
            import_keras(path)
        except CheckpointError:
            refused += 1
    assert refused > 0


def test_not_keras_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not there"):
        import_keras(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["numbers"] = np.arange(3)
    with pytest.raises(CheckpointError, match="layer_names"):
        import_keras(tmp_path / "other.h5")


@needs_reference
def test_reference_features_and_prediction() -> None:
    """The paper's network in Keras, trained six steps: all five layers and the prediction of real cells.

    Compared as the largest difference over the largest value. float32 sums of up to 3,456 products in another
    order differ by a few 1e-7 a layer (measured: 0 for conv1 to 2.8e-6 for conv4, 2.4e-6 for the prediction);
    epsilon 1e-5 instead of 1e-3 gives 5e-4 and more, two swapped BatchNorms 0.4 (measured), so 1e-5 tells them apart.
    """
    folder = Path(REFERENCE or "")
    state, facts = import_keras(folder / "keras_pci_yeast.h5")
    assert (facts["n_protein"], facts["n_structural"], facts["width"], facts["batchnorm"]) == (1, 1, 1.0, "by the stored graph")
    model = PairedCellInpainting(facts["n_protein"], facts["n_structural"], facts["width"])
    model.load_state_dict(state)
    model.eval()
    with np.load(folder / "keras_pci_yeast.npz", allow_pickle=False) as known:
        reference = dict(known)
    crops = torch.from_numpy(reference["source"]).permute(0, 3, 1, 2).contiguous()
    some = slice(0, 16)  # of 40, to stay quick
    with torch.inference_mode():
        found = {name: value.numpy() for name, value in model.source.features(crops[some]).items()}
        painted = model(crops[some], crops[torch.from_numpy(reference["target_index"])][some, 1:])
    found["prediction"] = painted.permute(0, 2, 3, 1).numpy()
    for name, value in found.items():
        expected = reference[name][some]
        assert np.abs(value - expected).max() <= 1e-5 * np.abs(expected).max(), name


@needs_reference
def test_reference_without_its_graph(tmp_path: Path) -> None:
    """The numbers and channels of the real network leave one way, the one that the graph tells."""
    path = Path(REFERENCE or "") / "keras_pci_yeast.h5"
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as file:
        del file.attrs["model_config"]
    state, facts = read_keras_h5(copy)
    assert "no graph" in facts["batchnorm"]
    for name, value in read_keras_h5(path)[0].items():
        np.testing.assert_array_equal(state[name], value)
