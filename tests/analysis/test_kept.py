"""Kept trainings: read, checked, and put in order by length, variant and seed."""

from __future__ import annotations

from pathlib import Path

import kept_trainings as made
import pandas as pd
import pytest

from pci_core.analysis import kept
from pci_core.errors import DatasetError, UnknownNameError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made.write(tmp_path / "kept")


def read(folder: Path) -> kept.Kept:
    found = kept.read(folder)
    assert found is not None
    return found


def test_most_variants_come_first_then_the_longer_training(tmp_path: Path) -> None:
    more = made.runs(["inpainting", "contrast"], [0], epochs=9)
    longer = made.rows({"contrast": {made.KNN: 0.9}}, "simulated-human", [0], epochs=9)
    table = read(made.write(tmp_path, more, longer)).budgets("simulated-human")
    assert table[["epochs", "variants", "trainings"]].to_numpy().tolist() == [[3, 3, 9], [9, 2, 2]]
    assert table["pairs"].tolist() == [108_000, 324_000]


def test_a_budget_holds_its_own_trainings_alone(tmp_path: Path) -> None:
    more = made.runs(["contrast"], [0], epochs=9)
    found = read(made.write(tmp_path, more, made.rows({"contrast": {made.KNN: 0.9}}, "simulated-human", [0], epochs=9)))
    part = found.of(found.budgets("simulated-human").iloc[1])
    assert len(part.runs) == 1 and part.scores["value"].tolist() == [0.9, 0.9]


def test_an_unknown_recipe_names_those_there_are(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="simulated-human"):
        read(folder).budgets("simulated-humans")


def test_a_layer_that_nothing_was_scored_by_is_named(folder: Path) -> None:
    read(folder).require("conv4", "conv5")
    with pytest.raises(UnknownNameError, match="conv4"):
        read(folder).require("conv3")


def test_cards_of_all_variants_have_the_same_seeds_in_the_same_places(tmp_path: Path) -> None:
    """A variant that lacks a seed has an empty card there, so that differences by seed are those of one seed."""
    scores = pd.read_csv(made.write(tmp_path) / "scores.csv")
    gone = (scores["variant"] == "contrast") & (scores["seed"] == 1)
    scores[~gone].to_csv(tmp_path / "scores.csv", index=False)
    cards = read(tmp_path).cards("simulated-human", "conv5")
    assert list(cards) == list(made.VALUES) and {len(c) for c in cards.values()} == {3}
    assert [len(c) for c in cards["contrast"]] == [6, 0, 6]
    assert cards["contrast"][2].set_index("measure").loc[made.KNN, "value"] == 0.72  # 0.7 and two seeds of 0.01


def test_costs_are_pairs_a_second_and_hours(folder: Path) -> None:
    costs = read(folder).costs()
    assert costs.loc["inpainting"].tolist() == [100, 0.3] and costs.loc["contrast"].tolist() == [200, 0.15]


def test_counts_leave_out_proteins_that_are_not_known(folder: Path) -> None:
    found = read(folder)
    assert found.counts("simulated-human")[made.KNN] == "1,200 / 99" and found.counts("hpa-duloc")[made.FRACTION] == "1,200"
    assert found.size("simulated-human") == "up to 1,200 cells of 99 proteins" and found.size("hpa-duloc") == "up to 1,200 cells"


def test_without_a_clone_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kept.pci_core, "__file__", str(tmp_path / "site-packages" / "pci_core" / "__init__.py"))
    assert kept.read() is None
    made.write(tmp_path / kept.PLACE)
    found = kept.read()
    assert found is not None and found.files[0] == tmp_path / kept.PLACE / "runs.csv"


def test_a_folder_that_was_named_must_hold_them(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"runs.csv is not there"):
        kept.read(tmp_path)


@pytest.mark.parametrize(
    ("file", "column", "value", "words"),
    [
        ("runs.csv", "cpu_seconds", 0.0, "9 trainings that took no time"),
        ("runs.csv", "seed", "first", "text where numbers should be"),
        ("scores.csv", "value", "high", "text where numbers should be"),
        ("runs.csv", "variant", "one", "6 rows stand twice"),  # three variants of three seeds become one
        ("scores.csv", "layer", "conv5", "rows stand twice"),
    ],
)
def test_a_table_that_cannot_be_is_named(folder: Path, file: str, column: str, value: object, words: str) -> None:
    pd.read_csv(folder / file).assign(**{column: value}).to_csv(folder / file, index=False)
    with pytest.raises(DatasetError, match=rf"{file}.*{words}"):
        kept.read(folder)


def test_a_missing_column_is_named(folder: Path) -> None:
    pd.read_csv(folder / "scores.csv").drop(columns="better").to_csv(folder / "scores.csv", index=False)
    with pytest.raises(DatasetError, match="no column better"):
        kept.read(folder)
