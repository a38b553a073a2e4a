"""Scores against known fractions: rank correlation as scipy's, its highest value with ties, and the calibration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from pci_core.analysis import fractions
from pci_core.analysis.multilocalization import SCORES
from pci_core.errors import UnknownNameError


def scored(score: np.ndarray, fraction: np.ndarray, unit: np.ndarray, which: list[str] | None = None) -> pd.DataFrame:
    data = {"image": unit.astype(str), "set": which or ["both"] * len(score), "unit": unit, "fraction": fraction}
    return pd.DataFrame({**data, **dict.fromkeys(SCORES, score)}, index=[f"c{i}" for i in range(len(score))])


@pytest.fixture
def made() -> Callable[..., pd.DataFrame]:
    def make(n: int = 400, scale: float = 2.0, noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        s = rng.normal(size=n)
        return scored(s + noise * rng.normal(size=n), expit(scale * s), np.arange(n) % 20)

    return make


def test_spearman_is_scipys_with_ties_and_repeats() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 80).astype(float), rng.normal(size=80)
    rows = rng.integers(0, 80, 80)
    assert fractions.spearman(a, b)(rows) == pytest.approx(spearmanr(a[rows], b[rows])[0])
    assert np.isnan(fractions.spearman(np.ones(5), b[:5])(np.arange(5)))


def test_ties_of_the_truth_bound_it() -> None:
    truth = np.repeat([0.25, 0.5, 0.75], [40, 40, 40])
    perfect = truth + 1e-6 * np.arange(120)
    assert fractions.highest_spearman(truth) == pytest.approx(spearmanr(truth, perfect)[0])
    assert fractions.highest_spearman(np.arange(5.0)) == 1.0


def test_agreement_has_every_way_of_looking() -> None:
    rng = np.random.default_rng(0)
    f = rng.random(200)
    s = f + 0.05 * rng.normal(size=200)
    which = ["both"] * 160 + ["first"] * 20 + ["second"] * 20
    f[160:180], f[180:] = 0, 1
    table = fractions.agreement(scored(s, f, np.arange(200) % 10, which), draws=50).set_index(["cells", "of", "score"])
    assert table.loc[("both", "cells", "ratio"), "spearman"] == pytest.approx(spearmanr(s[:160], f[:160])[0])
    assert table.loc[("all", "cells", "ratio"), "n_cells"] == 200 and table.loc[("both", "images", "ratio"), "n"] == 10
    low, value, high = table.loc[("both", "cells", "ratio"), ["low", "spearman", "high"]]
    assert low < value < high and table.loc[("both", "cells", "ratio"), "n_units"] == 10
    assert ("both", "cells within images", "ratio") in table.index


def test_a_fraction_that_is_one_within_images_is_not_looked_at_there() -> None:
    unit = np.arange(60) % 6
    table = fractions.agreement(scored(np.random.default_rng(0).normal(size=60), unit / 6, unit), draws=0)
    assert "cells within images" not in set(table["of"])


def test_unknown_fractions_give_no_rows(made: Callable[..., pd.DataFrame]) -> None:
    none = made().assign(fraction=np.nan)
    assert not len(fractions.agreement(none)) and not len(fractions.calibrations(none))


def test_calibration_finds_the_one_parameter(made: Callable[..., pd.DataFrame]) -> None:
    found = fractions.calibrate(made(scale=2.0), draws=50)
    assert found.scale == pytest.approx(2.0, rel=0.01)  # the search stops at some 1e-5 of the exponent
    assert found.error.value < 1e-3 < found.guess.value
    truth = made()["fraction"]
    assert found.guess.value == pytest.approx(np.abs(truth - truth.mean()).mean(), abs=0.01)  # means of four fifths of the cells


def test_calibration_is_tested_on_other_units() -> None:
    # within each unit the score tells the fraction, but the other way round in every second: what helps one hurts the next
    rng = np.random.default_rng(0)
    s, unit = rng.normal(size=200), np.arange(200) % 2
    found = fractions.calibrate(scored(s, expit(np.where(unit == 0, 3, -3) * s), unit), draws=0)
    assert found.error.value > found.guess.value


def test_a_calibration_needs_two_units(made: Callable[..., pd.DataFrame]) -> None:
    assert np.isnan(fractions.calibrate(made().assign(unit=0)).error.value)
    for wrong in ({"name": "ration"}, {"cells": "some"}):
        with pytest.raises(UnknownNameError):
            fractions.calibrate(made(), **wrong)


def test_cells_alone_told_apart_as_scikit_learn_counts() -> None:
    rng = np.random.default_rng(0)
    which = ["first"] * 30 + ["second"] * 30 + ["both"] * 5
    s = np.round(rng.normal(size=65) + np.repeat([0, 1, 9], [30, 30, 5]), 1)
    found = fractions.told_apart(scored(s, np.zeros(65), np.arange(65) % 7, which), draws=20)
    assert found.value == pytest.approx(roc_auc_score([0] * 30 + [1] * 30, s[:60]))
