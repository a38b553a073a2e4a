"""Goals: margins by seed, the paper's method at its strongest, verdicts and the sentence of each."""

from __future__ import annotations

from pathlib import Path

import kept_trainings as made
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pci_core.analysis import goals, kept

PAPERS = ["inpainting"]


@pytest.fixture
def found(tmp_path: Path) -> kept.Kept:
    out = kept.read(made.write(tmp_path))
    assert out is not None
    return out


def of(table: pd.DataFrame, words: str) -> pd.Series:
    (row,) = [r for _, r in table.iterrows() if words in r["goal"]]
    return row


def test_every_goal_by_hand(found: kept.Kept) -> None:
    table = goals.verdict(found, "simulated-human", "contrast", PAPERS, "conv5", "conv4")
    assert table.attrs["against"] == "inpainting (conv4)"  # 0.45 is more than conv5's 0.4
    knn = of(table, "kNN errors")
    needed = np.mean([1 - 0.7 * (1 - v) for v in (0.45, 0.46, 0.47)])
    assert knn["ours"] == pytest.approx(0.71) and knn["needed"] == pytest.approx(needed)
    margins = np.array([v - (1 - 0.7 * (1 - p)) for v, p in ((0.7, 0.45), (0.71, 0.46), (0.72, 0.47))])
    half = stats.t.ppf(0.975, 2) * margins.std(ddof=1) / np.sqrt(3)
    assert [knn["margin"], knn["low"]] == pytest.approx([margins.mean(), margins.mean() - half])
    assert knn["verdict"] == goals.YES and (knn["n_seeds"], knn["n_cells"], knn["n_proteins"]) == (3, 1200, 99)
    drop = of(table, "drop")
    assert drop["needed"] == pytest.approx(0.13) and drop["margin"] == pytest.approx(0.07) and drop["verdict"] == goals.YES
    real = of(table, "Spearman of 0.9")
    assert real["margin"] == pytest.approx(-0.04) and real["verdict"] == goals.NO
    assert real["told"] == "This claim fell: 0.860, where at least 0.900 was asked for."
    rim = of(table, "rim")
    assert rim["needed"] == pytest.approx(1.5 * 0.36) and rim["verdict"] == goals.NO  # 0.51 of 0.54
    nuisance = of(table, "nuisance")
    assert nuisance["margin"] == pytest.approx(0.15) and nuisance["verdict"] == goals.YES
    last = of(table, "the last layer")
    assert last["margin"] == 0 and last["verdict"] == goals.YES  # both layers of contrast have the same values here


def test_fewer_than_three_seeds_are_not_sure(tmp_path: Path) -> None:
    found = kept.read(made.write(tmp_path, seeds=2))
    assert found is not None
    knn = of(goals.verdict(found, "simulated-human", "contrast", PAPERS, "conv5", "conv4"), "kNN errors")
    assert knn["verdict"] == goals.MEAN and np.isnan(knn["low"]) and "no interval over seeds makes it sure" in knn["told"]


def test_what_was_not_measured_is_said(found: kept.Kept) -> None:
    table = goals.verdict(found, "simulated-human", "absent", PAPERS, "conv5", "conv4")
    assert set(table["verdict"]) == {goals.NONE} and table["told"].str.startswith("Not measured: no seed of absent").all()
    assert goals.laid_out(table)["margin"].tolist() == ["–"] * len(table)


def test_no_drop_at_all_asks_for_none(found: kept.Kept) -> None:
    """Half of a drop below 0 would ask for more than no drop."""
    scores = found.scores.copy()
    scores.loc[(scores["measure"] == made.DROP) & (scores["variant"] == "inpainting"), "value"] = -0.1
    changed = kept.Kept(found.runs, scores, found.files)
    assert of(goals.verdict(changed, "simulated-human", "contrast", PAPERS, "conv5", "conv4"), "drop")["needed"] == 0


def test_more_than_there_can_be_is_said(found: kept.Kept) -> None:
    scores = found.scores.copy()
    scores.loc[(scores["measure"] == made.RIM) & (scores["variant"] == "inpainting"), "value"] = 0.8
    changed = kept.Kept(found.runs, scores, found.files)
    rim = of(goals.verdict(changed, "simulated-human", "contrast", PAPERS, "conv5", "conv4"), "rim")
    assert rim["verdict"] == goals.NO and "more than there can be" in rim["told"]


def test_the_variant_is_the_one_that_tells_most_and_no_paper_method(found: kept.Kept) -> None:
    assert goals.best_variant(found, "simulated-human", "conv5", PAPERS) == "contrast"
    assert goals.best_variant(found, "simulated-human", "conv5", ["contrast"]) == "inpainting+contrast"
    assert goals.best_variant(found, "hpa-duloc", "conv5", PAPERS) == ""


def test_the_longest_training_of_three_seeds_with_both_is_judged(tmp_path: Path) -> None:
    more = [*made.runs(["inpainting", "contrast"], [0], epochs=9), *made.runs(["contrast"], [0, 1, 2], epochs=30)]
    found = kept.read(made.write(tmp_path, more))
    assert found is not None
    longest = goals.settled(found, "simulated-human", "contrast", PAPERS)
    assert longest is not None and longest["epochs"] == 3  # of three seeds; nine epochs have one seed and no interval, thirty not both
    assert goals.settled(found, "simulated-human", "absent", PAPERS) is None
    found = kept.read(made.write(tmp_path, [*more, *made.runs(["inpainting", "contrast"], [0, 1, 2], epochs=5)]))
    assert found is not None
    longest = goals.settled(found, "simulated-human", "contrast", PAPERS)
    assert longest is not None and longest["epochs"] == 5
    alone = kept.Kept(found.runs[found.runs["seed"] == 0], found.scores[found.scores["seed"] == 0], found.files)
    longest = goals.settled(alone, "simulated-human", "contrast", PAPERS)
    assert longest is not None and longest["epochs"] == 9  # where none has several seeds


def test_scorecards_at_hand_are_judged_without_an_interval(found: kept.Kept) -> None:
    cards = {v: tables[:1] for v, tables in found.cards("simulated-human", "conv5").items()}
    table = goals.judge({"simulated-human": cards}, "simulated-human", "contrast", ["inpainting"])
    assert of(table, "kNN")["verdict"] == goals.MEAN and of(table, "Spearman")["verdict"] == goals.NONE
    text = goals.laid_out(table)
    assert text["margin"].tolist()[0] == "+0.120" and text["cells / proteins"].tolist()[0] == "1,200 / 99"
