"""VGG16 as a feature set: the network against one written out in numpy, the three input strategies, the weights file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pci_core.baselines import vgg16 as module
from pci_core.baselines.vgg16 import (
    BLOCK_FILTERS,
    CONV_LAYERS,
    MEAN,
    NAMES,
    STD,
    build_vgg16,
    colours,
    fill,
    load_weights,
    parse_name,
    vgg16,
)
from pci_core.cells import CellDataset, CellWriter, Channel
from pci_core.errors import CheckpointError, DatasetError, UnknownNameError, WeightsUnavailableError
from pci_core.recipe import Preprocess
from pci_core.storage import file_sha256

RAW = Preprocess("clip", "clip", floor=0.0)  # [0, 255] to [0, 1] and nothing else


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Random weights that keep the size of activations through all layers (He et al. 2015)."""
    rng = np.random.default_rng(0)
    out = {}
    for name, value in build_vgg16().state_dict().items():
        fan_in = int(np.prod(value.shape[1:]))
        scale = 0.1 if name.endswith("bias") else np.sqrt(2 / fan_in)
        out[name] = torch.from_numpy(scale * rng.standard_normal(tuple(value.shape), np.float32))
    return out


@pytest.fixture(scope="module")
def weights(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg16") / "random.pth"
    torch.save(state, path)
    return path


@pytest.fixture
def cells(tmp_path: Path) -> CellDataset:
    return write_cells(tmp_path / "cells3", 3)


def write_cells(folder: Path, channels: int, side: int = 32, n: int = 2) -> CellDataset:
    import pandas as pd

    rng = np.random.default_rng(channels)
    crops = rng.integers(0, 256, (n, channels, side, side)).astype(np.uint8)
    names = [Channel("protein", "protein"), *(Channel(f"marker{i}", "structural") for i in range(1, channels))]
    with CellWriter(folder, names, 0.5) as writer:
        writer.add(crops, pd.DataFrame({"cell_id": [f"c{i}" for i in range(n)], "image": "i"}))
    return CellDataset(folder)


def by_hand(pictures: np.ndarray, state: dict[str, torch.Tensor]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """VGG16's convolutions in numpy, float64: maxima of all layers, and what comes after the last pooling."""
    parameters = iter(state[k].numpy().astype(float) for k in state if k.startswith("features"))
    x, out, names = pictures, {}, iter(CONV_LAYERS)
    for filters in BLOCK_FILTERS:
        for _ in filters:
            weight, bias = next(parameters), next(parameters)
            n, c, h, w = x.shape
            padded = np.zeros((n, c, h + 2, w + 2))
            padded[:, :, 1:-1, 1:-1] = x
            x = np.zeros((n, len(bias), h, w)) + bias[:, None, None]
            for dy in range(3):
                for dx in range(3):
                    x += np.tensordot(weight[:, :, dy, dx], padded[:, :, dy : dy + h, dx : dx + w], (1, 1)).transpose(1, 0, 2, 3)
            x = np.maximum(x, 0)
            out[next(names)] = x.max((2, 3))
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))
    return out, x


