"""Variants beside one another: the paper's first, means with intervals, the best marked, counts of cells."""

from __future__ import annotations

from pathlib import Path

import kept_trainings as made
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pci_core.analysis import kept, overview
from pci_core.errors import ParameterError

PAPERS = ["inpainting", "inpainting, faster"]


def breaking(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with plain spaces."""
    return table.map(lambda text: text.replace("\N{NO-BREAK SPACE}", " "))


@pytest.fixture
def found(tmp_path: Path) -> kept.Kept:
    out = kept.read(made.write(tmp_path))
    assert out is not None
    return out


def test_the_paper_comes_first_by_its_own_layer_and_by_the_last(found: kept.Kept) -> None:
    cards = overview.cards(found, "simulated-human", "conv5", PAPERS, "conv4")
    assert list(cards) == ["inpainting (conv4)", "inpainting", "contrast", "inpainting+contrast"]
    assert cards["inpainting (conv4)"][0].set_index("measure").loc[made.KNN, "value"] == 0.45


def test_without_the_paper_it_says_what_there_is(found: kept.Kept) -> None:
    with pytest.raises(ParameterError, match="inpainting, faster.*there are: inpainting; contrast"):
        overview.cards(found, "simulated-human", "conv5", ["inpainting, faster"], "conv4")


def test_cells_that_nothing_was_scored_on_give_nothing(found: kept.Kept) -> None:
    assert overview.cards(found, "hpa", "conv5", PAPERS, "conv4") == {}
    assert overview.compared(found, ["hpa"], "conv5", PAPERS, "conv4").empty


def test_the_table_in_words(found: kept.Kept) -> None:
    table = overview.compared(found, ["simulated-human", "hpa-duloc"], "conv5", PAPERS, "conv4")
    columns = overview.headings(table, "simulated-human", ["hpa-duloc"], "Spearman")
    assert list(columns) == [
        "kNN, own protein out", "drop between cell lines", "rim AP", "nuisance R²", "Spearman, cytosol + nucleoplasm, hpa-duloc",
    ]  # fmt: skip
    counts = {("simulated-human", m): n for m, n in found.counts("simulated-human").items()}
    laid = overview.laid_out(table, columns, counts, found.costs())
    assert " " not in laid.loc["contrast", "kNN, own protein out"]  # it stays on one line
    text = breaking(laid)
    assert text.index.tolist() == ["inpainting (conv4)", "inpainting", "contrast", "inpainting+contrast", "cells / proteins"]
    half = stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)  # three seeds 0.01 apart
    assert text.loc["contrast", "kNN, own protein out"] == f"0.71 ± {half:.2f} ★"
    assert text.loc["inpainting (conv4)", "kNN, own protein out"] == f"0.46 ± {half:.2f}"
    assert text.loc["contrast", "drop between cell lines"].endswith("★")  # less is better there
    assert text.loc["contrast", "Spearman, cytosol + nucleoplasm, hpa-duloc"] == f"0.86 ± {half:.2f} ★"
    assert text.loc["contrast", ["seeds", "pairs a second", "CPU-hours"]].tolist() == ["3", "200 ★", "0.15 ★"]
    assert text.loc["inpainting (conv4)", "CPU-hours"] == "0.30"
    assert text.loc["cells / proteins", "rim AP"] == "1,200 / 99"


def test_two_seeds_have_no_interval(tmp_path: Path) -> None:
    found = kept.read(made.write(tmp_path, seeds=2))
    assert found is not None
    table = overview.compared(found, ["simulated-human"], "conv5", PAPERS, "conv4")
    text = breaking(overview.laid_out(table, overview.headings(table, "simulated-human"), {}))
    assert text.loc["contrast", "rim AP"] == "0.51 ★" and text.loc["contrast", "seeds"] == "2"  # 0.505, rounded up


def test_a_single_training_wins_nothing_beside_several(tmp_path: Path) -> None:
    scores = pd.read_csv(made.write(tmp_path) / "scores.csv")
    one = (scores["variant"] == "inpainting+contrast") & (scores["measure"] == made.RIM)
    scores.loc[one, "value"] = 0.99
    scores[~(one & (scores["seed"] > 0))].to_csv(tmp_path / "scores.csv", index=False)
    found = kept.read(tmp_path)
    assert found is not None
    table = overview.compared(found, ["simulated-human"], "conv5", PAPERS, "conv4")
    text = breaking(overview.laid_out(table, overview.headings(table, "simulated-human"), {}))
    assert text.loc["inpainting+contrast", "rim AP"] == "0.99" and text["rim AP"].str.endswith("★").sum() == 1


def test_a_variant_without_a_value_has_a_dash(tmp_path: Path) -> None:
    scores = pd.read_csv(made.write(tmp_path) / "scores.csv")
    gone = (scores["variant"] == "contrast") & (scores["measure"] == made.RIM)
    scores[~gone].to_csv(tmp_path / "scores.csv", index=False)
    found = kept.read(tmp_path)
    assert found is not None
    table = overview.compared(found, ["simulated-human"], "conv5", PAPERS, "conv4")
    text = breaking(overview.laid_out(table, overview.headings(table, "simulated-human"), {}))
    assert text.loc["contrast", "rim AP"] == "–" and text.loc["inpainting+contrast", "rim AP"].endswith("★")


def test_other_cells_and_own_cells_stand_apart(found: kept.Kept) -> None:
    moved = overview.tables(found, "conv5", PAPERS, "conv4", moved=True)
    (title,) = moved
    assert "simulated-human (SIMULATED cells)" in title and "scored on hpa-duloc (real cells), where none was trained" in title
    assert list(moved[title]) == ["seeds", "Spearman, cytosol + nucleoplasm"]
    (title,) = overview.tables(found, "conv5", PAPERS, "conv4", moved=False)
    assert title.endswith("width 0.125, 3 epochs, 108,000 pairs in the mean, 9 trainings; scored on the same cells")


def test_a_table_that_is_shown_already_is_passed_over(tmp_path: Path) -> None:
    more = made.runs(["inpainting", "contrast"], [0], recipe="a-recipe")
    scores = made.rows({v: {made.KNN: 0.5} for v in ("inpainting", "contrast")}, "a-recipe", [0], recipe="a-recipe")
    found = kept.read(made.write(tmp_path, more, scores))
    assert found is not None
    main = found.budgets("simulated-human").iloc[0]
    (title,) = overview.tables(found, "conv5", PAPERS, "conv4", moved=False, without=main)
    assert title.startswith("Trained on a-recipe, width")  # a user's own: whether it is simulated is not known


def card(**values: float) -> pd.DataFrame:
    rows = [(m.replace("_", " "), v, v - 0.1, v + 0.1, "more", 50, 0, "") for m, v in values.items()]
    return pd.DataFrame(rows, columns=["measure", "value", "low", "high", "better", "n_cells", "n_proteins", "note"])


def test_cards_of_cells_at_hand() -> None:
    one, two = card(location_of_fields=0.5, rim=0.1), card(location_of_fields=0.75)
    shown = breaking(overview.live({"one": one, "two": two}))
    assert shown.index.tolist() == ["location of fields, more is better"]  # no measure that the chapter does not name
    assert shown.iloc[0].tolist() == ["0.50 (0.40 to 0.60)", "0.75 (0.65 to 0.85) ★", "50"]
    assert overview.live({"one": one.head(0)}).empty and overview.knn_rows({"one": one}).empty
    alone = overview.live({"one": one})
    assert alone.iloc[0, 0] == "0.50 (0.40 to 0.60)"  # alone, it is not the best of anything
