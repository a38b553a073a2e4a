"""Sets of cells that are paired: the rows of each, and ranges of rows to read, against a loop over the cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from pci_core.sets import Sets, joined


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), min_size=1, max_size=40))
def test_rows_and_spans_are_those_of_a_loop(cells: list[tuple[str, bool]]) -> None:
    values, among = pd.Series([v for v, _ in cells]), np.array([used for _, used in cells])
    sets, names = Sets.by_column(values, among, "protein")
    assert list(names) == list(dict.fromkeys(v for v, used in cells if used))
    for i, name in enumerate(names):
        assert sets.rows_of(np.array([i])).tolist() == [row for row, cell in enumerate(cells) if cell == (name, True)]
    which = np.arange(len(sets))[::-2]
    wanted = [row for row, (v, used) in enumerate(cells) if used and v in names[which]]
    spans = sets.spans(which)
    assert [row for a, b in spans.tolist() for row in range(a, b)] == wanted
    assert (spans[1:, 0] > spans[:-1, 1]).all()  # neighbours are joined


def test_of_images_nothing_is_kept_but_the_starts() -> None:
    sets = Sets.of(np.array([0, 3, 4, 9]))
    assert sets.rows is None and Sets.of(sets) is sets and len(sets) == 3
    assert (sets.counts.tolist(), sets.noun, sets.rows_of(np.array([2, 0])).tolist()) == ([3, 1, 5], "images", [4, 5, 6, 7, 8, 0, 1, 2])
    assert sets.spans(np.array([2, 0])).tolist() == [[0, 3], [4, 9]] and sets.spans(np.array([1, 0])).tolist() == [[0, 4]]
    assert sets.spans(np.array([], int)).shape == (0, 2)


def test_joined_ranges() -> None:
    assert joined(np.array([[0, 2], [2, 3], [5, 6], [6, 9]])).tolist() == [[0, 3], [5, 9]]
