"""Accuracy, intervals over images and seeds, recall and confusion, by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, recall_score

from pci_core.analysis import scores
from pci_core.analysis.scores import balanced_accuracy, recalls, row_shares
from pci_core.analysis.scores import confusion_matrix as confusion


def made_up(seeds: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    code = np.repeat([0, 1, 2], (30, 50, 20))
    predicted = np.where(rng.random((seeds, 100)) < 0.7, code, rng.integers(0, 3, (seeds, 100)))
    return code, predicted, rng.integers(0, 12, 100)


def test_accuracy_recall_and_confusion_equal_scikit_learn() -> None:
    code, predicted, groups = made_up()
    assert balanced_accuracy(code, predicted, groups).accuracy == pytest.approx(balanced_accuracy_score(code, predicted[0]), abs=1e-12)
    np.testing.assert_allclose(recalls(code, predicted[0]), recall_score(code, predicted[0], average=None), atol=1e-12)
    table = confusion(code, predicted[0], ["a", "b", "c"])
    np.testing.assert_array_equal(table, confusion_matrix(code, predicted[0]))
    assert table.index.tolist() == ["a", "b", "c"] == table.columns.tolist()
    np.testing.assert_allclose(np.diag(row_shares(table)), recalls(code, predicted), atol=1e-12)


def test_cells_without_a_prediction_have_a_column_of_their_own() -> None:
    table = confusion(np.array([0, 0, 1]), np.array([0, -1, 1]), ["a", "b"])
    assert table.columns.tolist() == ["a", "b", "(none)"] and table.loc["a"].tolist() == [1, 0, 1]


def test_several_seeds_are_averaged() -> None:
    code, predicted, groups = made_up(seeds=3)
    score = balanced_accuracy(code, predicted, groups)
    each = [balanced_accuracy_score(code, p) for p in predicted]
    assert score.accuracy == pytest.approx(np.mean(each), abs=1e-12) and score.n_seeds == 3
    assert score.low < score.accuracy < score.high
    assert confusion(code, predicted, list("abc")).to_numpy().sum() == 300
    np.testing.assert_allclose(recalls(code, predicted).mean(), score.accuracy, atol=1e-12)


def test_interval_over_seeds_by_hand() -> None:
    # Each class has two images of equal outcome, so only seeds vary: one all right, one with class 0 all wrong.
    # Picking two of two seeds gives 1/2, 3/4 or 1 with probability 1/4, 1/2, 1/4.
    code, groups = np.repeat([0, 0, 1, 1], 5), np.repeat([0, 1, 2, 3], 5)
    score = balanced_accuracy(code, np.stack([code, np.ones(20, int)]), groups)
    assert (score.accuracy, score.low, score.high) == (0.75, 0.5, 1.0)
    same = balanced_accuracy(code, np.stack([code, code]), groups)
    assert (same.low, same.high) == (1.0, 1.0)


def test_equal_seeds_widen_nothing() -> None:
    code, predicted, groups = made_up()
    one = balanced_accuracy(code, predicted, groups, draws=4000)
    four = balanced_accuracy(code, np.repeat(predicted, 4, axis=0), groups, draws=4000)
    assert four.accuracy == pytest.approx(one.accuracy, abs=1e-12)
    # other random draws: quantiles of 4,000 draws with a deviation of 0.05 are known to about 0.003
    assert (four.low, four.high) == pytest.approx((one.low, one.high), abs=0.015)


def test_drawing_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    code, predicted, groups = made_up()
    whole = balanced_accuracy(code, predicted, groups)
    monkeypatch.setattr(scores, "_AT_ONCE", 100)
    assert balanced_accuracy(code, predicted, groups) == whole


def test_no_interval_where_a_class_has_one_group_or_nothing_is_drawn() -> None:
    code, predicted, groups = made_up()
    assert np.isnan(balanced_accuracy(code, predicted, np.where(code == 1, 99, groups)).low)
    assert np.isnan(balanced_accuracy(code, predicted, groups, draws=0).high)
