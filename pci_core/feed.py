"""Crops to the device: held there as they are stored, or read ahead in constant memory, in chunks or row by row.

- ``resident``: all crops on the device. A GPU takes it where they fit into half of its free memory.
- ``chunked``: chunks of whole images in two buffers on the device; a thread reads the next one from ``crops.npy`` in long
  blocks (page-locked and copied on a stream of its own on CUDA) while the network works on this one. Taken where the crops
  are larger than half of the free memory. Whether they lie in the system's file cache or on the disk is not for us to
  choose: the same path serves both. The order of an epoch then goes chunk by chunk (`PairSampler.epoch`).
- ``streamed``: the rows of each batch, read ahead by a thread. Taken on the CPU while the file cache can hold the crops
  (half of the available memory), and for any order that has no chunks: single rows from a disk are slow.

For the same order all give the same crops.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from pci_core import memory
from pci_core.cells import CellDataset
from pci_core.chunks import ChunkReader, Held, Rate, as_stored, load, new_buffer, staging_for
from pci_core.errors import DeviceError, unknown_name
from pci_core.memory import gb
from pci_core.pairs import Chunk, Pairs
from pci_core.sets import Sets, joined
from pci_core.waiting import Wait

MODES = ("auto", "resident", "chunked", "streamed")
USES = ("pairs", "once", "rows")
_AHEAD = 2  # batches read ahead
_CHUNKS = 8  # an epoch has at least about so many: the first one is waited for, and a resumed training reads one again
_SLOW_SHARE, _SLOW_STEPS, _SLOW_SECONDS = 0.1, 40, 5.0  # when a disk counts as slower than the work


class Feed:
    """Deliver raw crops.

    Parameters
    ----------
    dataset : CellDataset
        Where the crops are.
    device : torch.device
        Where they shall go.
    mode : str
        One of `MODES`, see the module.
    use : str
        What for, which decides what ``"auto"`` takes: ``"pairs"`` (`pairs`, whose order may go by chunks), ``"once"``
        (`in_order`: each cell once, so nothing is kept) or ``"rows"`` (`batches`: any rows again and again).
    chunk : int, optional
        Cells of a chunk at most; by default it follows from the free memory. Given, it is also the order in other modes.
    images : array of int, optional
        Only these images are asked for and held; all by default.
    sets : Sets, optional
        What `images` are numbers of where cells of other sets are paired.
    reserve : int
        Bytes on the device that the network will need and that are not for crops.
    share : float
        Of the device's free memory, where several feeds use it.

    Attributes
    ----------
    mode : str
        The one taken.
    chunk : int or None
        What to ask of `PairSampler.epoch`; None for an order over all cells.
    told : str
        The mode and why, for the first line of long work.
    waited : float
        Seconds that the work has stood still for crops so far; on CUDA the device's own idle time, as far as it is known.

    Raises
    ------
    DeviceError
        The mode asked for, or a single image, does not fit into memory.
    UnknownNameError
        No such mode.
    """

    def __init__(
        self,
        dataset: CellDataset,
        device: torch.device,
        mode: str = "auto",
        *,
        use: str = "rows",
        chunk: int | None = None,
        images: np.ndarray | None = None,
        sets: Sets | None = None,
        reserve: int = 0,
        share: float = 1.0,
    ) -> None:
        for name, value, known in (("data mode", mode, MODES), ("use of crops", use, USES)):
            if value not in known:
                raise unknown_name(name, value, known)
        self.dataset, self.device, self.rate, self._wait = dataset, device, Rate(), Wait(device)
        sets = sets or Sets.of(dataset.starts)
        counts = sets.counts
        images = np.arange(len(counts)) if images is None else np.asarray(images, np.int64)
        self._spans = sets.spans(images)
        self._cells, self._largest = int(counts[images].sum()), int(counts[images].max(initial=0))
        self._free = max(0, int((memory.available(device) - reserve) * share))
        self.chunk = chunk
        self.mode, why = self._choose(mode, use)
        self.told = f"{self.mode} ({why})"
        self._changes, self._warned = 0, False  # chunks waited for after the first
        self._readers: list[ChunkReader] = []
        weakref.finalize(self, _stop_all, self._readers)  # a training that fails leaves no thread behind
        self._held: Held | None = None
        if self.mode == "resident":
            buffer = new_buffer(dataset, self._cells, device)
            load(dataset, self._spans, buffer, self.rate, staging=staging_for(dataset, device))
            self._held = Held(buffer, self._spans)

    def _choose(self, mode: str, use: str) -> tuple[str, str]:
        """Return the mode and why; set `chunk` where chunks are taken."""
        row = self.dataset.crops[0].nbytes
        need, auto = self._cells * row, mode == "auto"
        sizes = f"{gb(need)} of crops, {gb(self._free)} of memory free"
        if auto:
            mode = self._auto(use, need <= self._free // 2)
        elif mode == "resident" and need > self._free:
            raise DeviceError(f"{sizes} ({self.device}): they cannot be held there. Take data='chunked' or 'auto', or fewer cells.")
        if mode != "chunked":
            return mode, "each cell is read once" if auto and use == "once" else sizes if auto else "as asked"
        # two buffers: half of a GPU's free memory, a quarter of the host's, which also has the file cache
        fits = self._free // (4 if self.device.type == "cuda" else 8) // row
        chunk = self.chunk or max(1, min(fits, -(-self._cells // _CHUNKS)))
        cells = self._buffer_cells(chunk)
        if 2 * cells * row > self._free:
            told = f"two buffers of {cells} cells need {gb(2 * cells * row)} on {self.device}, and {gb(self._free)} are free"
            if not auto:
                raise DeviceError(f"{told}. Take a smaller chunk (the largest image has {self._largest} cells), or data='streamed'.")
            return "streamed", told  # a chunk from another machine, or a huge image: the order stays, the rows come one by one
        self.chunk = chunk
        return "chunked", f"{chunk} cells a chunk; {sizes if auto else 'as asked'}"

    def _auto(self, use: str, fits: bool) -> str:
        if use == "once":
            return "streamed"
        if self.device.type == "cuda" and fits:
            return "resident"
        if use == "rows" or self.device.type == "mps" or (self.device.type == "cpu" and fits):
            return "streamed"  # the file cache serves the CPU; copies to MPS from a second thread were never tried
        return "chunked"

    def _buffer_cells(self, chunk: int) -> int:
        return min(self._cells, max(chunk, self._largest))

    @property
    def waited(self) -> float:
        """Seconds that the work has stood still for crops."""
        return self._wait.seconds

    @waited.setter
    def waited(self, seconds: float) -> None:
        self._wait.seconds = seconds

    def pairs(
        self, pairs: Pairs, bounds: Sequence[int] | np.ndarray, start: int = 0, then: Sequence[Chunk] = ()
    ) -> Generator[tuple[Pairs, Tensor], None, None]:
        """Yield batches of pairs and their crops.

        Parameters
        ----------
        pairs : Pairs
            An epoch.
        bounds : sequence of int
            (batches + 1,) where each batch begins and ends, see `even`.
        start : int
            Number of the batch to begin with.
        then : sequence of Chunk
            The next epoch's chunks: read ahead while this epoch ends.

        Yields
        ------
        batch : Pairs
        crops : Tensor
            (2 N, C, H, W) stored dtype, on the device: the sources, then the targets.
        """
        cuts = [slice(int(a), int(b)) for a, b in itertools.pairwise(bounds)][start:]
        with contextlib.closing(self._crops((pairs.source, pairs.target), cuts, pairs.chunks, then)) as crops:
            for cut, found in zip(cuts, crops, strict=True):
                yield pairs.part(cut), found

    def in_order(self, size: int, part: range | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows in order, (n,) int64, and their crops, (n, C, H, W), `size` at a time.

        The rows are those of all images of this feed, or `part` of the dataset's.
        """
        spans = self._spans.tolist() if part is None else [(part.start, max(part.start, part.stop))]
        rows = torch.cat([torch.arange(first, last) for first, last in spans])
        chunks = []
        if self.mode == "chunked":
            step = min(self.chunk or 1, len(rows))
            for begin in range(0, len(rows), step):
                some = rows[begin : begin + step].numpy()
                chunks.append(Chunk(begin, joined(np.stack([some, some + 1], 1))))
        ends = even(len(rows), size)
        cuts = [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]
        with contextlib.closing(self._crops((rows,), cuts, chunks)) as crops:
            yield from zip(rows.split(size) if len(rows) else (), crops, strict=True)

    def batches(self, rows: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the crops of each tensor of rows, (len(rows), C, H, W), stored dtype, on the device.

        In the chunked mode these are read row by row: any order is possible, and slow from a disk.
        """
        if self._held is not None:
            for index in rows:
                yield as_stored(self._held.take(index))
            return
        with ThreadPoolExecutor(1, thread_name_prefix="crops") as reader:
            ahead: deque[Future[Tensor]] = deque()
            source = iter(rows)
            while True:
                for wanted in itertools.islice(source, _AHEAD - len(ahead)):
                    ahead.append(reader.submit(self._read, wanted))
                if not ahead:
                    return
                with self._wait:
                    crops = ahead.popleft().result().to(self.device, non_blocking=True)
                yield as_stored(crops)

    def _read(self, index: Tensor) -> Tensor:
        crops = new_buffer(self.dataset, len(index), torch.device("cpu"), self.device.type == "cuda")
        with self.rate.of(crops.nbytes):
            self.dataset.read_into(index.cpu().numpy(), as_stored(crops).numpy())
        return crops

    def _crops(
        self, columns: tuple[Tensor, ...], cuts: Sequence[slice], chunks: Sequence[Chunk], then: Sequence[Chunk] = ()
    ) -> Generator[Tensor, None, None]:
        """Yield the crops of each batch of rows, column after column; the cuts follow one another, and some may be empty."""
        if self.mode != "chunked" or not chunks:
            yield from self.batches(torch.cat([c[cut] for c in columns]) for cut in cuts)
            return
        at = cuts[0].start if cuts else 0
        ends = [*(c.begin for c in chunks[1:]), len(columns[0])]
        number = int(np.searchsorted(ends, at, "right"))
        reader = self._reader(chunks[number:], then)
        held: Held | None = None
        whole = False
        try:
            for cut in cuts:
                parts: list[list[Tensor]] = []  # a batch across the end of a chunk takes from both
                while at < cut.stop:
                    if held is None:
                        with self._wait:
                            held = reader.next()
                        self._changes += number > 0
                    upto = min(cut.stop, ends[number])
                    parts.append(list(held.take(torch.cat([c[at:upto] for c in columns])).split(upto - at)))
                    at = upto
                    if at == ends[number]:
                        reader.release()
                        held, number = None, number + 1
                yield as_stored(self._together([part[i] for i in range(len(columns)) for part in parts]))
            whole = True
        finally:
            if not (whole and then):
                self.close()

    def _together(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts) if parts else new_buffer(self.dataset, 0, self.device)

    def _reader(self, chunks: Sequence[Chunk], then: Sequence[Chunk]) -> ChunkReader:
        """Return a reader that has these chunks coming: the one that read ahead, if it did so for them."""
        cells = max([self._buffer_cells(self.chunk or 1), *(c.cells for c in (*chunks, *then))])
        reader = self._readers[0] if self._readers else None
        same = reader is not None and reader.cells >= cells and len(reader.coming) == len(chunks)
        if reader is None or not (same and all(np.array_equal(a.spans, b.spans) for a, b in zip(reader.coming, chunks, strict=True))):
            self.close()
            reader = ChunkReader(self.dataset, self.device, cells, self.rate)
            self._readers.append(reader)
            reader.add(chunks)
        reader.add(then)
        return reader

    def close(self) -> None:
        """End the thread that reads chunks ahead, if one is there."""
        while self._readers:
            self._readers.pop().close()

    def slow(self, elapsed: float, steps: int) -> str | None:
        """Say, once, that reading holds the work up.

        Parameters
        ----------
        elapsed : float
            Seconds since the work began.
        steps : int
            Batches since then.

        Returns
        -------
        str or None
            What to print: only after some tens of steps, some seconds and, in chunks, the second chunk, when more than a tenth
            of the time was waiting. What the first batch waited for is not counted.
        """
        share = (self.waited - self._wait.first) / max(elapsed - self._wait.first, 1e-9)
        early = steps < _SLOW_STEPS or elapsed - self._wait.first < _SLOW_SECONDS or (self.mode == "chunked" and not self._changes)
        if self._warned or early or share <= _SLOW_SHARE:
            return None
        self._warned = True
        return (
            f"The disk is slower than the work: {share:.0%} of the time was waiting for crops, which came at "
            f"{self.rate.mb_per_second:.0f} MB/s from {self.dataset.folder}. Put the run on a faster disk (--runs DIR), "
            "or work where memory holds the crops."
        )


def _stop_all(readers: list[ChunkReader]) -> None:
    for reader in readers:
        reader.stop()


def even(total: int, size: int) -> np.ndarray:
    """Return where batches of one size begin and end, (batches + 1,); the last one is smaller."""
    return np.minimum(np.arange(-(-total // size) + 1) * size, total)
