"""Painting for figures: the same as a pass by hand, and pairs chosen as asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pci_core.cells import CellDataset
from pci_core.errors import CheckpointError
from pci_core.networks import build
from pci_core.painting import paint, pairs_to_show
from pci_core.preprocess import preprocess
from pci_core.recipe import Preprocess


def test_painting_equals_a_pass_by_hand(make_cells: Callable[..., CellDataset]) -> None:
    dataset, model = make_cells(), build("pci", 1, 1, 0.1, seed=0)
    sources, targets = np.array([0, 7]), np.array([3, 20])
    found = paint(model, dataset, sources, targets, Preprocess(), device="cpu")
    with torch.no_grad():
        x = preprocess(torch.from_numpy(np.array(dataset.crops)), Preprocess(), 1)
        expected = model.eval()(x[sources], x[targets][:, 1:])
    np.testing.assert_allclose(found.painted, expected.numpy(), rtol=1e-5, atol=1e-6)  # float32 rounding
    np.testing.assert_array_equal(found.target, x[targets].numpy())


def test_an_autoencoder_cannot_paint(make_cells: Callable[..., CellDataset]) -> None:
    with pytest.raises(CheckpointError, match="'autoencoder'"):
        paint(build("autoencoder", 1, 1, 0.1), make_cells(), np.array([0]), np.array([1]), Preprocess())


def test_pairs_to_show(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells(images=6)
    image, label = dataset.table["image"].to_numpy(), dataset.table["location"].to_numpy()
    sources, targets = pairs_to_show(dataset, 4, 0, "location")
    assert (image[sources] == image[targets]).all() and (sources != targets).all()
    assert sorted(label[sources]) == ["a", "a", "b", "b"]  # labels in turn
    sources, targets = pairs_to_show(dataset, 4, 0, "location", mismatched=True)
    assert (label[sources] != label[targets]).all()
