"""Images whose cells vary most to an earlier network are left out, and the earlier network is made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from test_run import fresh, times

from pci_core import lineage, varying
from pci_core.cells import CellDataset
from pci_core.errors import AnalysisNeedsError, DatasetError
from pci_core.run import Run
from pci_core.step import TrainingStep
from pci_core.varying import most_varying

NAME = "pci+leave_out_varying=0.25"


@pytest.fixture
def mixed(own_recipe: Path) -> Path:
    """The recipe of four images, in the first of which every other cell shows a bright bar instead of its protein."""
    for j in range(2):
        path = own_recipe.parent / f"i0_f{j}.tif"
        field = tifffile.imread(path)
        field[0, :, 32:] = 0
        field[0, :, 40:46] = 4000
        tifffile.imwrite(path, field, photometric="minisblack")
    return own_recipe


def test_the_image_of_two_phenotypes_is_left_out_and_all_is_made_once(mixed: Path, tmp_path: Path) -> None:
    run = fresh(mixed, tmp_path, training={"leave_out_varying": 0.25})
    run.train()
    assert sorted(p.name for p in (run.folder / "models").iterdir() if not p.name.startswith(".")) == ["pci", NAME]
    scores = pd.read_csv(run.folder / "varying" / "pci.csv")
    assert scores["image"].iloc[0] == "i0" and scores["combined"].is_monotonic_decreasing
    card = run.card()
    assert card["left_out_varying"] == ["i0"] and card["images_left_out_as_varying"] == 1
    assert card["pairs"] == 2 * 2 * 8  # two epochs of two images of eight: one is left out, one is held out
    parents = {p.path for p in lineage.read(run.folder / "models" / NAME / "weights.safetensors").parents}
    assert parents == {"own/cells", "own/features/conv4.h5ad"}  # the second is what it was found by
    before = times(run.folder)
    again = fresh(mixed, tmp_path, training={"leave_out_varying": 0.25})
    again.features("conv1")
    assert {k: v for k, v in times(run.folder).items() if k in before} == before  # only features came
    found = varying.left_out(again, "pci")
    assert found is not None and (found.numbers.tolist(), found.names) == ([0], ["i0"])
    assert fresh(mixed, tmp_path).card().get("left_out_varying") is None
    assert varying.left_out(fresh(mixed, tmp_path), "pci") is None


def test_another_share_needs_no_other_network(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fresh(mixed, tmp_path).train()
    run = Run(mixed, tmp_path / "runs", training={"leave_out_varying": 0.5}, device="cpu", precision="float32", jobs=1)
    before = times(run.folder / "models")
    run.train()
    said = capsys.readouterr().out
    assert "first a network of all images" not in said and "2 of 4 images left out, whose cells vary most to an earlier network" in said
    assert before.items() <= times(run.folder / "models").items()
    assert len(run.card()["left_out_varying"]) == 2


def test_a_recipe_of_its_own_has_the_key_and_a_cut_training_goes_on(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed.write_text(mixed.read_text().replace("epochs = 2", "epochs = 2\nleave_out_varying = 0.25"))
    whole = fresh(mixed, tmp_path / "whole").model().state_dict()
    run = fresh(mixed, tmp_path)
    run.with_training(leave_out_varying=0.0).train()
    original, calls = TrainingStep.__call__, 0

    def cut(self: TrainingStep, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:  # of two batches an epoch
            raise KeyboardInterrupt
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingStep, "__call__", cut)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    monkeypatch.setattr(TrainingStep, "__call__", original)
    state = fresh(mixed, tmp_path).model().state_dict()
    assert calls == 4 and all((state[k] == whole[k]).all() for k in whole)
    assert {p.name for p in (run.folder / "models").iterdir()} == {"pci", "pci+leave_out_varying=0.0"}


def test_an_autoencoder_is_left_to_its_own_score(mixed: Path, tmp_path: Path) -> None:
    run = fresh(mixed, tmp_path, training={"leave_out_varying": 0.25})
    run.train("autoencoder")
    assert (run.folder / "varying" / "autoencoder.csv").is_file() and not (run.folder / "models" / "pci").exists()
    assert (run.folder / "features" / "autoencoder_conv4.h5ad").is_file()


def test_a_damaged_table_of_scores_is_told(mixed: Path, tmp_path: Path) -> None:
    run = fresh(mixed, tmp_path, training={"leave_out_varying": 0.25})
    run.train()
    (run.folder / "varying" / "pci.csv").write_text("image,combined\n'")
    with pytest.raises(DatasetError, match="pci.csv.*no readable table of scores.*Delete it"):
        fresh(mixed, tmp_path, training={"leave_out_varying": 0.25}).train()


def table(*scores: float) -> pd.DataFrame:
    return pd.DataFrame({"image": [f"i{i}" for i in range(len(scores))], "combined": scores}).sort_values("combined")


@pytest.mark.parametrize(
    ("share", "besides", "wanted"),
    [
        (0.01, [], [4]),  # at least one
        (0.4, [], [1, 4]),  # of the five that have a score
        (0.4, [4], [1, 3]),  # left out already: does not count
        (0.2, [1, 3, 4], [0]),
        (0.99, [], [0, 1, 2, 3, 4]),
    ],
)
def test_the_top_share_of_what_has_a_score(
    make_cells: Callable[..., CellDataset], share: float, besides: list[int], wanted: list[int]
) -> None:
    scores = table(0.1, 0.5, -2.0, 0.5, 0.7, np.nan)
    found = most_varying(scores, make_cells(images=6), share, np.array(besides, int))
    assert found.tolist() == wanted


def test_one_image_is_always_kept_and_none_with_a_score_is_told(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells(images=3)
    assert most_varying(table(3, 2, 1), dataset, 0.99, np.array([], int)).tolist() == [0, 1]
    with pytest.raises(AnalysisNeedsError, match=r"none of the 2 images can be scored.*5 cells an image.*two proteins"):
        most_varying(table(np.nan, 2, np.nan), dataset, 0.5, np.array([1]))
