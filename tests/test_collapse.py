"""A training that collapses or diverges is stopped and named within an epoch; one that learns goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pci_core import recipe as recipes
from pci_core.cells import CellDataset
from pci_core.collapse import CELLS, LEAST, Watch, spread
from pci_core.errors import SamplingError, TrainingError
from pci_core.networks import PRETEXTS, build
from pci_core.pretext.redundancy import Redundancy
from pci_core.recipe import Recipe
from pci_core.train import train

TINY = {"epochs": 2, "batch_size": 8, "width": 0.05, "holdout": 0.25, "pretext": "redundancy", "learning_rate": 1e-3}
CPU = torch.device("cpu")


@pytest.fixture
def recipe() -> Recipe:
    return recipes.load("authors-toy-yeast").replace(training=TINY)


def test_spread_is_the_deviation_as_a_share_of_the_size() -> None:
    x = np.array([[3.0, 1.0], [5.0, 1.0]])
    # deviations 1 and 0, root mean square of them sqrt(1/2); size sqrt((9 + 1 + 25 + 1) / 4) = 3
    assert spread(torch.from_numpy(x)) == pytest.approx(np.sqrt(0.5) / 3)
    assert spread(torch.full((4, 3), 2.0)) == 0
    assert spread(torch.zeros(4, 3)) == 0
    assert np.isnan(spread(torch.tensor([[1.0], [float("nan")]])))


def test_an_untrained_network_is_far_from_collapse(make_cells: Callable[..., CellDataset], recipe: Recipe) -> None:
    cells = make_cells(images=6, cells=9)
    watch = Watch(cells, np.array([0, 2, 5]), recipe.preprocess, CPU, "redundancy")
    assert set(watch.rows) == {*range(0, 9), *range(18, 27), *range(45, 54)} and len(watch.rows) <= CELLS
    model = build("pci", 1, 1, 0.05, seed=0).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert watch.look(model, "now") > 20 * LEAST
    assert model.training and all(torch.equal(before[k], v) for k, v in model.state_dict().items())  # nothing was learnt from looking


class OnlyAlike(Redundancy):
    """Invariance alone: the shortest way is to give all cells the same."""

    def loss(self, source: Tensor, target: Tensor, group: Tensor | None = None, views: tuple[Tensor, Tensor] | None = None) -> Tensor:
        first, second = self.pooled(torch.cat(views or (source, target))).float().chunk(2)
        return (first - second).square().mean(1) + first.square().mean(1)


def test_collapse_is_named_within_an_epoch(
    make_cells: Callable[..., CellDataset], recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRETEXTS, "redundancy", OnlyAlike)
    monkeypatch.setattr("pci_core.train.EVERY", 5)
    fast = recipe.replace(training={"learning_rate": 0.05, "epochs": 50})
    with pytest.raises(TrainingError, match=r"epoch \d+.*'redundancy' has collapsed.*Delete it and train again"):
        train(make_cells(images=8, cells=12), fast, tmp_path / "m", device="cpu", precision="float32", quiet=True)
    assert not (tmp_path / "m" / "weights.safetensors").exists()


def test_numbers_that_are_none_are_named(make_cells: Callable[..., CellDataset], recipe: Recipe, tmp_path: Path) -> None:
    wild = recipe.replace(training={"learning_rate": 1e30, "pretext": "contrast"})
    with pytest.raises(TrainingError, match="diverged"):
        train(make_cells(images=8, cells=12), wild, tmp_path / "m", device="cpu", precision="float32", quiet=True)


@pytest.mark.parametrize("pretext", ["contrast", "redundancy", "inpainting+contrast"])
def test_the_pretexts_do_not_collapse(pretext: str, make_cells: Callable[..., CellDataset], recipe: Recipe, tmp_path: Path) -> None:
    spec = recipe.replace(training={"pretext": pretext})
    trained = train(make_cells(images=8, cells=12), spec, tmp_path / "m", device="cpu", precision="float32", quiet=True)
    assert trained.model.architecture["pretext"] == pretext


@pytest.mark.parametrize("pretext", ["contrast", "redundancy", "inpainting+contrast"])
def test_one_image_is_refused_before_the_start(
    pretext: str, make_cells: Callable[..., CellDataset], recipe: Recipe, tmp_path: Path
) -> None:
    one = recipe.replace(training={"pretext": pretext, "holdout": 0.0})
    with pytest.raises(SamplingError, match="tells images apart"):
        train(make_cells(images=1, cells=12), one, tmp_path / "m", device="cpu", quiet=True)
    assert not list(tmp_path.glob("m/*"))
    inpainting = one.replace(training={"pretext": "inpainting", "epochs": 1})
    train(make_cells(images=1, cells=12), inpainting, tmp_path / "i", device="cpu", quiet=True)  # that one can


def test_one_cell_an_image_is_refused(make_cells: Callable[..., CellDataset], recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(SamplingError, match="two"):
        train(make_cells(images=12, cells=1), recipe, tmp_path / "m", device="cpu", quiet=True)
