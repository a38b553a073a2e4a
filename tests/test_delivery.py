"""Batches with their crops: for any shards, chunks and mode the crops are those of the rows that the sampler draws."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pci_core.cells import CellDataset
from pci_core.delivery import Delivery
from pci_core.shards import ShardedSampler

CPU = torch.device("cpu")


def sampler(dataset: CellDataset, shards: int, own: range | None = None) -> ShardedSampler:
    return ShardedSampler(dataset.starts, np.arange(len(dataset.starts) - 1), 7, 3, shards, own)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("chunk", [None, 1, 11, 1000])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_crops_are_those_of_the_rows(make_cells: Callable[..., CellDataset], shards: int, chunk: int | None, dtype: str) -> None:
    dataset = make_cells(images=7, cells=5, dtype=dtype)
    for mode in ("resident", "streamed", *(["chunked"] if chunk else [])):
        drawn = sampler(dataset, shards)
        delivery = Delivery(dataset, drawn, CPU, mode, chunk=chunk)
        assert delivery.order == {"shards": shards, "chunk": chunk}
        for epoch, start in ((0, 0), (1, 2), (2, drawn.steps)):  # from the middle of an epoch, and from its end: nothing is left
            expected = list(drawn.batches(epoch, start, chunk))
            found = list(delivery.batches(epoch, start, last=epoch == 2))
            assert [whole for _, _, whole in found] == [whole for _, whole in expected]
            for (pairs, crops, _), (wanted, _) in zip(found, expected, strict=True):
                assert torch.equal(pairs.flips, wanted.flips)
                rows = torch.cat([wanted.source, wanted.target]).numpy()
                np.testing.assert_array_equal(crops.numpy(), dataset.crops[rows])


def test_the_parts_of_two_processes_are_one_batch(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells(images=6, cells=5)
    whole = [set(p.source.tolist()) for p, _, _ in Delivery(dataset, sampler(dataset, 2), CPU).batches(0)]
    parts = [
        [set(p.source.tolist()) for p, _, _ in Delivery(dataset, sampler(dataset, 2, range(r, r + 1)), CPU).batches(0)] for r in (0, 1)
    ]
    assert [a | b for a, b in zip(*parts, strict=True)] == whole
    assert sum(map(len, whole)) == len(set().union(*whole)) == len(dataset)  # every cell a source once


def test_a_process_without_a_shard_takes_part_with_nothing(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells()

    # as rank 2 of 2 shards: the choice of rank 0 is what this process alone would choose
    class Second:
        is_first = False

        @staticmethod
        def first(work: Callable[[], object]) -> object:
            return work()

    delivery = Delivery(dataset, sampler(dataset, 2, range(0)), CPU, world=Second())  # type: ignore[arg-type]
    found = list(delivery.batches(0))
    assert delivery.told == "none"
    assert all(len(pairs) == 0 and crops.shape == (0, 2, 16, 16) and crops.dtype == torch.uint8 for pairs, crops, _ in found)
    assert sum(whole for _, _, whole in found) == len(dataset)


def test_no_thread_is_left_when_the_consumer_stops(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells(images=8)
    before = set(threading.enumerate())
    for _ in Delivery(dataset, sampler(dataset, 2), CPU, "chunked", chunk=6).batches(0):
        break
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()
