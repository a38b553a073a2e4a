from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist, squareform

from pci_core.baselines.designed import designed, mean_distance, measure_cell, measure_designed
from pci_core.cells import CellDataset, CellWriter, Channel
from pci_core.recipe import Preprocess

SIDE, RADIUS = 64, 20.0
CENTRE = (SIDE - 1) / 2
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
AWAY = np.hypot(ROWS - CENTRE, COLUMNS - CENTRE)
CELL = AWAY <= RADIUS
NUCLEUS = AWAY <= 8
MARKER = {"rfp": CELL * 0.5}


def measure(protein: np.ndarray, nucleus: np.ndarray | None = None, um_per_px: float | None = None) -> dict[str, float]:
    return measure_cell(protein.astype(float), CELL, nucleus, MARKER, um_per_px)


def spot(y: int, x: int) -> np.ndarray:
    out = np.zeros((SIDE, SIDE))
    out[y, x] = 1.0
    return out


def test_even_protein() -> None:
    got = measure(CELL * 0.5)
    # of a disk: R / 3 to the edge (0.5 px more from pixel centres), 2 R / 3 to the centre, 128 R / 45 pi to itself
    assert got["distance_to_edge_px"] == pytest.approx(RADIUS / 3 + 0.5, abs=0.3)
    assert got["distance_to_cell_centre_px"] == pytest.approx(2 * RADIUS / 3, rel=0.02)
    assert got["distance_to_itself_px"] == pytest.approx(128 * RADIUS / (45 * np.pi), rel=0.02)
    assert got["spread_px"] == pytest.approx(RADIUS / np.sqrt(2), rel=0.02)
    for name in ("distance_to_edge", "distance_to_cell_centre", "distance_to_itself", "spread"):
        assert got[f"{name}_vs_even"] == pytest.approx(1)
    assert got["gini"] == pytest.approx(0, abs=1e-9) and got["evenness"] == pytest.approx(1)
    assert got["brightest_over_mean"] == pytest.approx(1) and got["variation"] == pytest.approx(0, abs=1e-9)
    assert got["compactness_area_share_of_half"] == pytest.approx(0.5, abs=0.01)
    assert got["compactness_area_share_of_nine_tenths"] == pytest.approx(0.9, abs=0.01)
    assert got["spot_count"] == got["spot_share_of_protein"] == 0 and got["spot_strongest_contrast"] == pytest.approx(1, abs=0.01)
    assert got["offset_from_cell_centre_px"] == pytest.approx(0, abs=1e-9) and got["roundness"] == pytest.approx(1, abs=1e-6)
    # thirds of the way from the edge: areas 1 - 4/9, 4/9 - 1/9, 1/9; the edge's pixels are 1 px deep
    assert got["share_in_outer_third"] == pytest.approx(5 / 9, abs=0.05)
    assert got["share_in_inner_third"] == pytest.approx(1 / 9, abs=0.03)
    assert got["log2_ratio_over_rfp"] == pytest.approx(0) and got["mean_intensity"] == pytest.approx(0.5)
    assert got["log2_cell_over_surroundings"] == 10  # nothing outside


def test_one_point_off_the_centre() -> None:
    got = measure(spot(32, 42))
    away = np.hypot(0.5, 42 - CENTRE)
    for name in ("offset_from_cell_centre_px", "distance_to_cell_centre_px"):
        assert got[name] == pytest.approx(away)
    assert got["offset_over_cell_radius"] == pytest.approx(away / RADIUS, rel=0.01)
    assert got["distance_to_own_centre_px"] == got["spread_px"] == pytest.approx(0, abs=1e-9)
    assert got["distance_to_itself_px"] == pytest.approx(0, abs=1e-6)  # of the transform
    assert got["roundness"] == 1
    n = CELL.sum()
    assert got["gini"] == pytest.approx(1 - 1 / n) and got["brightest_over_mean"] == pytest.approx(n)
    assert got["compactness_area_share_of_half"] == pytest.approx(1 / n) and got["evenness"] == pytest.approx(0, abs=1e-9)


def test_ring_lies_at_the_edge_and_is_not_round_about_its_centre() -> None:
    ring = CELL & (AWAY > RADIUS - 2)
    got = measure(ring)
    assert got["distance_to_edge_px"] < 2.1 and got["distance_to_edge_vs_even"] < 0.35
    assert got["share_in_outer_third"] == pytest.approx(1)
    assert got["distance_to_itself_px"] == pytest.approx(4 / np.pi * (RADIUS - 1), rel=0.03)  # of a circle: 4 R / pi
    assert got["distance_to_own_centre_px"] == pytest.approx(RADIUS - 1, rel=0.03)


def test_line_is_long() -> None:
    line = (ROWS == 31) & CELL
    assert measure(line)["roundness"] == pytest.approx(0, abs=1e-6)


def test_nucleus() -> None:
    inside, outside = measure(NUCLEUS, NUCLEUS), measure(CELL & ~NUCLEUS, NUCLEUS)
    assert inside["share_in_nucleus"] == pytest.approx(1) and inside["distance_to_nucleus_px"] == 0
    assert inside["log2_nucleus_over_cytoplasm"] == 10 and outside["log2_nucleus_over_cytoplasm"] == -10
    assert inside["variation_in_nucleus"] == pytest.approx(0, abs=1e-9)
    assert outside["share_in_nucleus"] == 0 and outside["distance_to_nucleus_px"] > 5
    rim = (AWAY > 7) & (AWAY <= 9)
    got = measure(rim, NUCLEUS)
    assert got["distance_to_nuclear_edge_px"] < 1.5 and got["share_at_nuclear_edge_vs_even"] > 5
    even = measure(CELL, NUCLEUS)
    assert even["log2_nucleus_over_cytoplasm"] == pytest.approx(0, abs=1e-9)
    assert even["share_at_nuclear_edge_vs_even"] == pytest.approx(1)