def normalised(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    return np.stack([(c / 255 - m) / s for c, m, s in zip((red, green, blue), MEAN, STD, strict=True)], 1)


def test_every_layer_of_every_strategy_against_numpy(cells: CellDataset, state: dict[str, torch.Tensor], weights: Path) -> None:
    names = [n for n in NAMES if "fc1" not in n]
    assert len(names) == 39
    found = vgg16(cells, RAW, names, weights, device="cpu", precision="float32", batch_size=1, quiet=True)
    assert list(found) == names
    raw = np.array(cells.crops, float)
    grey = [by_hand(normalised(raw[:, c], raw[:, c], raw[:, c]), state)[0] for c in range(3)]
    coloured = by_hand(normalised(raw[:, 2], raw[:, 0], raw[:, 1]), state)[0]
    for layer in CONV_LAYERS:
        expected = {"protein": grey[0][layer], "channels": np.hstack([g[layer] for g in grey]), "rgb": coloured[layer]}
        for strategy, values in expected.items():
            measured = found[f"vgg16_{layer}_{strategy}"]
            assert measured.values.dtype == np.float32 and measured.values.shape == values.shape
            # float32 sums of up to 4,608 products against float64: about 1e-6 of a layer's largest value
            np.testing.assert_allclose(measured.values, values, rtol=1e-4, atol=1e-5 * values.max(), err_msg=f"{layer} {strategy}")
    told = found["vgg16_block4_conv1_rgb"]
    assert told.names[0] == "vgg16_block4_conv1_rgb_0001"
    assert (told.facts["red"], told.facts["green"], told.facts["blue"]) == ("marker2", "protein", "marker1")
    assert told.facts["model"] == "vgg16" and told.facts["layer"] == "block4_conv1" and told.facts["strategy"] == "rgb"
    assert told.facts["weights"] == file_sha256(weights) and told.facts["source"] == "file random.pth"


def test_fc1_sees_the_crop_at_224_px(
    tmp_path: Path, state: dict[str, torch.Tensor], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = write_cells(tmp_path / "one", 2, n=1)
    assert build_vgg16(fc1=True).get_parameter("classifier.0.weight").shape == (4096, 512 * 7 * 7)
    monkeypatch.setattr(module, "FC_FEATURES", 8)  # 103 million random numbers would take seconds
    rng = np.random.default_rng(1)
    full = torch.from_numpy(rng.standard_normal((8, 25088)).astype(np.float32)) / 100
    bias = torch.from_numpy(rng.standard_normal(8).astype(np.float32))
    given = {**state, "classifier.0.weight": full, "classifier.0.bias": bias, "classifier.6.bias": torch.zeros(1000)}
    monkeypatch.setattr(module, "load_weights", lambda path, quiet: (given, {}))
    one = {"vgg16_fc1_protein", "vgg16_block1_conv1_protein"}
    found = vgg16(cells, RAW, sorted(one), "given", device="cpu", precision="float32", batch_size=1, quiet=True)

    # bilinear by hand, along one axis after the other, pixel centres at half numbers
    at = np.clip((np.arange(224) + 0.5) * 32 / 224 - 0.5, 0, 31)
    along = np.array([np.interp(at, np.arange(32), row) for row in np.eye(32)]).T  # (224, 32)
    large = along @ np.array(cells.crops[:, 0], float) @ along.T
    with torch.inference_mode():  # the convolutions are those that were just compared, here at another size
        last = fill(build_vgg16(), state, "").features(torch.from_numpy(normalised(large, large, large)).float())  # type: ignore[operator]
    expected = np.maximum(full.double().numpy() @ last.double().numpy().reshape(1, -1)[0] + bias.double().numpy(), 0)
    assert found["vgg16_fc1_protein"].values.shape == (1, 8) and (expected > 0).any()
    # float32 sums of 25,088 products: 1e-5 of values around 1
    np.testing.assert_allclose(found["vgg16_fc1_protein"].values[0], expected, rtol=1e-3, atol=1e-3)
    assert found["vgg16_block1_conv1_protein"].facts["input"] == "the crop's own size"


def test_colours_of_one_to_four_channels(tmp_path: Path, weights: Path) -> None:
    assert [colours(n) for n in (1, 2, 3, 4)] == [(-1, 0, -1), (1, 0, -1), (2, 0, 1), (2, 0, 1)]
    four = vgg16(write_cells(tmp_path / "four", 4), RAW, ["vgg16_block1_conv1_rgb"], weights, device="cpu", quiet=True)
    assert four["vgg16_block1_conv1_rgb"].facts["channels_left_out"] == "marker3"


def test_bfloat16_is_close(cells: CellDataset, weights: Path) -> None:
    name = "vgg16_block4_conv1_protein"
    a, b = (vgg16(cells, RAW, [name], weights, device="cpu", precision=p, quiet=True)[name].values for p in ("float32", "bfloat16"))
    # 8 bits of mantissa, rounded in eight layers one after another: 0.4 % each
    assert 0 < np.linalg.norm(a - b) / np.linalg.norm(a) < 0.03


def test_names() -> None:
    assert len(NAMES) == len(set(NAMES)) == 14 * 3
    assert parse_name("vgg16_block4_conv1_protein") == ("block4_conv1", "protein") and parse_name("vgg16_fc1_rgb") == ("fc1", "rgb")
    with pytest.raises(UnknownNameError, match="Did you mean vgg16_block4_conv3_rgb"):
        parse_name("vgg16_block4_conv4_rgb")


def test_crops_too_small_for_a_layer(tmp_path: Path, weights: Path) -> None:
    small = write_cells(tmp_path / "small", 2, side=8)
    with pytest.raises(DatasetError, match="8x8 px are too small for block5_conv1 .* at least 16 px"):
        vgg16(small, RAW, ["vgg16_block5_conv1_rgb"], weights, quiet=True)
    assert vgg16(small, RAW, ["vgg16_block4_conv1_rgb"], weights, quiet=True)["vgg16_block4_conv1_rgb"].values.shape == (2, 512)


# --- weights


@pytest.mark.parametrize("form", ["old.pth", "new.pth", "weights.safetensors"])
def test_each_form_of_file_is_read(state: dict[str, torch.Tensor], tmp_path: Path, form: str) -> None:
    import safetensors.torch

    path = tmp_path / form
    if form == "weights.safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "new.pth")  # torch's public file is of the old form
    found, facts = load_weights(path)
    assert found.keys() == state.keys() and torch.equal(found["features.28.weight"], state["features.28.weight"])
    assert facts == {"weights": file_sha256(path), "source": f"file {form}"}


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("PCI_MIRROR", str(folder))
    yield folder


def test_public_weights_not_to_be_had(cells: CellDataset, mirror: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match="not to be had, so nothing was computed. Tried .*397923af.*--vgg16-weights PATH"):
        vgg16(cells, RAW, ["vgg16_block1_conv1_protein"], quiet=True)


def test_public_weights_are_verified(mirror: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = mirror / "download.pytorch.org" / "models" / "vgg16-397923af.pth"
    place.parent.mkdir(parents=True)
    place.hardlink_to(weights)
    with pytest.raises(WeightsUnavailableError, match="is not the file"):
        load_weights()
    monkeypatch.setattr(module, "SHA256", file_sha256(weights))
    state, facts = load_weights()
    assert "features.0.weight" in state and facts == {"weights": module.SHA256, "source": module.URL}


def test_the_hash_is_the_one_in_the_files_name() -> None:
    assert len(module.SHA256) == 64 and module.URL.endswith(f"vgg16-{module.SHA256[:8]}.pth")


def test_tensors_that_are_no_vgg16(state: dict[str, torch.Tensor]) -> None:
    def told(given: dict[str, torch.Tensor], match: str, fc1: bool = False) -> None:
        with pytest.raises(CheckpointError, match=f"^some.pth: .*{match}"):
            fill(build_vgg16(fc1), given, "some.pth")

    told({**state, "features.0.weight": torch.zeros(64, 2, 3, 3)}, r"features.0.weight is \(64, 2, 3, 3\), not \(64, 3, 3, 3\)")
    told({k: v for k, v in state.items() if k != "features.28.bias"}, "1 of the 26 tensors needed .* missing, e.g. features.28.bias")
    told({**state, "features.2.bias": torch.full((64,), torch.nan)}, "features.2.bias hold NaN")
    told(state, "2 of the 28 .* classifier.0.weight, classifier.0.bias; it has", fc1=True)
    told({}, "it has none")


@pytest.mark.parametrize(("content", "kind"), [([1, 2], "list"), ({"model": 3}, "dict")])
def test_files_without_named_tensors(cells: CellDataset, tmp_path: Path, content: object, kind: str) -> None:
    torch.save(content, tmp_path / "wrong.pth")
    with pytest.raises(CheckpointError, match=f"holds no named tensors but {kind}"):
        vgg16(cells, RAW, ["vgg16_block1_conv1_protein"], tmp_path / "wrong.pth", quiet=True)


@pytest.mark.parametrize("name", ["cut.pth", "text.pth", "empty.pth", "cut.safetensors"])
def test_damaged_files(weights: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with open(weights, "rb") as handle:
        path.write_bytes({"cut": handle.read(100_000), "text": b"<html>404</html>", "empty": b""}[path.stem])
    with pytest.raises(CheckpointError, match=rf"{name} is damaged or no file of weights"):
        load_weights(path)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not there. Correct the path after --vgg16-weights"):
        load_weights(tmp_path / "none.pth")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("executed",)

    torch.save({"features.0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="damaged or no file of weights"):
        load_weights(tmp_path / "evil.pth")
