"""Figures of variants: everything is drawn where it belongs, better is right, and what is missing is told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pci_core.errors import CellTableError, UnknownNameError
from pci_core.plots import beyond

PANELS = {"kNN": ("sim", "kNN"), "drop": ("sim", "drop")}


def table() -> pd.DataFrame:
    rows = [
        ("sim", v, m, b, d, d - w, d + w, 3)
        for v, m, b, d, w in (
            ("paper", "kNN", "more", 0.0, 0.0), ("a", "kNN", "more", 0.2, 0.1), ("b+c", "kNN", "more", 0.1, 0.3),
            ("paper", "drop", "less", 0.0, 0.0), ("a", "drop", "less", -0.3, 0.1), ("b+c", "drop", "less", 0.2, np.nan),
        )
    ]  # fmt: skip
    columns = ["cells", "variant", "measure", "better", "difference", "difference_low", "difference_high", "n_pairs"]
    return pd.DataFrame(rows, columns=columns)


def test_the_drawing_of_losses(texts: Callable[[Figure], str]) -> None:
    written = texts(beyond.losses())
    for words in ("inpainting (the paper)", "contrast", "redundancy", "target marker encoder", "drawn, not measured"):
        assert words in written


def marks(figure: Figure, panel: int) -> dict[float, tuple[float, bool]]:
    """Return by row where the mark is, and whether it is filled."""
    found = {}
    for line in figure.axes[panel].lines:
        if line.get_marker() == "o":
            found[float(line.get_ydata()[0])] = (float(line.get_xdata()[0]), line.get_markerfacecolor() != "white")
    return found


def test_better_is_right_and_sure_is_filled(texts: Callable[[Figure], str]) -> None:
    figure = beyond.differences(table(), PANELS, "paper", "Differences", note="SIMULATED cells", foot="3 seeds")
    assert marks(figure, 0) == {0.0: (0.2, True), 1.0: (0.1, False)}  # the baseline has no row
    assert marks(figure, 1) == {0.0: (0.3, True), 1.0: (-0.2, False)}  # less is better: turned round; no interval: open
    written = texts(figure)
    assert "better than paper" in written and "SIMULATED cells" in written and "3 seeds" in written
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["a", "b and c"]


def test_a_variant_that_stands_twice_is_refused() -> None:
    with pytest.raises(CellTableError, match="stand twice"):
        beyond.differences(pd.concat([table(), table()]), PANELS, "paper", "")
    with pytest.raises(UnknownNameError, match="difference_low"):
        beyond.differences(table().drop(columns="difference_low"), PANELS, "paper", "")


def test_nuisances_beside_the_location(texts: Callable[[Figure], str]) -> None:
    values = {"nuisance R², haze": 0.71, "nuisance R², blur": -0.02, "location of fields": 0.83, "kNN": 0.5}
    rows = [{"variant": v, "measure": m, "value": x} for v in ("paper", "a") for m, x in values.items()]
    rows = [r for r in rows if (r["variant"], r["measure"]) != ("a", "nuisance R², blur")]
    figure = beyond.nuisances(pd.DataFrame(rows), "location of fields", "What they know", note="SIMULATED cells")
    left, right = figure.axes
    assert [t.get_text() for t in left.texts] == ["0.71", "-0.02", "0.71"]  # a value that is not there has no number
    assert [t.get_text() for t in right.texts] == ["0.83", "0.83"]
    assert [t.get_text() for t in left.get_xticklabels()] == ["haze", "blur"]
    assert "SIMULATED cells" in texts(figure)


def test_without_nuisances_it_says_so() -> None:
    with pytest.raises(CellTableError):
        beyond.nuisances(pd.DataFrame({"variant": ["a"], "measure": ["kNN"], "value": [0.5]}), "location of fields", "")


def test_tables_by_layer_become_rows_of_dots() -> None:
    part = pd.DataFrame({"cells": "sim", "variant": ["a", "b+c"], "measure": "kNN", "value": [0.1, 0.2], "low": 0.0, "high": 1.0})
    long = beyond.long({"own": ("sim", "kNN"), "none": ("sim", "x")}, [("conv5", part), ("conv4", part.head(1))])
    assert long["features"].tolist() == ["a", "b and c", "a"] and long["series"].tolist() == ["conv5", "conv5", "conv4"]
    assert set(long["panel"]) == {"own"}