def test_spots() -> None:
    bright = sum((np.hypot(ROWS - y, COLUMNS - x) <= 2).astype(float) for y, x in ((25, 25), (25, 40), (40, 32)))
    got = measure(CELL * 0.1 + bright)
    assert got["spot_count"] == 3
    assert got["spot_mean_area_px2"] == pytest.approx(13, abs=5) and got["spot_largest_area_px2"] >= got["spot_mean_area_px2"]
    # all of the spots' pixels are bright ones: 1.1 each, of 39 bright pixels and 0.1 of each of the cell
    expected = 3 * got["spot_mean_area_px2"] * 1.1 / (39 + 0.1 * CELL.sum())
    assert got["spot_share_of_protein"] == pytest.approx(expected, rel=1e-6)
    assert measure(CELL * 0.1 + 5 * bright)["spot_mean_area_px2"] == pytest.approx(got["spot_mean_area_px2"], abs=3)
    assert got["spot_share_of_area"] == pytest.approx(3 * got["spot_mean_area_px2"] / CELL.sum())


def test_units() -> None:
    protein = CELL * 0.1 + spot(30, 40) * 5
    px, um = measure(protein), measure(protein, um_per_px=0.5)
    assert um["distance_to_edge_um"] == pytest.approx(px["distance_to_edge_px"] / 2)
    assert um["spot_largest_area_um2"] == pytest.approx(px["spot_largest_area_px2"] / 4)
    assert um["distance_to_edge_vs_even"] == px["distance_to_edge_vs_even"]
    assert not any("px" in k for k in um)


def test_brightness_and_background_do_not_change_where_it_is() -> None:
    rng = np.random.default_rng(0)
    protein = CELL * rng.random((SIDE, SIDE))
    a, b = measure(protein), measure(3 * protein + 7)
    for name in a:
        if "intensity" not in name and "log2" not in name:
            assert b[name] == pytest.approx(a[name], rel=1e-6, abs=1e-9), name


def test_mean_distance_is_the_sum_over_pairs() -> None:
    rng = np.random.default_rng(0)
    weight = rng.random((7, 9))
    weight /= weight.sum()
    points = np.argwhere(weight > 0)
    expected = weight.ravel() @ squareform(pdist(points)) @ weight.ravel()
    assert mean_distance(weight) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("dtype", "full"), [("uint8", 255), ("uint16", 65535), ("float32", 1.0)])
def test_always_finite(dtype: str, full: float) -> None:
    channels = (Channel("p", "protein"), Channel("nucleus", "structural"), Channel("er", "structural"))
    crops = np.zeros((4, 3, SIDE, SIDE), dtype)
    crops[1, 0] = full
    crops[2] = (np.stack([CELL * 0.0, NUCLEUS * 0.9, CELL * 0.5]) * full).astype(dtype)
    crops[3] = (np.stack([spot(2, 2), NUCLEUS * 0.9, CELL * 0.5]) * full).astype(dtype)  # protein outside the cell only
    got = measure_designed(crops, channels, 1, None, full)
    for name, values in got.items():
        assert np.isfinite(values).all(), name
    assert got["designed_distance_to_edge_vs_even"][2] == got["designed_distance_to_edge_vs_even"][3] == pytest.approx(1)


@pytest.mark.parametrize("cell", [np.zeros((8, 8), bool), np.ones((8, 8), bool), np.eye(8, dtype=bool), spot(3, 3)[:8, :8] > 0])
def test_odd_masks(cell: np.ndarray) -> None:
    for protein in (np.zeros((8, 8)), np.arange(64.0).reshape(8, 8)):
        for nucleus in (None, cell, np.zeros((8, 8), bool)):
            got = measure_cell(protein, cell, nucleus, {"m": np.ones((8, 8))})
            assert all(np.isfinite(v) for v in got.values()), got


def test_feature_set_of_two_proteins(tmp_path: Path) -> None:
    channels = (Channel("a", "protein"), Channel("b", "protein"), Channel("rfp", "structural"))
    crop = np.stack([CELL * 100, spot(32, 32) * 200, CELL * 150 + 5]).astype(np.uint8)
    with CellWriter(tmp_path / "cells", channels, 0.2) as writer:
        writer.add(np.repeat(crop[None], 3, 0), pd.DataFrame({"cell_id": ["x", "y", "z"], "image": "i"}))
    got = designed(CellDataset(tmp_path / "cells"), Preprocess(), jobs=1, quiet=True)
    assert got.values.shape == (3, len(got.names)) and np.isfinite(got.values).all() and len(set(got.names)) == len(got.names)
    assert {"designed_distance_to_edge_um_a", "designed_distance_to_edge_um_b", "designed_log2_ratio_over_rfp_a"} <= set(got.names)
    assert got.facts["cells_without_own_mask"] == 0 and got.facts["unit"] == "um"
