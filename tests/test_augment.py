"""Random changes of crops against plain numpy, and from the generator alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from pci_core.augment import STRENGTHS, Strength, change, draw, strength_of
from pci_core.errors import UnknownNameError
from pci_core.recipe import AUGMENT

SHAPE = (5, 3, 12, 12)


def drawn(strength: Strength, seed: int = 0) -> dict[str, torch.Tensor]:
    return draw(SHAPE, strength, torch.Generator().manual_seed(seed))


def crops() -> torch.Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(9))


def test_strong_changes_equal_numpy() -> None:
    strong = STRENGTHS["strong"]
    assert strong is not None
    draws = drawn(strong)
    found = change(crops(), draws).double().numpy()
    d = {k: v.double().numpy() for k, v in draws.items()}
    row = np.array([1, 4, 6, 4, 1]) / 16
    for i, x in enumerate(crops().double().numpy()):
        x = x.transpose(0, 2, 1) if draws["turn"][i] else x
        x = np.stack([x[a] + sum(d["bleed"][i, a, b] * x[b] for b in range(3)) for a in range(3)])
        blurred = ndimage.correlate1d(ndimage.correlate1d(x, row, axis=1, mode="nearest"), row, axis=2, mode="nearest")
        x = x + d["blur"][i] * (blurred - x)
        x = (x + 1e-3) ** d["power"][i]
        side = np.linspace(-1, 1, 12)
        x = x * (1 + d["slope"][i, :, 0] * side[:, None] + d["slope"][i, :, 1] * side)
        x = x * d["gain"][i] + d["offset"][i] + d["noise"][i]
        np.testing.assert_allclose(found[i], x, rtol=1e-4, atol=1e-5)  # float32 against float64
    assert not d["bleed"][:, range(3), range(3)].any()  # no channel bleeds into itself


def test_draws_stay_in_their_ranges_and_depend_on_the_seed_alone() -> None:
    strength = Strength(gain=0.4, offset=0.1, noise=0.05)
    one, again, other = drawn(strength), drawn(strength), drawn(strength, 1)
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert not torch.equal(one["gain"], other["gain"])
    many = draw((4000, 1, 4, 4), strength, torch.Generator().manual_seed(0))
    gain = many["gain"].log().flatten()
    # even in ±0.4: a deviation of 0.8 / sqrt(12); the mean of 4,000 is known to 0.004, four of which are allowed
    assert float(gain.abs().max()) <= 0.4 + 1e-6 and abs(float(gain.mean())) < 0.016 and abs(float(gain.std()) - 0.231) < 0.01
    assert 0.47 < float(many["turn"].float().mean()) < 0.53  # half, within four standard errors


def test_crops_that_are_not_square_are_not_turned() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = draw((4, 2, 8, 12), Strength(gain=0, offset=0, noise=0), generator)
    x = torch.rand(4, 2, 8, 12)
    assert torch.equal(change(x, draws), x)


def test_names() -> None:
    assert strength_of("", "inpainting") is None  # the paper
    assert strength_of("", "contrast") == strength_of("standard", "inpainting") == Strength()
    with pytest.raises(UnknownNameError, match="strong"):
        strength_of("strongg", "contrast")
    assert tuple(STRENGTHS) == AUGMENT[1:]
