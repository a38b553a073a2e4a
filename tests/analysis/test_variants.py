"""Variants side by side: a case computed by hand, seeds that are missing, tables that are none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pci_core.analysis.beyond import compare as same
from pci_core.analysis.variants import COLUMNS, compare
from pci_core.errors import ParameterError, UnknownNameError

KNN = "kNN, own protein left out"


def card(**values: float) -> pd.DataFrame:
    names = {"knn": (KNN, "more"), "drop": ("images of one location, difference", "less")}
    rows = [(names[k][0], v, np.nan, np.nan, names[k][1], 10, 5, "") for k, v in values.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_against_numbers_worked_out_by_hand() -> None:
    base = [card(knn=0.50, drop=0.2), card(knn=0.60, drop=0.1), card(knn=0.55, drop=0.3)]
    other = [card(knn=0.70, drop=0.1), card(knn=0.75, drop=0.1), card(knn=0.80, drop=0.1)]
    table = compare({"paper": base, "contrast": other}, "paper").set_index(["variant", "measure"])
    row = table.loc["contrast", KNN]
    assert row["value"] == pytest.approx(0.75) and (row["smallest"], row["largest"], row["n_seeds"]) == (0.70, 0.80, 3)
    # Student's t of 2 degrees of freedom is 4.302653; the standard error of three values 0.05 apart is 0.05 / sqrt(3) = 0.0288675
    assert (row["low"], row["high"]) == pytest.approx((0.75 - 0.1242069, 0.75 + 0.1242069), abs=1e-6)
    # seed by seed 0.20, 0.15 and 0.25: again 0.05 apart, where the two lists taken as independent would give another interval
    assert row["difference"] == pytest.approx(0.20)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((0.20 - 0.1242069, 0.20 + 0.1242069), abs=1e-6)
    assert row["kept_errors"] == pytest.approx(0.25 / 0.45) and row["n_pairs"] == 3 and row["note"] == "" and row["better"] == "more"
    drop = table.loc["contrast", "images of one location, difference"]
    assert drop["difference"] == pytest.approx(-0.1) and np.isnan(drop["kept_errors"]) and drop["better"] == "less"
    assert (drop["low"], drop["high"]) == pytest.approx((0.1, 0.1))  # three times the same
    own = table.loc["paper", KNN]
    assert own["difference"] == 0 and own["kept_errors"] == 1
    assert same is compare


def test_few_seeds_have_no_interval_and_say_so() -> None:
    base = [card(knn=0.5), card(knn=0.7)]
    other = [card(knn=0.6, drop=0.1), card(knn=0.9), card(knn=0.9), card(knn=np.nan)]
    table = compare({"paper": base, "contrast": other}, "paper").set_index(["variant", "measure"])
    row = table.loc["contrast", KNN]
    assert row["n_seeds"] == 3 and row["n_pairs"] == 2 and np.isfinite(row["low"]) and np.isnan(row["difference_low"])
    assert row["difference"] == pytest.approx(0.15)  # of the two seeds that both have
    assert row["kept_errors"] == pytest.approx(0.2 / 0.4)  # of the means of all seeds
    assert row["note"] == "no interval of 2 seeds that both have, it needs 3"
    drop = table.loc["contrast", "images of one location, difference"]  # the baseline does not have it
    assert drop["n_pairs"] == 0 and np.isnan(drop["difference"]) and drop["value"] == 0.1 and np.isnan(drop["low"])
    assert table.loc["paper", KNN]["note"] == "no interval of 2 seeds, it needs 3; no interval of 2 seeds that both have, it needs 3"


def test_a_baseline_without_errors_leaves_no_share() -> None:
    table = compare({"paper": [card(knn=1.0)], "contrast": [card(knn=0.9)]}, "paper")
    assert table["kept_errors"].isna().all()


def test_what_is_no_set_of_cards() -> None:
    with pytest.raises(UnknownNameError, match="variant 'papr'. Did you mean paper"):
        compare({"paper": [card(knn=0.5)]}, "papr")
    with pytest.raises(ParameterError, match="'contrast' has no scorecard"):
        compare({"paper": [card(knn=0.5)], "contrast": []}, "paper")
    with pytest.raises(ParameterError, match="without better"):
        compare({"paper": [card(knn=0.5).drop(columns="better")]}, "paper")
    with pytest.raises(ParameterError, match="measure twice"):
        compare({"paper": [pd.concat([card(knn=0.5)] * 2)]}, "paper")
