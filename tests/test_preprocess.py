"""Raw crops to [0, 1] against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pci_core.preprocess import flip, preprocess
from pci_core.recipe import Preprocess

HUMAN = Preprocess(protein="minmax", structural="clip", floor=0.05)


def raw(dtype: str) -> np.ndarray:
    x = np.random.default_rng(0).integers(3, 250, (4, 3, 6, 5))
    return x.astype(dtype) / np.float32(255) if dtype == "float32" else x.astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_minmax_per_channel_of_each_crop(dtype: str) -> None:
    x = raw(dtype)
    found = preprocess(torch.from_numpy(x), Preprocess(), 1).numpy()
    low, high = x.min((2, 3), keepdims=True).astype("f8"), x.max((2, 3), keepdims=True).astype("f8")
    np.testing.assert_allclose(found, (x - low) / (high - low), atol=2e-7)  # float32 rounding near 1
    assert found.min() == 0 and found.max() == 1


@pytest.mark.parametrize(("dtype", "full"), [("uint8", 255), ("uint16", 65535), ("float32", 1)])
def test_structural_channels_are_clipped_at_a_share_of_the_full_range(dtype: str, full: float) -> None:
    x = raw(dtype)
    found = preprocess(torch.from_numpy(x), HUMAN, 1).numpy()
    expected = np.clip((x[:, 1:].astype("f8") / full - 0.05) / 0.95, 0, None)
    np.testing.assert_allclose(found[:, 1:], expected, atol=2e-7)
    assert found[:, 0].max() == 1  # the protein is rescaled by its own range


def test_the_full_intensity_can_be_given() -> None:
    x = raw("uint16")
    found = preprocess(torch.from_numpy(x), Preprocess(structural="clip", full=255.0), 1)
    np.testing.assert_array_equal(found.numpy(), preprocess(torch.from_numpy(x.astype("uint8")), HUMAN, 1).numpy())


@pytest.mark.parametrize("spec", [Preprocess(), HUMAN])
def test_a_constant_channel_gives_numbers(spec: Preprocess) -> None:
    x = torch.full((2, 2, 4, 4), 7, dtype=torch.uint8)
    found = preprocess(x, spec, 1)
    assert torch.isfinite(found).all()
    assert (found[:, 0] == 0).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_flips_of_each_crop(dtype: str) -> None:
    x = raw(dtype)
    flips = torch.tensor([[False, False], [True, False], [False, True], [True, True]])
    found = flip(torch.from_numpy(x), flips).numpy()
    for i, expected in enumerate((x[0], x[1, :, ::-1], x[2, :, :, ::-1], x[3, :, ::-1, ::-1])):
        np.testing.assert_array_equal(found[i], expected)
