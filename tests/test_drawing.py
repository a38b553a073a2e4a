"""Sources shared out evenly, and the farthest of some targets, against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pci_core import drawing
from pci_core.drawing import equal_shares, farthest, shard_shares, spread_sources

CPU = torch.device("cpu")


@given(st.lists(st.integers(2, 40), min_size=1, max_size=12), st.integers(0, 9), st.integers(0, 9))
def test_every_set_gives_as_many_and_its_cells_take_turns(counts: list[int], seed: int, epoch: int) -> None:
    count, pairs = np.array(counts), sum(counts)
    shares = equal_shares(len(count), pairs, seed, epoch)
    assert shares.sum() == pairs and shares.max() - shares.min() <= 1
    sources = spread_sources(count, shares, seed, epoch, CPU).numpy()
    of_cell = np.repeat(np.arange(len(count)), count)
    assert np.bincount(of_cell[sources], minlength=len(count)).tolist() == shares.tolist()
    used = np.bincount(sources, minlength=pairs)
    for i in range(len(count)):
        assert np.ptp(used[of_cell == i]) <= 1


def test_over_the_epochs_no_cell_of_a_large_image_is_left_to_chance() -> None:
    count = np.array([96, 2, 4, 2])  # 26 sources each
    used = np.zeros(104, int)
    for epoch in range(12):
        used += np.bincount(spread_sources(count, equal_shares(4, 104, 5, epoch), 5, epoch, CPU), minlength=104)
    # 12 * 26 turns go round 96 cells three times and a quarter: 3 or 4 each
    assert set(used[:96].tolist()) == {3, 4} and used[:96].sum() == 312


def test_what_is_left_over_goes_to_other_sets_each_time() -> None:
    extra = sum(equal_shares(5, 12, 1, epoch) - 2 for epoch in range(500))
    assert extra.sum() == 1000 and stats.chisquare(extra).pvalue > 0.001  # fixed seed: cannot flicker


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(2, 9), st.integers(0, 5))
def test_shards_get_what_keeps_their_sets_equal(sets: list[int], each: int, more: int) -> None:
    numbers = np.array(sets)
    pairs = each * int(numbers.sum()) + min(more, int(numbers.sum()) - 1)
    shares = shard_shares(numbers, pairs)
    assert shares.sum() == pairs
    within = np.concatenate([equal_shares(int(m), int(n), 0, 0) for m, n in zip(numbers, shares, strict=True)])
    assert within.max() - within.min() <= 1


def test_the_farthest_is_that_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "_BLOCK", 7)  # several blocks, the last one smaller
    rng = np.random.default_rng(0)
    shapes = rng.normal(size=(30, 5)).astype(np.float32)
    source, candidates = rng.integers(0, 30, 24), rng.integers(0, 30, (24, 4))
    wanted = [c[int(np.argmax(((shapes[c] - shapes[s]) ** 2).sum(1)))] for s, c in zip(source, candidates, strict=True)]
    assert farthest(*map(torch.from_numpy, (shapes, source, candidates))).tolist() == wanted
    alike = torch.zeros(30, 5)
    assert farthest(alike, torch.from_numpy(source), torch.from_numpy(candidates)).tolist() == candidates[:, 0].tolist()  # the first
