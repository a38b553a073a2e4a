"""The networks against a plain numpy oracle, and the paper's sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import correlate

from pci_core.encoders import LAYERS, ConvBlock, scaled
from pci_core.errors import UnknownNameError
from pci_core.model import Autoencoder, PairedCellInpainting, upsample_conv
from pci_core.networks import build


def numpy_conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """'same' cross-correlation of (C, H, W) with (O, C, 3, 3)."""
    side = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (side, side), (side, side)))
    return np.stack([correlate(padded, w, mode="valid")[0] + b for w, b in zip(weight, bias, strict=True)])


def randomise(model: torch.nn.Module) -> None:
    """Move weights, biases and BatchNorm statistics away from their initial values."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, generator=generator) * (0.5 if "var" in name else 0.05))


@torch.no_grad()
def test_source_encoder_equals_numpy() -> None:
    model = PairedCellInpainting(1, 1, width=0.05).eval()
    randomise(model)
    x = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    found = model.source.features(x)
    y = x[0].double().numpy()
    for i, block in enumerate(model.source.blocks):
        assert isinstance(block, ConvBlock)
        y = np.maximum(numpy_conv(y, block.conv.weight.double().numpy(), block.conv.bias.double().numpy()), 0)  # type: ignore[union-attr]
        # features are the ReLU output before BatchNorm; float32 sums of < 4000 terms: relative error < 1e-5
        np.testing.assert_allclose(found[LAYERS[i]][0].numpy(), y.max((1, 2)), rtol=1e-5, atol=1e-6)
        norm = block.norm
        y = (y - norm.running_mean.numpy()[:, None, None]) / np.sqrt(norm.running_var.numpy() + 1e-3)[:, None, None]  # type: ignore[union-attr]
        y = y * norm.weight.numpy()[:, None, None] + norm.bias.numpy()[:, None, None]
        if i < 2:
            y = y.reshape(len(y), y.shape[1] // 2, 2, y.shape[2] // 2, 2).max((2, 4))
    np.testing.assert_allclose(model.source(x)[0].numpy(), y, rtol=1e-4, atol=1e-5)  # five layers add up


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("falling", [(), (0,), (0, 1)])
def test_pooling_before_the_norm_is_the_same_bit_for_bit(dtype: torch.dtype, falling: tuple[int, ...]) -> None:
    encoder = build("pci", 1, 1, 0.05, seed=0).source.eval()
    randomise(encoder)
    for i in falling:  # a channel turned round: there the order of the two cannot be changed
        encoder.blocks[i].norm.weight[1] = -0.5  # type: ignore[union-attr, index, operator]
    assert encoder.norms_rise() == tuple(i not in falling for i in range(5))
    x = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found, plain, y = encoder.features(x), {}, x
        for i, (name, block) in enumerate(zip(LAYERS, encoder.blocks, strict=True)):
            activation, y = block(y)
            plain[name] = activation.float().amax((2, 3))
            y = F.max_pool2d(y, 2) if i < 2 else y
    for name in LAYERS:
        assert torch.equal(found[name], plain[name])


def test_upsampling_is_folded_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 6, 7, dtype=torch.float64, generator=generator)
    weight = torch.randn(4, 5, 3, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, generator=generator)
    plain = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    folded = upsample_conv(x, weight, bias)
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-12)  # float64 rounding of 45 terms
    (g1,) = torch.autograd.grad(plain.sin().sum(), weight)
    (g2,) = torch.autograd.grad(folded.sin().sum(), weight)
    torch.testing.assert_close(g1, g2, rtol=0, atol=1e-10)


def test_the_papers_sizes() -> None:
    model = PairedCellInpainting(1, 2)
    assert list(model.source.dims.values()) == [96, 256, 384, 384, 256]
    assert [b.conv.out_channels for b in model.target.blocks] == [16, 32, 32]  # type: ignore[union-attr]
    assert [c.out_channels for c in model.decoder.convs] == [256, 384, 384, 256, 96]
    assert model.decoder.convs[0].in_channels == 288
    assert model.source.blocks[0].conv.in_channels == 3  # type: ignore[union-attr]
    block = model.source.blocks[0]
    assert isinstance(block, ConvBlock)
    assert (block.norm.eps, block.norm.momentum) == (1e-3, 0.01)  # Keras' 0.99 is the share that is kept
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.decoder.modules())


def test_glorot_initialisation() -> None:
    weight = build("pci", 1, 1, seed=0).source.blocks[2].conv.weight.detach()  # type: ignore[union-attr]
    limit = np.sqrt(6 / (9 * 256 + 9 * 384))
    assert weight.abs().max() <= limit
    assert float(weight.std()) == pytest.approx(limit / np.sqrt(3), rel=0.01)  # 885k uniform draws: 0.1 % is one sigma


@pytest.mark.parametrize(("n_protein", "n_structural"), [(1, 1), (1, 3), (2, 2)])
def test_any_number_of_channels(n_protein: int, n_structural: int) -> None:
    source, target = torch.rand(2, 3, n_protein + n_structural, 16, 16)
    painter = PairedCellInpainting(n_protein, n_structural, width=0.1)
    assert painter(source, target[:, n_protein:]).shape == (3, n_protein, 16, 16)
    assert painter.loss(source, target).shape == (3,)
    rebuilder = Autoencoder(n_protein, n_structural, width=0.1)
    assert rebuilder(source).shape == source.shape


def test_loss_is_the_mean_squared_error_of_the_protein() -> None:
    model = PairedCellInpainting(1, 1, width=0.05).eval()
    source, target = torch.rand(2, 3, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        painted = model(source, target[:, 1:]).numpy()
        expected = ((painted - target[:, :1].numpy()) ** 2).mean((1, 2, 3))
        np.testing.assert_allclose(model.loss(source, target).numpy(), expected, rtol=1e-5)  # float32 means of 64 terms


def test_the_painted_protein_does_not_see_the_targets_own() -> None:
    model = PairedCellInpainting(1, 1, width=0.05).eval()
    source, target = torch.rand(2, 2, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    other = target.clone()
    other[:, 0] = 0
    with torch.no_grad():
        torch.testing.assert_close(model(source, target[:, 1:]), model(source, other[:, 1:]), rtol=0, atol=0)


def test_layers_can_be_chosen_and_are_checked() -> None:
    encoder = PairedCellInpainting(1, 1, width=0.1).eval().source
    x = torch.rand(2, 2, 8, 8)
    with torch.no_grad():
        everything = encoder.features(x)
        torch.testing.assert_close(encoder.features(x, ("conv3",))["conv3"], everything["conv3"], rtol=0, atol=0)
        assert list(everything) == list(LAYERS)
        assert (encoder.features(x, ("conv2",), "mean")["conv2"] <= everything["conv2"]).all()
    with pytest.raises(UnknownNameError, match="unknown layer 'conv6'. Did you mean conv"):
        encoder.features(x, ("conv6",))


def test_seed_fixes_the_weights_and_leaves_the_global_state() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second = build("pci", 1, 1, 0.1, seed=1), build("pci", 1, 1, 0.1, seed=1)
    assert torch.rand(1) == expected
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert not torch.equal(first.decoder.out.weight, build("pci", 1, 1, 0.1, seed=2).decoder.out.weight)
    with pytest.raises(UnknownNameError, match="unknown model 'autoencodr'. Did you mean autoencoder"):
        build("autoencodr", 1, 1)


def test_width_is_exact_at_one() -> None:
    assert [scaled(f, 1.0) for f in (16, 96, 384)] == [16, 96, 384]
    assert [scaled(f, 0.01) for f in (16, 96)] == [4, 4]
