"""Encoders beyond the paper's against plain numpy, and what all of them share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import correlate
from torch import nn

from pci_core.encoders import ENCODERS, LAYERS, ResidualEncoder, build_encoder, encoder_of, highest
from pci_core.errors import UnknownNameError
from pci_core.recipe import ENCODERS as IN_RECIPES


def randomised(encoder: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    for name, tensor in encoder.state_dict().items():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, generator=generator) * (0.5 if "var" in name else 0.05))
    return encoder.eval()


def conv(x: np.ndarray, layer: nn.Conv2d) -> np.ndarray:
    weight = layer.weight.detach().double().numpy()
    side = weight.shape[-1] // 2
    x = np.pad(x, ((0, 0), (side, side), (side, side)))
    out = np.stack([correlate(x, w, mode="valid")[0] for w in weight])
    return out if layer.bias is None else out + layer.bias.detach().double().numpy()[:, None, None]


def norm(x: np.ndarray, layer: nn.BatchNorm2d) -> np.ndarray:
    known = (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    mean, var, weight, bias = (t.detach().double().numpy()[:, None, None] for t in known if t is not None)
    return (x - mean) / np.sqrt(var + layer.eps) * weight + bias


def halved(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2).max((2, 4))


@pytest.mark.parametrize("attention", [False, True])
@torch.no_grad()
def test_the_residual_encoder_equals_numpy(attention: bool) -> None:
    encoder = ResidualEncoder(2, width=0.05, attention=attention)
    randomised(encoder)
    x = torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    found = encoder.features(x)
    y = np.maximum(norm(conv(x[0].double().numpy(), encoder.stem), encoder.norm), 0)
    maps = [y]
    for i, stage in enumerate(encoder.stages):
        y = halved(y) if i < 2 else y  # the paper halves after its first and second block
        z = np.maximum(norm(conv(y, stage.first), stage.norms[0]), 0)  # type: ignore[arg-type, index]
        z = norm(conv(z, stage.second), stage.norms[1])  # type: ignore[arg-type, index]
        if attention:
            inner = np.maximum(conv(z.mean((1, 2), keepdims=True), stage.weigh[0]), 0)  # type: ignore[index]
            z = z / (1 + np.exp(-conv(inner, stage.weigh[2])))  # type: ignore[index]
        skip = y if isinstance(stage.skip, nn.Identity) else conv(y, stage.skip)  # type: ignore[arg-type]
        y = np.maximum(z + skip, 0)
        maps.append(y)
    for name, m in zip(LAYERS, maps, strict=True):  # float32 sums of below 4,000 terms in nine layers: relative error below 1e-4
        np.testing.assert_allclose(found[name][0].numpy(), m.max((1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(encoder(x)[0].numpy(), maps[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_one_pass_gives_the_map_and_the_last_layers_features(name: str) -> None:
    encoder = build_encoder(name, 3, 0.05).eval()
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    maps, pooled = encoder.encode(x)
    assert maps.shape == (4, encoder.outputs, 8, 8)
    assert torch.equal(maps, encoder(x))
    assert torch.equal(pooled, encoder.features(x, ("conv5",))["conv5"])
    assert {k: v.shape[1] for k, v in encoder.features(x).items()} == encoder.dims
    assert encoder.channels == 3


def multiplications(name: str) -> int:
    count = 0

    def add(module: nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal count
        assert isinstance(module, nn.Conv2d)
        count += module.weight.numel() * out.shape[2] * out.shape[3]

    encoder = build_encoder(name, 3)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    with torch.no_grad():
        encoder(torch.zeros(1, 3, 64, 64))
    return count


def test_the_others_cost_what_the_papers_does() -> None:
    paper = multiplications("paper")
    assert abs(paper / 1e6 - 1029) < 1  # 27·96·64² + 864·256·32² + (2304·384 + 3456·384 + 3456·256)·16²
    for name in ("residual", "attention"):
        assert 0.9 < multiplications(name) / paper <= 1.02  # of the same cost: a comparison of encoders at equal compute


def test_an_architecture_without_encoder_is_the_papers() -> None:
    known = {"n_protein": 1, "n_structural": 2, "width": 0.05}
    assert type(encoder_of(known)).__name__ == "SourceCellEncoder"
    assert isinstance(encoder_of({**known, "encoder": "residual"}), ResidualEncoder)
    with pytest.raises(UnknownNameError, match="residual"):
        build_encoder("resdual", 3)
    assert ENCODERS == IN_RECIPES


def test_highest_is_the_maximum() -> None:
    x = torch.randn(3, 5, 7, 6)
    assert torch.equal(highest(x), x.amax((2, 3)))
