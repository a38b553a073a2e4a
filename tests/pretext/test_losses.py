"""The losses of pretext tasks against plain numpy, and the networks around them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pci_core.errors import UnknownNameError
from pci_core.model import PairedCellInpainting, normalised, weights_of
from pci_core.networks import PRETEXTS, build
from pci_core.pretext.both import PAINTING, InpaintingContrast
from pci_core.pretext.contrast import Contrast, contrast
from pci_core.pretext.redundancy import redundancy
from pci_core.recipe import PRETEXTS as IN_RECIPES


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def numpy_contrast(a: np.ndarray, b: np.ndarray, group: list[int], temperature: float) -> np.ndarray:
    z = np.concatenate([a, b]).astype(float)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    n, of = len(a), [*group, *group]
    each = np.zeros(2 * n)
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = [j for j in range(2 * n) if of[j] != of[i]] + [partner]
        logits = np.array([z[i] @ z[j] / temperature for j in others])
        each[i] = np.log(np.exp(logits).sum()) - logits[-1]
    return (each[:n] + each[n:]) / 2


@pytest.mark.parametrize("group", [[0, 1, 2, 3], [0, 0, 1, 2], [5, 5, 5, 9]])
def test_contrast_equals_numpy(group: list[int]) -> None:
    a, b = random(4, 6), random(4, 6, seed=1)
    found = contrast(a, b, torch.tensor(group), 0.3)
    np.testing.assert_allclose(found.numpy(), numpy_contrast(a.numpy(), b.numpy(), group, 0.3), rtol=1e-5)  # float32 against float64
    if group == [0, 1, 2, 3]:
        assert torch.equal(found, contrast(a, b, None, 0.3))


def test_cells_of_one_image_are_never_told_apart() -> None:
    a, b = random(4, 6).requires_grad_(), random(4, 6, seed=1).requires_grad_()
    assert float(contrast(a, b, torch.zeros(4)).abs().max()) == 0  # one image: nothing to tell apart, and nothing is learnt
    loss = contrast(a, b, torch.tensor([0, 0, 1, 1]))[0]
    loss.backward()
    assert a.grad is not None and b.grad is not None
    # the loss of pair 0 does not see the other pair of its image
    assert float(a.grad[1].abs().max()) == float(b.grad[1].abs().max()) == 0
    assert float(a.grad[2].abs().max()) > 0


def numpy_redundancy(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    each = 25 * ((a - b) ** 2).mean(1)
    for z in (a, b):
        deviation = np.sqrt(z.var(0, ddof=1) + 1e-4)
        covariance = np.cov(z, rowvar=False)
        away = (covariance**2).sum() - (np.diag(covariance) ** 2).sum()
        each = each + 12.5 * np.maximum(0, 1 - deviation).mean() + away / z.shape[1]
    return each


def test_redundancy_equals_numpy() -> None:
    a, b = 0.5 * random(7, 4), 0.5 * random(7, 4, seed=1)
    expected = numpy_redundancy(a.double().numpy(), b.double().numpy())
    np.testing.assert_allclose(redundancy(a, b).numpy(), expected, rtol=1e-5)  # float32 against float64
    assert redundancy(a[:1], b[:1]).shape == (1,)  # a batch of one has no deviation
    same = torch.ones(7, 4)
    assert float(redundancy(same, same)[0]) > 20  # all alike: 25 times nearly 1


def test_losses_of_inpainting_equal_numpy() -> None:
    protein, painted = torch.rand(3, 2, 8, 8), torch.rand(3, 2, 8, 8)
    p, q = protein.double().numpy(), painted.double().numpy()
    found = {how: PairedCellInpainting(2, 1, 0.05, loss=how).error(painted, protein).numpy() for how in ("mse", "weighted", "normalised")}
    np.testing.assert_allclose(found["mse"], ((q - p) ** 2).mean((1, 2, 3)), rtol=1e-5)
    w = 0.1 + p
    w /= w.mean((2, 3), keepdims=True)
    np.testing.assert_allclose(found["weighted"], (w * (q - p) ** 2).mean((1, 2, 3)), rtol=1e-5)
    z = (p - p.mean((2, 3), keepdims=True)) / np.sqrt(p.var((2, 3), keepdims=True) + 1e-4)
    np.testing.assert_allclose(found["normalised"], ((q - z) ** 2).mean((1, 2, 3)), rtol=1e-4)
    assert torch.allclose(weights_of(protein).mean((2, 3)), torch.ones(3, 2))
    assert float(normalised(torch.full((1, 1, 4, 4), 0.7)).abs().max()) == 0  # a constant channel


@pytest.mark.parametrize("pretext", PRETEXTS)
@pytest.mark.parametrize("encoder", ["paper", "residual"])
def test_every_pretext_gives_a_loss_for_each_pair_and_reaches_the_encoder(pretext: str, encoder: str) -> None:
    model = build("pci", 1, 2, 0.05, seed=0, pretext=pretext, encoder=encoder).train()
    source, target = torch.rand(2, 6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    loss = model.loss(source, target, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert loss.shape == (6,) and bool(torch.isfinite(loss).all())
    loss.mean().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in model.source.parameters() if p.ndim == 4)
    assert model.architecture.get("pretext", "inpainting") == pretext
    again = build(**model.architecture, seed=0)  # what a card says builds the same network
    assert again.state_dict().keys() == model.state_dict().keys()


def test_what_the_encoder_sees_may_differ_from_what_is_painted() -> None:
    model = build("pci", 1, 1, 0.05, seed=0).eval()
    source, target, other = torch.rand(3, 2, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.loss(source, target, None, (other, source)), model.loss(other, target))


def test_both_is_the_sum_of_the_two() -> None:
    model = build("pci", 1, 1, 0.05, seed=0, pretext="inpainting+contrast").eval()
    assert isinstance(model, InpaintingContrast)
    source, target = torch.rand(2, 4, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    painted = model(source, target[:, 1:])
    first, second = (model.head(model.source.encode(x)[1]) for x in (source, target))
    expected = PAINTING * F.mse_loss(painted, target[:, :1], reduction="none").mean((1, 2, 3)) + contrast(first, second)
    assert torch.allclose(model.loss(source, target), expected, rtol=1e-4)  # the order of sums differs with the size of the batch


def test_the_papers_network_is_not_changed_by_the_others() -> None:
    plain, named = build("pci", 1, 1, 0.05, seed=4), PairedCellInpainting
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        direct = named(1, 1, 0.05)
    assert plain.architecture == {"kind": "pci", "n_protein": 1, "n_structural": 1, "width": 0.05}  # as in earlier cards
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), direct.state_dict().values(), strict=True))


def test_contrast_needs_no_structural_channel() -> None:
    model = build("pci", 1, 0, 0.05, seed=0, pretext="contrast")
    assert isinstance(model, Contrast)
    assert model.loss(*torch.rand(2, 4, 1, 16, 16)).shape == (4,)


def test_unknown_names_are_told() -> None:
    with pytest.raises(UnknownNameError, match="contrast"):
        build("pci", 1, 1, pretext="contrst")
    assert tuple(PRETEXTS) == IN_RECIPES
