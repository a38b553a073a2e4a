"""Crops to the device: held, in chunks and streamed give the same, in the order asked for."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable

import forked
import numpy as np
import pytest
import torch

from pci_core.cells import CROPS, CellDataset
from pci_core.errors import DatasetError, DeviceError, UnknownNameError
from pci_core.feed import Feed, even
from pci_core.pairs import PairSampler

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "chunks"]


def free(monkeypatch: pytest.MonkeyPatch, bytes_free: float) -> None:
    monkeypatch.setattr("pci_core.memory.available", lambda device: int(bytes_free))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("mode", ["resident", "streamed", "chunked"])
def test_rows_come_as_asked(make_cells: Callable[..., CellDataset], mode: str, dtype: str) -> None:
    dataset = make_cells(dtype=dtype)
    rows = [torch.tensor([5, 0, 23]), torch.tensor([1]), torch.tensor([2, 2])]
    batches = list(Feed(dataset, CPU, mode).batches(rows))
    for index, crops in zip(rows, batches, strict=True):
        np.testing.assert_array_equal(crops.numpy(), dataset.crops[index.numpy()])


def test_the_cpu_streams_by_itself(make_cells: Callable[..., CellDataset]) -> None:
    assert Feed(make_cells(), CPU).mode == "streamed"
    with pytest.raises(UnknownNameError, match="'stream'. Did you mean streamed"):
        Feed(make_cells(), CPU, "stream")


def test_a_file_that_shrinks_while_it_is_read(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells()
    feed = Feed(dataset, CPU, "streamed")
    with open(dataset.folder / CROPS, "rb+") as handle:
        handle.truncate(1000)
    with pytest.raises(DatasetError, match="ends early at cell 23"):
        list(feed.batches([torch.tensor([23])]))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("mode", ["resident", "streamed", "chunked"])
def test_pairs_come_with_their_crops_whatever_the_sizes(make_cells: Callable[..., CellDataset], mode: str, dtype: str) -> None:
    dataset = make_cells(images=7, cells=5, side=4, dtype=dtype)
    rng = np.random.default_rng(0)
    for seed in range(12):
        images = np.flatnonzero(rng.random(7) < 0.7)  # a shard, with gaps
        if not len(images):
            continue
        chunk, size = int(rng.integers(1, 40)), int(rng.integers(1, 20))  # an image larger than a chunk, a batch over several
        sampler = PairSampler(dataset.starts, images)
        feed = Feed(dataset, CPU, mode, use="pairs", chunk=chunk, images=images)
        drawn = [sampler.epoch(seed, epoch, feed.chunk) for epoch in (0, 1)]
        start = int(rng.integers(0, -(-len(drawn[0]) // size)))
        for epoch, first in ((0, start), (1, 0)):
            then = drawn[1].chunks if epoch == 0 else ()
            got = list(feed.pairs(drawn[epoch], even(len(drawn[epoch]), size), first, then))
            wanted = list(drawn[epoch].batches(size, first))
            assert len(got) == len(wanted)
            for (batch, crops), pairs in zip(got, wanted, strict=True):
                assert torch.equal(batch.source, pairs.source) and torch.equal(batch.flips, pairs.flips)
                rows = torch.cat([pairs.source, pairs.target]).numpy()
                np.testing.assert_array_equal(crops.numpy(), dataset.crops[rows])
        assert not threads()


@pytest.mark.parametrize("mode", ["resident", "streamed", "chunked"])
def test_cells_come_in_order(make_cells: Callable[..., CellDataset], mode: str) -> None:
    dataset = make_cells()
    for images, chunk in ((None, 5), (np.array([0, 1, 3]), 7), (np.array([2]), 100)):
        feed = Feed(dataset, CPU, mode, use="once", chunk=chunk, images=images)
        rows, crops = zip(*feed.in_order(4), strict=True)
        wanted = np.concatenate([np.arange(6 * i, 6 * i + 6) for i in (range(4) if images is None else images)])
        assert torch.cat(rows).tolist() == wanted.tolist() and {len(r) for r in rows[:-1]} == {4}
        np.testing.assert_array_equal(torch.cat(crops).numpy(), dataset.crops[wanted])


def test_the_next_epoch_is_read_ahead(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells(images=6)
    sampler = PairSampler(dataset.starts)
    feed = Feed(dataset, CPU, "chunked", use="pairs", chunk=12)
    list(feed.pairs(sampler.epoch(0, 0, 12), even(36, 4), then=sampler.chunks(0, 1, 12)))
    reader = feed._readers[0]
    deadline = time.monotonic() + 30
    while feed.rate.bytes < (36 + 24) * dataset.crops[0].nbytes and time.monotonic() < deadline:  # both buffers are full again
        time.sleep(0.001)
    batches = feed.pairs(sampler.epoch(0, 1, 12), even(36, 4))
    next(batches)
    assert feed._readers == [reader]
    batches.close()
    list(feed.pairs(sampler.epoch(0, 0, 12), even(36, 4), then=sampler.chunks(0, 1, 12)))
    (_, crops), *_ = feed.pairs(other := sampler.epoch(5, 0, 12), even(len(other), 4))  # something else than was announced
    np.testing.assert_array_equal(crops[:4].numpy(), dataset.crops[other.source[:4].numpy()])


def test_no_thread_is_left_when_the_consumer_stops(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells(images=6)
    pairs = PairSampler(dataset.starts).epoch(0, 0, 6)
    feed = Feed(dataset, CPU, "chunked", use="pairs", chunk=6)
    for batch, _ in feed.pairs(pairs, even(len(pairs), 4)):
        assert len(batch) == 4
        break
    gc.collect()
    assert not threads()
    list(feed.pairs(pairs, even(len(pairs), 4), then=pairs.chunks))  # a training that fails between two epochs closes nothing
    ahead = threads()
    assert len(ahead) == 1
    del feed
    gc.collect()
    ahead[0].join(30)
    assert not threads()


def test_a_file_that_changes_under_a_training_is_an_error(make_cells: Callable[..., CellDataset]) -> None:
    for what in ("truncate", "write"):
        dataset = make_cells(name=what)
        pairs = PairSampler(dataset.starts).epoch(0, 0, 6)
        feed = Feed(dataset, CPU, "chunked", use="pairs", chunk=6)
        with open(dataset.folder / CROPS, "rb+") as handle:
            if what == "truncate":
                handle.truncate(dataset.crops.offset + dataset.crops.nbytes - 10)
            else:
                time.sleep(0.02)  # coarser than the clock of some file systems
                handle.seek(1000)
                handle.write(b"other")
        with pytest.raises(DatasetError, match="was written to after it was opened|ends early at cell"):
            list(feed.pairs(pairs, even(len(pairs), 4)))
        assert not threads()


def test_what_fits_decides_the_mode(make_cells: Callable[..., CellDataset], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_cells(images=32, cells=4)
    size = dataset.crops.nbytes
    assert Feed(dataset, CPU, use="pairs").mode == "streamed"
    free(monkeypatch, 1.5 * size)
    for device, use, mode in (
        (CPU, "pairs", "chunked"),
        (CPU, "rows", "streamed"),
        (CPU, "once", "streamed"),
        (CUDA, "pairs", "chunked"),
        (CUDA, "rows", "streamed"),
        (CUDA, "once", "streamed"),
    ):
        feed = Feed(dataset, device, use=use)  # nothing touches a GPU before crops are asked for
        assert feed.mode == mode and feed.told.startswith(f"{mode} (")
    assert "128 cells" not in feed.told and feed.chunk is None
    feed = Feed(dataset, CUDA, use="pairs")
    assert feed.chunk == 16 and feed.told == "chunked (16 cells a chunk; 65.5 kB of crops, 98.3 kB of memory free)"  # an eighth
    assert Feed(dataset, CUDA, use="pairs", reserve=int(1.2 * size)).chunk == int(0.3 * size) // 4 // dataset.crops[0].nbytes
    assert Feed(dataset, CUDA, use="pairs", share=0.25, chunk=5).chunk == 5
    feed = Feed(dataset, CUDA, use="pairs", chunk=100)  # of a checkpoint made where there was more memory
    assert (feed.mode, feed.chunk) == ("streamed", 100) and "two buffers of 100 cells" in feed.told


def test_what_cannot_be_held_is_refused(make_cells: Callable[..., CellDataset], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_cells()
    free(monkeypatch, 0.9 * dataset.crops.nbytes)
    with pytest.raises(DeviceError, match="they cannot be held there. Take data='chunked' or 'auto'"):
        Feed(dataset, CPU, "resident")
    with pytest.raises(DeviceError, match=r"two buffers of 20 cells need .* Take a smaller chunk \(the largest image has 6 cells\)"):
        Feed(dataset, CPU, "chunked", use="pairs", chunk=20)
    with pytest.raises(UnknownNameError, match="'pair'. Did you mean pairs"):
        Feed(dataset, CPU, use="pair")


def test_a_slow_disk_is_told_once(make_cells: Callable[..., CellDataset]) -> None:
    feed = Feed(make_cells(), CPU)
    feed._wait._add(100.0)  # the first one is a beginning, not a rate
    feed._wait._add(1.0)
    feed.rate.bytes, feed.rate.seconds = 50_000_000, 1.0
    assert feed.slow(elapsed=120.0, steps=60) is None  # 5 % of the 20 s since
    feed._wait._add(3.0)
    assert feed.slow(elapsed=120.0, steps=20) is None  # too early to say
    assert feed.slow(elapsed=104.5, steps=60) is None
    told = feed.slow(elapsed=120.0, steps=60)
    assert told is not None and "20% of the time was waiting" in told and "50 MB/s" in told and "faster disk" in told
    assert feed.slow(elapsed=120.0, steps=80) is None  # said once


def test_waiting_is_counted(make_cells: Callable[..., CellDataset], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_cells()
    original = CellDataset.opened

    def slowly(self: CellDataset) -> object:
        time.sleep(0.05)
        return original(self)

    monkeypatch.setattr(CellDataset, "opened", slowly)
    pairs = PairSampler(dataset.starts).epoch(0, 0, 6)
    for mode in ("chunked", "streamed"):
        feed = Feed(dataset, CPU, mode, use="pairs", chunk=6)
        list(feed.pairs(pairs, even(len(pairs), 6)))  # four reads of 50 ms, and nothing else to do
        assert feed.waited >= 0.15
        for _ in (feed := Feed(dataset, CPU, mode, use="pairs", chunk=6)).pairs(pairs, even(24, 6)):
            time.sleep(0.15)  # the next read is over by then
        assert feed.waited < 0.15  # of the first read alone, which nothing can hide
    assert Feed(dataset, CPU, "resident").waited == 0


PEAK = """
import sys
from pathlib import Path
import torch
from pci_core.cells import CellDataset
from pci_core.feed import Feed, even
from pci_core.pairs import PairSampler

