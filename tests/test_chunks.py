"""Chunks: what is read lands where it is looked for, the thread ends, errors arrive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pci_core import chunks
from pci_core.cells import CROPS, CellDataset
from pci_core.chunks import ChunkReader, Held, Rate, as_stored, load, new_buffer
from pci_core.errors import DatasetError
from pci_core.pairs import Chunk, PairSampler

CPU = torch.device("cpu")


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "chunks"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("staged", [False, True])
def test_spans_land_side_by_side(make_cells: Callable[..., CellDataset], dtype: str, staged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_cells(dtype=dtype)
    monkeypatch.setattr(chunks, "BLOCK", 2 * dataset.crops[0].nbytes)  # several blocks a span, and several spans a staging buffer
    spans = np.array([[1, 4], [6, 7], [9, 14]])
    rows = np.concatenate([np.arange(a, b) for a, b in spans])
    buffer, rate = new_buffer(dataset, len(rows) + 3, CPU), Rate()
    load(dataset, spans, buffer, rate, staging=[new_buffer(dataset, 2, CPU) for _ in range(2)] if staged else ())
    np.testing.assert_array_equal(as_stored(buffer[: len(rows)]).numpy(), dataset.crops[rows])
    assert rate.bytes == len(rows) * dataset.crops[0].nbytes and rate.mb_per_second > 0
    asked = torch.tensor([13, 1, 6, 6, 3])
    np.testing.assert_array_equal(as_stored(Held(buffer, spans).take(asked)).numpy(), dataset.crops[asked.numpy()])


@pytest.mark.parametrize("row", [0, 4, 8, 14])
def test_a_row_that_is_not_held_is_refused(make_cells: Callable[..., CellDataset], row: int) -> None:
    held = Held(new_buffer(make_cells(), 9, CPU), np.array([[1, 4], [6, 7], [9, 14]]))
    with pytest.raises(DatasetError, match="sampler and feed need the same images"):
        held.take(torch.tensor([2, row]))


def test_a_reader_is_one_chunk_ahead_and_not_more(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells(images=5, cells=4)
    rate = Rate()
    reader = ChunkReader(dataset, CPU, 4, rate)
    reader.add([Chunk(4 * i, np.array([[4 * i, 4 * i + 4]])) for i in range(5)])
    one = 4 * dataset.crops[0].nbytes
    for i in range(5):
        held = reader.next()
        deadline = time.monotonic() + 30
        while rate.bytes < min(i + 2, 5) * one and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01)  # a third buffer would be filled by now
        assert rate.bytes == min(i + 2, 5) * one
        rows = torch.arange(4 * i, 4 * i + 4)
        np.testing.assert_array_equal(held.take(rows).numpy(), dataset.crops[rows.numpy()])
        reader.release()
    reader.close()
    assert not threads()


def test_a_reader_that_is_closed_early_ends(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells()
    for taken in (0, 1):
        reader = ChunkReader(dataset, CPU, 6, Rate())
        reader.add([Chunk(0, np.array([[0, 6]])) for _ in range(9)])
        for _ in range(taken):
            reader.next()
        reader.close()
    assert not threads()


def test_a_failed_read_reaches_the_consumer(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells()
    with open(dataset.folder / CROPS, "rb+") as handle:
        handle.truncate(dataset.crops.offset + 7 * dataset.crops[0].nbytes + 3)
    reader = ChunkReader(dataset, CPU, 6, Rate())
    reader.add([Chunk(0, np.array([[6, 12]]))])
    with pytest.raises(DatasetError, match="ends early at cell 7: it changed while it was read"):
        reader.next()
    reader.close()
    assert not threads()


def test_chunks_of_a_sampler_are_whole_images_of_at_most_the_size() -> None:
    rng = np.random.default_rng(0)
    for seed in range(40):
        counts = rng.integers(1, 30, rng.integers(1, 30))
        starts = np.concatenate([[0], np.cumsum(counts)])
        images = np.flatnonzero(rng.random(len(counts)) < 0.8)
        if not (counts[images] > 1).any():
            continue
        size = int(rng.integers(1, 60))
        sampler = PairSampler(starts, images)
        found = sampler.chunks(seed, 3, size)
        usable = {int(i) for i in images if counts[i] > 1}
        inside = [[i for i in usable if any(a <= starts[i] and starts[i + 1] <= b for a, b in c.spans)] for c in found]
        assert sorted(i for some in inside for i in some) == sorted(usable)  # each image in one chunk, whole
        for chunk, some in zip(found, inside, strict=True):
            assert chunk.cells == counts[some].sum()
            assert chunk.cells <= size or len(some) == 1
            assert (chunk.spans[1:, 0] > chunk.spans[:-1, 1]).all()  # ascending, neighbours joined
        assert [c.begin for c in found] == np.cumsum([0, *(c.cells for c in found)])[:-1].tolist()
