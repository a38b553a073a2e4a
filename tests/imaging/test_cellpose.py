"""Cellpose run directly, against a stand-in for its package.

The stand-in has the signatures of versions 4 and 3 and returns masks that it draws itself. So these tests show what Cellpose is asked,
and what becomes of its answer; they do not show that the real package still answers so, nor how well it finds cells.
"""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile

from pci_core import recipe as recipes
from pci_core.errors import ImageError, RecipeError, UnknownNameError, WeightsUnavailableError
from pci_core.imaging import cellpose
from pci_core.imaging.build import build_cells
from pci_core.imaging.segment import segment_field


class Asked:
    """What the stand-in was asked, and what it is to answer."""

    def __init__(self) -> None:
        self.built: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.masks: np.ndarray | None = None
        self.fails: Exception | None = None


def install(monkeypatch: pytest.MonkeyPatch, version: int = 4) -> Asked:
    asked = Asked()

    class CellposeModel:
        def __init__(self, gpu: bool = False, pretrained_model: str = "cpsam", model_type: str | None = None) -> None:
            if asked.fails:
                raise asked.fails
            assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
            asked.built.append({"gpu": gpu, "pretrained_model": pretrained_model})

        def eval(self, x: np.ndarray, channels: Any = None, channel_axis: int | None = None, diameter: float | None = None) -> Any:
            asked.calls.append({"x": x, "channels": channels, "channel_axis": channel_axis, "diameter": diameter})
            masks = asked.masks
            if masks is None:
                masks = np.zeros(x.shape[:2], np.uint16)
                masks[10:20, 10:20], masks[30:40, 30:42], masks[:5, :5], masks[50, 50] = 1, 2, 3, 4
            return masks, [], np.zeros(256)

    models = types.ModuleType("cellpose.models")
    models.CellposeModel = CellposeModel  # type: ignore[attr-defined]
    models.MODEL_NAMES = ["cpsam"] if version == 4 else ["cyto3", "nuclei"]  # type: ignore[attr-defined]
    models.get_user_models = lambda: ["my_yeast"]  # type: ignore[attr-defined]
    if version == 3:
        models.Cellpose = object  # type: ignore[attr-defined]
    package = types.ModuleType("cellpose")
    package.models = models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cellpose", package)
    monkeypatch.setitem(sys.modules, "cellpose.models", models)
    cellpose._model.cache_clear()
    return asked


@pytest.fixture(autouse=True)
def _forget() -> Any:
    yield
    cellpose._model.cache_clear()


def make_recipe(channel: str = "tubules", folder: Path | None = None, **segmentation: Any) -> recipes.Recipe:
    names = ("protein", "nucleus", "tubules")
    content = {
        "name": "made-up",
        "title": "t",
        "channels": [{"name": n, "role": "structural" if i else "protein"} for i, n in enumerate(names)],
        "source": {"kind": "table", "path": "fields.csv"},
        "fields": {"format": "stack", "order": list(names)},
        "segmentation": {"method": "cellpose", "channel": channel, **segmentation},
        "crop": {"size": 24, "resize": 24, "min_cells": 1},
    }
    return recipes.parse(content, "made-up", folder)


@pytest.fixture
def field() -> np.ndarray:
    return np.random.default_rng(0).integers(100, 4000, (3, 60, 70)).astype(np.uint16)


def test_segmented_channel_and_nucleus_go_to_version_4(monkeypatch: pytest.MonkeyPatch, field: np.ndarray) -> None:
    asked = install(monkeypatch)
    labels = segment_field(field, make_recipe(min_area=5))
    assert labels.shape == (60, 70) and labels.dtype == np.int32
    assert np.unique(labels).tolist() == [0, 1, 2]  # the one at the border and the one of a single pixel are dropped
    assert (labels[10:20, 10:20] == 1).all() and (labels[30:40, 30:42] == 2).all()
    (call,) = asked.calls
    np.testing.assert_array_equal(call["x"], np.stack([field[2], field[1]], -1))
    assert call["x"].dtype == np.float32
    assert (call["channels"], call["channel_axis"], call["diameter"]) == (None, -1, None)
    assert asked.built == [{"gpu": True, "pretrained_model": "cpsam"}]  # its own default


def test_a_nuclear_channel_goes_alone(monkeypatch: pytest.MonkeyPatch, field: np.ndarray) -> None:
    asked = install(monkeypatch)
    segment_field(field, make_recipe("nucleus", diameter=25.0))
    (call,) = asked.calls
    np.testing.assert_array_equal(call["x"], field[1])
    assert (call["channels"], call["channel_axis"], call["diameter"]) == (None, None, 25.0)