def peak():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))

dataset = CellDataset(sys.argv[1])
sampler = PairSampler(dataset.starts)
pairs = sampler.epoch(0, 0, 200)
before = peak()
for batch, crops in Feed(dataset, torch.device("cpu"), sys.argv[2], use="pairs", chunk=200).pairs(pairs, even(len(pairs), 16)):
    pass
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux reports it")
def test_memory_stays_flat_in_chunks(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells(images=20, cells=200, side=64)  # 32 MB of crops, 1.6 MB a chunk
    grown = {}
    for mode in ("chunked", "resident"):
        grown[mode] = int(forked.run(PEAK, dataset.folder, mode))
    # KiB: two buffers of 1.6 MB, a few batches of 0.25 MB and the code that is loaded on the way; 9 MB when this was written
    assert grown["chunked"] < 16 * 1024 < 32 * 1024 <= grown["resident"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_on_a_gpu_all_modes_give_the_same(make_cells: Callable[..., CellDataset], dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_cells(images=30, cells=20, side=32, dtype=dtype)
    monkeypatch.setattr("pci_core.chunks.BLOCK", 7 * dataset.crops[0].nbytes)  # many copies a chunk
    sampler = PairSampler(dataset.starts, device=CUDA)
    work = torch.randn(2048, 2048, device=CUDA)
    for mode in ("resident", "chunked", "streamed"):
        feed = Feed(dataset, CUDA, mode, use="pairs", chunk=60)
        for epoch in range(3):
            pairs = sampler.epoch(0, epoch, 60)
            got = []
            for batch, crops in feed.pairs(pairs, even(len(pairs), 16), then=sampler.chunks(0, epoch + 1, 60) if epoch < 2 else ()):
                for _ in range(20):  # the device stays behind: a buffer that is overwritten too early would show
                    work = torch.tanh(work @ work)
                got.append((torch.cat([batch.source, batch.target]), crops))
            for rows, crops in got:
                np.testing.assert_array_equal(crops.cpu().numpy(), dataset.crops[rows.cpu().numpy()])
        torch.cuda.synchronize()
        assert 0 <= feed.waited < 60
    assert not threads()


def test_a_process_may_have_no_rows(make_cells: Callable[..., CellDataset]) -> None:
    feed = Feed(make_cells(), torch.device("cpu"), "streamed")
    assert list(feed.in_order(8, range(3, 3))) == []
