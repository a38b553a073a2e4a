"""Logistic regression and forest against scikit-learn called by hand; folds that keep groups together."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier

from pci_core.analysis import crossval
from pci_core.analysis.crossval import classifier, cross_validate, make_folds, unlearnable


def made_up(n: int = 160) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    code = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    x = rng.normal(size=(n, 8)) + code[:, None] * [1, 0.5, 0, 0, 0, 0, 0, 0]
    return (x * [1, 100, 1, 1, 1, 1, 1, 1] + 3).astype(np.float32), code, rng.integers(0, 20, n)


def by_hand(kind: str, x: np.ndarray, code: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    out = np.full(len(code), -1)
    for train, test in splits:
        mean, std = x[train].mean(0, dtype=float), x[train].std(0, dtype=float)
        a, b = ((x - mean) / std)[train], ((x - mean) / std)[test]
        if kind == "forest":
            model = RandomForestClassifier(30, max_features=0.2, class_weight="balanced", random_state=4)
        else:
            one = LogisticRegression(l1_ratio=1, solver="liblinear", class_weight="balanced", random_state=4)
            model = OneVsRestClassifier(one)
        out[test] = model.fit(a, code[train]).predict(b)
    return out


@pytest.mark.parametrize("kind", ["logistic", "forest"])
def test_both_kinds_of_folds_equal_scikit_learn(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossval, "TREES", 30)  # for speed; the default is tested below
    x, code, groups = made_up()
    plain = list(StratifiedKFold(5, shuffle=True, random_state=0).split(x, code))
    np.testing.assert_array_equal(cross_validate(kind, x, code, make_folds(code), seed=4, jobs=1), by_hand(kind, x, code, plain))
    kept = list(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(x, code, groups))
    np.testing.assert_array_equal(cross_validate(kind, x, code, make_folds(code, groups), seed=4, jobs=1), by_hand(kind, x, code, kept))


def test_settings_are_the_papers() -> None:
    forest = classifier("forest")[-1]
    assert (forest.n_estimators, forest.max_features, forest.class_weight) == (500, 0.2, "balanced")
    one = classifier("logistic")[-1].estimator
    assert (one.l1_ratio, one.solver, one.class_weight, one.C) == (1, "liblinear", "balanced", 1.0)


def test_groups_stay_in_one_fold_and_classes_are_spread() -> None:
    _, code, groups = made_up()
    fold = make_folds(code, groups)
    assert all(len(np.unique(fold[groups == g])) == 1 for g in groups) and set(fold) == set(range(5))
    plain = make_folds(code)
    counts = np.array([np.bincount(plain[code == c], minlength=5) for c in range(3)])
    assert (np.ptp(counts, axis=1) <= 1).all()


def test_fewer_groups_than_folds_and_classes_that_no_model_could_learn() -> None:
    code, groups = np.repeat([0, 1], 12), np.tile(np.repeat([0, 1, 2], 4), 2)
    fold = make_folds(code, groups)
    assert set(fold) == {0, 1, 2} and unlearnable(code, fold) == []
    assert unlearnable(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])) == [0]
    # class 0 has two groups; of twenty shuffles one puts them apart
    code = np.repeat([0, 1], (12, 108))
    groups = np.repeat(np.arange(20), 6)
    assert all(unlearnable(code, make_folds(code, groups, seed=s)) == [] for s in range(5))


def test_each_fold_can_have_a_space_of_its_own() -> None:
    x, code, _ = made_up()
    fold = make_folds(code)
    spoiled = [x] * 5
    same = cross_validate("logistic", x, code, fold, jobs=1)
    np.testing.assert_array_equal(cross_validate("logistic", spoiled, code, fold, jobs=1), same)
    spoiled[2] = np.random.default_rng(0).permutation(x)
    other = cross_validate("logistic", spoiled, code, fold, jobs=1)
    assert (other[fold == 2] != same[fold == 2]).any()
    np.testing.assert_array_equal(other[fold != 2], same[fold != 2])
