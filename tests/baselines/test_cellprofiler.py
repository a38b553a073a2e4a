from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cp_measure.bulk import get_core_measurements

from pci_core.baselines.cellprofiler import cellprofiler, fill, measure_cellprofiler
from pci_core.cells import CellDataset, CellWriter, Channel
from pci_core.errors import DatasetError
from pci_core.imaging.masks import cell_masks
from pci_core.recipe import Preprocess

CHANNELS = (Channel("gfp", "protein"), Channel("rfp", "structural"))
SPEC = Preprocess()


def cells(n: int = 5, dtype: str = "uint8", full: float = 255, side: int = 64, channels: int = 2) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    out = []
    for i in range(n):
        body = np.hypot(rows - side / 2, columns - side / 2) < side / 6 + i
        protein = body * (0.3 + 0.5 * rng.random((side, side)))
        out.append(np.stack([protein] * (channels - 1) + [0.05 + body * 0.7 + 0.02 * rng.random((side, side))]) * full)
    return np.array(out).astype(dtype)


def measure(crops: np.ndarray, full: float = 255.0) -> dict[str, np.ndarray]:
    return measure_cellprofiler(crops, CHANNELS, 1, SPEC, full)


def test_a_cell_does_not_depend_on_the_cells_beside_it() -> None:
    crops = cells(20)  # more than one sheet
    together, alone = measure(crops), measure(crops[17:18])
    assert together.keys() == alone.keys()
    for name in together:
        np.testing.assert_allclose(together[name][17], alone[name][0], rtol=1e-7, atol=1e-9, err_msg=name)  # order of sums


def test_values_are_cp_measures() -> None:
    crops = cells(2)
    got = measure(crops)
    mask = cell_masks(crops, CHANNELS).cell[1].astype(int)
    pixels = crops[1, 0] / 255
    reference = get_core_measurements()
    assert got["Cells_AreaShape_Area"][1] == mask.sum()
    for key, name in (("intensity", "Intensity_MeanIntensity"), ("intensity", "Intensity_MADIntensity")):
        assert got[f"Cells_{name}_gfp"][1] == pytest.approx(reference[key](mask, pixels)[name][0], rel=1e-9)
    radial = reference["radial_distribution"](mask, pixels)
    assert got["Cells_RadialDistribution_FracAtD_gfp_1of4"][1] == pytest.approx(radial["RadialDistribution_FracAtD_1of4"][0], rel=1e-9)
    moments = reference["radial_zernikes"](mask, pixels)
    # 2 %: the library's smallest circle around a cell depends a little on the picture around it
    expected = moments["RadialDistribution_ZernikeMagnitude_0_0"][0]
    assert got["Cells_RadialDistribution_ZernikeMagnitude_gfp_0_0"][1] == pytest.approx(expected, rel=0.02)
    shape = reference["sizeshape"](mask, pixels)
    assert got["Cells_AreaShape_HuMoment_0"][1] == pytest.approx(shape["HuMoment_0"][0], rel=1e-9)
    correlation = np.corrcoef(crops[1, 0][mask > 0], crops[1, 1][mask > 0])[0, 1]
    assert got["Cells_Correlation_Pearson_gfp_rfp"][1] == pytest.approx(correlation, rel=1e-9)


def test_every_family_and_no_location() -> None:
    names = list(measure(cells(1)))
    for word in ("Intensity_", "Texture_", "Granularity_", "RadialDistribution_", "Zernike", "AreaShape_", "Correlation_"):
        assert any(word in n for n in names), word
    assert not any("Location" in n or "Center_" in n or "BoundingBoxMin" in n for n in names)
    assert "Cells_AreaShape_BoundingBoxArea" in names and "Cells_Texture_Contrast_rfp_3_00_256" in names


@pytest.mark.parametrize(("dtype", "full"), [("uint8", 255), ("uint16", 65535), ("float32", 1.0)])
def test_intensity_is_a_share_of_the_full_range(dtype: str, full: float) -> None:
    crops = cells(1, dtype, full)
    mask = cell_masks(crops, CHANNELS).cell[0]
    got = measure(crops, full)["Cells_Intensity_MeanIntensity_gfp"][0]
    assert got == pytest.approx(crops[0, 0][mask].astype(float).mean() / full) and 0.4 < got < 0.6


def test_feature_set(tmp_path: Path) -> None:
    crops = cells(30)
    crops[3, 0] = 0  # one cell of 30, 3.3 %: below the limit, filled
    with CellWriter(tmp_path / "cells", CHANNELS, None) as writer:
        writer.add(crops, pd.DataFrame({"cell_id": [str(i) for i in range(30)], "image": "i"}))
    got = cellprofiler(CellDataset(tmp_path / "cells"), SPEC, jobs=1, quiet=True)
    assert got.values.dtype == np.float32 and got.values.shape == (30, len(got.names)) and np.isfinite(got.values).all()
    assert len(got.names) == len(set(got.names)) > 380
    assert "NormalizedMoment_0_0" in got.facts["columns_dropped"] and got.facts["values_filled"] > 0
    assert got.facts["cells_without_own_mask"] == 0
    column = got.names.index("Cells_Correlation_Pearson_gfp_rfp")
    assert got.values[3, column] == pytest.approx(np.median(np.delete(got.values[:, column], 3)))


def test_two_protein_channels(make_cells: Callable[..., CellDataset]) -> None:
    channels = (Channel("a", "protein"), Channel("b", "protein"), Channel("rfp", "structural"))
    got = measure_cellprofiler(cells(1, channels=3), channels, 2, SPEC, 255.0)
    assert got["Cells_Intensity_MeanIntensity_a"][0] == got["Cells_Intensity_MeanIntensity_b"][0] > 0
    assert "Cells_Correlation_RWC_rfp_b" in got and "Cells_Correlation_RWC_b_rfp" in got


def test_fill() -> None:
    values = np.arange(80.0).reshape(40, 2)
    values[0, 0] = np.nan
    values[1, 0] = 1e300  # not finite as float32
    values[:3, 1] = np.inf
    got, names, facts = fill(values, ["a", "b"], "here")
    assert names == ["a"] and facts == {"columns_dropped": "b", "columns_filled": 1, "values_filled": 2}
    assert got[0, 0] == got[1, 0] == np.median(values[2:, 0])
    with pytest.raises(DatasetError, match="here: no measurement"):
        fill(np.full((4, 1), np.nan), ["a"], "here")
