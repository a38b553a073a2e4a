from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import mahotas
import numpy as np
import pandas as pd
import pytest

from pci_core.baselines.classic import SCALES, classic, correlation, measure_classic
from pci_core.cells import CellDataset, CellWriter, Channel
from pci_core.recipe import Preprocess

SPEC = Preprocess()
measure = partial(measure_classic, names=("protein", "marker"), n_protein=1, spec=SPEC, scales=SCALES)


def test_names_values_and_facts(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells(side=32)
    got = classic(dataset, SPEC, jobs=1, quiet=True)
    raw = dataset.read(np.arange(len(dataset))).astype(float)
    assert got.values.shape == (24, 69) and got.values.dtype == np.float32 and len(set(got.names)) == 69
    column = dict(zip(got.names, got.values.T, strict=True))
    np.testing.assert_allclose(column["classic_sum_protein"], raw[:, 0].sum((1, 2)), rtol=1e-6)  # float32
    np.testing.assert_allclose(column["classic_std_protein"], raw[:, 0].std((1, 2)), rtol=1e-6)
    expected = [np.corrcoef(c[0].ravel(), c[1].ravel())[0, 1] for c in raw]
    np.testing.assert_allclose(column["classic_correlation_protein_marker"], expected, atol=1e-6)
    assert got.facts["scales_left_out"] == "none"


@pytest.mark.parametrize("scale", SCALES)
def test_haralick_is_mahotas(scale: int) -> None:
    rng = np.random.default_rng(scale)
    crop = rng.integers(0, 256, (1, 2, 40, 40)).astype(np.uint8)
    crop[0, 0, 0, :2] = 0, 255  # the full range, so that stretching changes nothing
    levels = np.rint(crop[0, 0] / 255 * 254).astype(np.uint8) + 1
    expected = mahotas.features.haralick(levels, distance=scale, ignore_zeros=True, return_mean=True)
    got = [v[0] for k, v in measure(crop).items() if k.endswith(f"_protein_{scale}px")]
    np.testing.assert_allclose(got, expected, rtol=1e-6)  # two implementations' rounding: 1e-12 was seen


def test_contrast_by_hand() -> None:
    stripes = np.zeros((1, 2, 32, 32), np.uint8)
    stripes[:, :, :, ::2] = 100  # columns 0 and 254 after stretching: 1 px apart differ along rows and both diagonals
    got = measure(stripes)
    assert got["classic_haralick_contrast_protein_1px"][0] == pytest.approx(3 / 4 * 254**2)
    assert got["classic_haralick_contrast_protein_2px"][0] == 0


def test_correlation_of_constants_is_zero() -> None:
    flat, varied = np.full((1, 8, 8), 3.0), np.arange(64.0).reshape(1, 8, 8)
    assert correlation(flat, varied)[0] == correlation(varied, flat)[0] == correlation(flat, flat)[0] == 0
    assert correlation(varied, -2 * varied)[0] == pytest.approx(-1)


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65535), ("float32", 1.0)])
def test_finite_for_empty_and_full_channels(dtype: str, top: float) -> None:
    crops = np.zeros((3, 2, 32, 32), dtype)
    crops[1, 0] = top
    crops[2, 1] = top
    got = measure(crops)
    assert all(np.isfinite(v).all() and v.shape == (3,) for v in got.values())


def test_clipped_protein_stays_in_range() -> None:
    crops = np.random.default_rng(0).random((1, 2, 32, 32)).astype(np.float32) * 3  # brighter than full
    got = measure_classic(crops, ("protein", "marker"), 1, Preprocess(protein="clip", full=1.0), (1,))
    assert all(np.isfinite(v).all() for v in got.values())


def test_two_protein_channels_and_small_crops(tmp_path: Path) -> None:
    channels = (Channel("a", "protein"), Channel("b", "protein"), Channel("m", "structural"))
    rng = np.random.default_rng(0)
    with CellWriter(tmp_path / "cells", channels, None) as writer:
        writer.add(rng.integers(0, 255, (2, 3, 16, 16)).astype(np.uint8), pd.DataFrame({"cell_id": ["x", "y"], "image": "i"}))
    got = classic(CellDataset(tmp_path / "cells"), SPEC, jobs=1, quiet=True)
    assert len(got.names) == 2 * (3 + 1 + 13 * 4) and np.isfinite(got.values).all()
    assert got.facts["scales_left_out"] == "16" and "classic_correlation_b_m" in got.names
