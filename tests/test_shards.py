"""Shards: every cell is a source once an epoch, whoever draws it, and the order does not depend on who does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pci_core.drawing import Drawing
from pci_core.errors import SamplingError
from pci_core.pairs import PairSampler
from pci_core.shards import ShardedSampler, divide_images

COUNTS = [7, 30, 1, 12, 2, 5, 9, 1, 41, 3]
STARTS = np.concatenate([[0], np.cumsum(COUNTS)])
IMAGES = np.array([0, 1, 2, 3, 4, 5, 6, 8, 9])  # 7 is held out


def drawn(shards: int, processes: int, batch_size: int = 8) -> list[list[tuple[torch.Tensor, torch.Tensor, int]]]:
    """Return for each process its part of every batch."""
    samplers = [ShardedSampler(STARTS, IMAGES, batch_size, 3, shards, range(r, shards, processes)) for r in range(processes)]
    return [[(pairs.source, pairs.target, size) for pairs, size in sampler.batches(1)] for sampler in samplers]


def test_one_shard_is_the_order_that_there_always_was() -> None:
    sampler = ShardedSampler(STARTS, IMAGES, 8, 3)
    plain = PairSampler(STARTS, IMAGES)
    assert (sampler.cells, sampler.left_out) == (plain.cells, plain.left_out) == (109, 1)
    for start in (0, 5):
        for (pairs, size), other in zip(sampler.batches(1, start), plain.epoch(3, 1).batches(8, start), strict=True):
            assert size == len(pairs) and all(torch.equal(getattr(pairs, k), getattr(other, k)) for k in ("source", "target", "flips"))


@pytest.mark.parametrize(("shards", "processes"), [(2, 1), (2, 2), (3, 2), (7, 3), (2, 3), (8, 8)])
def test_no_source_twice_and_none_missing(shards: int, processes: int) -> None:
    parts = drawn(shards, processes)
    source = torch.cat([s for own in parts for s, _, _ in own])
    target = torch.cat([t for own in parts for _, t, _ in own])
    wanted = [row for i in IMAGES if COUNTS[i] > 1 for row in range(STARTS[i], STARTS[i + 1])]
    assert sorted(source.tolist()) == wanted
    image = np.searchsorted(STARTS, source.numpy(), "right")
    assert (image == np.searchsorted(STARTS, target.numpy(), "right")).all() and not (source == target).any()
    sizes = [size for _, _, size in parts[0]]
    assert sizes == [8] * 13 + [5]  # every batch but the last is full, and all processes know its size
    assert [sum(len(own[i][0]) for own in parts) for i in range(len(sizes))] == sizes


def test_the_order_depends_on_the_shards_and_not_on_the_processes() -> None:
    one, two = drawn(4, 1)[0], drawn(4, 2)
    for step, (source, target, _) in enumerate(one):
        together = torch.cat([torch.stack(own[step][:2]) for own in two], 1)
        assert sorted(zip(*together.tolist(), strict=True)) == sorted(zip(source.tolist(), target.tolist(), strict=True))
    assert not torch.equal(torch.cat([s for s, _, _ in one]), torch.cat([s for s, _, _ in drawn(3, 1)[0]]))


def test_each_batch_takes_from_each_shard_in_proportion() -> None:
    cells = [counts.sum() for counts in (np.diff(STARTS)[p] for p in divide_images(STARTS, IMAGES, 3, 0))]
    for own, n in zip(drawn(3, 3), cells, strict=True):
        taken = np.array([len(source) for source, _, _ in own[:-1]])
        # two batches of a shard differ by rounding only: at most one either way at both of their ends
        assert taken.max() - taken.min() <= 2 and abs(taken.mean() - 8 * n / 109) < 1


def test_it_goes_on_inside_an_epoch() -> None:
    sampler = ShardedSampler(STARTS, IMAGES, 8, 3, 3)
    whole = [pairs.source.tolist() for pairs, _ in sampler.batches(2)]
    assert [pairs.source.tolist() for pairs, _ in sampler.batches(2, 6)] == whole[6:]


def test_shards_are_balanced_and_whole_images() -> None:
    starts = np.concatenate([[0], np.cumsum(np.random.default_rng(0).integers(2, 60, 200))])
    images = np.arange(200)
    parts = divide_images(starts, images, 8, 0)
    assert sorted(np.concatenate(parts).tolist()) == images.tolist()
    cells = [int(np.diff(starts)[p].sum()) for p in parts]
    assert max(cells) - min(cells) <= 3  # the smallest images, of 2 and 3 cells, come last and fill up
    assert all(np.array_equal(a, b) for a, b in zip(parts, divide_images(starts, images, 8, 0), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(parts, divide_images(starts, images, 8, 1), strict=True))


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_each_image_is_a_source_as_often_over_all_shards(shards: int) -> None:
    sampler = ShardedSampler(STARTS, IMAGES, 8, 3, shards, drawing=Drawing("images"))
    source = torch.cat([pairs.source for pairs, _ in sampler.batches(1)]).numpy()
    each = np.bincount(np.searchsorted(STARTS, source, "right") - 1, minlength=10)[IMAGES]
    assert len(source) == sampler.cells == 109 and sorted(set(each.tolist())) == [0, 13, 14]  # 109 over 8; one image has one cell
    assert [size for _, size in sampler.batches(1)] == [8] * 13 + [5]


def test_more_shards_than_images_are_refused() -> None:
    with pytest.raises(SamplingError, match=r"9 shards need .* here are 8.*at most 8 processes"):
        ShardedSampler(STARTS, IMAGES, 8, 3, 9)