def test_the_model_is_kept_for_the_next_fields(monkeypatch: pytest.MonkeyPatch, field: np.ndarray) -> None:
    asked = install(monkeypatch)
    for _ in range(3):
        segment_field(field, make_recipe())
    assert len(asked.built) == 1 and len(asked.calls) == 3
    segment_field(field, make_recipe(model="my_yeast"))
    assert [b["pretrained_model"] for b in asked.built] == ["cpsam", "my_yeast"]


def test_version_3_is_told_which_channel_is_which_and_needs_a_diameter(monkeypatch: pytest.MonkeyPatch, field: np.ndarray) -> None:
    asked = install(monkeypatch, version=3)
    segment_field(field, make_recipe(model="cyto3", diameter=30.0))
    segment_field(field, make_recipe("nucleus", model="nuclei", diameter=17.0))
    assert [c["channels"] for c in asked.calls] == [[1, 2], [0, 0]]
    with pytest.raises(RecipeError, match=r"needs \[segmentation\] diameter"):
        segment_field(field, make_recipe(model="cyto3"))


def test_a_model_of_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch, field: np.ndarray, tmp_path: Path) -> None:
    asked = install(monkeypatch)
    with pytest.raises(UnknownNameError, match=r"unknown model of Cellpose .* 'cyto3'.*Known: cpsam, my_yeast"):
        segment_field(field, make_recipe(model="cyto3"))
    assert not asked.built
    (tmp_path / "weights").touch()
    segment_field(field, make_recipe(folder=tmp_path, model="weights"))
    assert asked.built[0]["pretrained_model"] == str(tmp_path / "weights")


def test_a_flat_channel_has_no_cells(monkeypatch: pytest.MonkeyPatch, field: np.ndarray) -> None:
    asked = install(monkeypatch)
    field[2] = 7
    assert segment_field(field, make_recipe()).max() == 0 and not asked.calls


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, field: np.ndarray) -> None:
    asked = install(monkeypatch)
    asked.fails = OSError("Name or service not known")
    with pytest.raises(WeightsUnavailableError, match=r"Name or service not known.*check the network.*method = 'labels'"):
        segment_field(field, make_recipe())
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    asked.fails = None
    assert segment_field(field, make_recipe()).max() > 0  # a failure is not kept


@pytest.mark.parametrize("masks", [np.zeros((30, 30), np.uint16), np.zeros((60, 70), np.float32), np.full((60, 70), -1)])
def test_an_answer_that_is_no_label_image(monkeypatch: pytest.MonkeyPatch, field: np.ndarray, masks: np.ndarray) -> None:
    asked = install(monkeypatch)
    asked.masks = masks
    with pytest.raises(ImageError, match="Cellpose returned .* no label image"):
        segment_field(field, make_recipe())


def test_without_cellpose_the_way_out_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, field: np.ndarray) -> None:
    monkeypatch.setitem(sys.modules, "cellpose", None)
    monkeypatch.setitem(sys.modules, "cellpose.models", None)
    tifffile.imwrite(tmp_path / "f.tif", field, photometric="minisblack")
    fields = pd.DataFrame({"field": ["f"], "image": ["i"], "path": ["f.tif"]})
    with pytest.raises(RecipeError, match=r"pip install \"pci-core\[cellpose\]\".*method = 'labels'"):
        build_cells(fields, tmp_path, make_recipe(), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_fields_become_cells_in_one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, field: np.ndarray) -> None:
    asked = install(monkeypatch)
    for i in range(2):
        tifffile.imwrite(tmp_path / f"{i}.tif", field, photometric="minisblack")
    fields = pd.DataFrame({"field": ["a", "b"], "image": ["i", "i"], "path": ["0.tif", "1.tif"]})
    # with worker processes the stand-in of this process would not be there
    got = build_cells(fields, tmp_path, make_recipe(min_area=5), tmp_path / "out", jobs=2, progress=False)
    assert got.table["cell_id"].tolist() == ["a_001", "a_002", "b_001", "b_002"]
    np.testing.assert_allclose(got.table.loc[:1, ["y", "x"]], [[14.5, 14.5], [34.5, 35.5]])
    assert len(asked.calls) == 2 and len(asked.built) == 1
    assert got.info["versions"]["cellpose"] and got.info["notes"] == []
