"""Which cells are scored, what is counted as left out, and which cells share a value."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pci_core.analysis.selection import Omitted, draw_groups, has_one_term, independent_groups, scorable, select, shared
from pci_core.errors import CellTableError, UnknownNameError


def table() -> pd.DataFrame:
    label = ["a"] * 6 + ["b"] * 6 + ["c"] * 6 + ["d"] * 3 + ["", "a;b"]
    image = [*"uuuvvv", *"wwwxxx", *"yyyyyy", *"zzZ", "p", "q"]
    return pd.DataFrame({"location": label, "image": image})


def test_selection_counts_every_reason() -> None:
    obs, omitted = table(), Omitted()
    used = select(obs, "location", {"image": shared(obs, "image")}, 3, omitted)
    assert used.tolist() == [True] * 12 + [False] * 11
    rows = omitted.table()
    assert dict(zip(rows["what"], rows["n_cells"], strict=True)) == {
        "cells without 'location'": 1,
        "cells with several terms of 'location'": 1,
        "class 'c'": 6,
        "class 'd'": 3,
    }
    why = rows.set_index("what")["why"]
    assert "one image" in why["class 'c'"] and "3 cells, more than 3 are needed" in why["class 'd'"]


def test_missing_labels_of_any_kind_are_no_class() -> None:
    labels = pd.Series(["a", None, np.nan, "b", ""], dtype=object)
    assert has_one_term(labels).tolist() == [True, False, False, True, False]
    assert has_one_term(labels.astype("category")).tolist() == [True, False, False, True, False]


def test_a_single_class_says_what_became_of_the_others() -> None:
    obs = table()
    obs.loc[6:11, "location"] = ""
    with pytest.raises(CellTableError, match=r"3 class\(es\), 1 of which.*class 'c': class of one image"):
        select(obs, "location", {"image": shared(obs, "image")}, 3, Omitted())
    with pytest.raises(CellTableError, match=r"0 class\(es\)"):
        select(obs.assign(location=""), "location", {}, 3, Omitted())


def test_cells_that_share_a_value_directly_or_through_others() -> None:
    obs = pd.DataFrame({"image": ["i1", "i1", "i2", "i3", "i4", "i5"], "protein": ["P", "P", "P", "Q", "", ""]})
    assert shared(obs, "image").tolist() == [0, 0, 1, 2, 3, 4]
    assert shared(obs, "image", "protein").tolist() == [0, 0, 0, 1, 2, 3]  # cells of no known protein share none
    assert shared(obs, "protein").tolist() == [0, 0, 0, 1, 2, 3]
    linked = obs.assign(image=["i1", "i1", "i2", "i2", "i4", "i5"])  # an image of two proteins joins both
    assert shared(linked, "image", "protein").tolist() == [0, 0, 0, 0, 1, 2]


def test_unknown_columns_are_named() -> None:
    with pytest.raises(UnknownNameError, match="'imag'. Did you mean image"):
        shared(table(), "imag")
    with pytest.raises(UnknownNameError, match="'image'"):
        independent_groups(table().drop(columns="image"), "location")
    with pytest.raises(UnknownNameError, match="'protein'"):
        scorable(table(), "protein")


def test_drawn_groups_are_whole_and_every_class_has_its_turn() -> None:
    obs = pd.DataFrame({"location": ["a"] * 60 + ["b"] * 12 + ["", "a;b"], "image": [f"i{j // 6}" for j in range(74)]})
    drawn = draw_groups(obs, "location", "image", 30)
    counts = obs[drawn].groupby(["location", "image"]).size()
    assert set(counts) == {6}  # no image is cut
    assert counts.groupby("location").size().to_dict() == {"a": 3, "b": 2}  # b, a, b, a, a in some order: 30 cells
    assert not drawn[72:].any()
    assert drawn.tolist() == draw_groups(obs, "location", "image", 30).tolist()
    assert draw_groups(obs, "location", "image", 10_000).sum() == 72
