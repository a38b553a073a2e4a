"""PairSampler: a target for every source cell, from the same image, never itself ("Sampling Pairs").

Images, or other sets of cells (see `pci_core.sets`), are ranges of positions, so drawing is a few tensor operations: the
target is the source moved on by 1 … n - 1 places inside its image, each with the same probability.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pci_core.drawing import CANDIDATES, PAPER, Drawing, equal_shares, farthest, spread_sources
from pci_core.errors import SamplingError
from pci_core.sets import Sets


@dataclass(frozen=True)
class Chunk:
    """Whole images whose pairs follow one another in an epoch, so that they are in memory together.

    Attributes
    ----------
    begin : int
        Position in the epoch of the first of these pairs; the last one's is before the next chunk's first.
    spans : ndarray
        (k, 2) int64: ranges of rows of the dataset, ascending, neighbours joined.
    """

    begin: int
    spans: np.ndarray

    @property
    def cells(self) -> int:
        """Number of cells; also of pairs, where every cell is a source once."""
        return int((self.spans[:, 1] - self.spans[:, 0]).sum())


@dataclass(frozen=True)
class Pairs:
    """One epoch of pairs, in training order.

    Attributes
    ----------
    source, target : Tensor
        (N,) int64 rows of the dataset.
    flips : Tensor
        (N, 4) bool: vertical and horizontal flip of the source, then of the target.
    chunks : tuple of Chunk
        Where the epoch's chunks begin and which rows they need; empty where the order has none, and in batches.
    group : Tensor
        (N,) int64: a number for each image (or other set of cells that are paired), the same for all its pairs; empty where not given.
    """

    source: Tensor
    target: Tensor
    flips: Tensor
    chunks: tuple[Chunk, ...] = ()
    group: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.source)

    def part(self, cut: slice) -> Pairs:
        """Return some of the pairs, without chunks."""
        return Pairs(self.source[cut], self.target[cut], self.flips[cut], group=self.group[cut])

    def batches(self, size: int, start: int = 0) -> Iterator[Pairs]:
        """Yield batches of `size` pairs, the last one smaller, from batch number `start` on."""
        for i in range(start * size, len(self), size):
            yield self.part(slice(i, i + size))


class PairSampler:
    """Draw source-target pairs, vectorised on the device.

    Parameters
    ----------
    starts : array of int or Sets
        (images + 1,): image i is the rows ``starts[i]:starts[i + 1]``. Or sets of cells that are paired, which then count as images.
    images : array of int, optional
        Which images to draw from; all by default.
    device : str or torch.device
        Where to draw and to keep the index: 25 bytes a cell, 94 while an epoch is drawn; twice that for sets that are no images or
        `drawing` other than the paper's, whose shapes are kept there, too.
    drawing : Drawing
        What is done otherwise than in the paper.
    pairs : int, optional
        Pairs of an epoch; by default as many as there are cells. Other numbers need ``weigh = "images"``.

    Attributes
    ----------
    cells : int
        Number of sources, and so of pairs, of an epoch.
    left_out : int
        Number of images left out because they hold a single cell, which has no partner.

    Raises
    ------
    SamplingError
        No image has two cells.
    """

    def __init__(
        self,
        starts: np.ndarray | Sets,
        images: np.ndarray | None = None,
        device: str | torch.device = "cpu",
        drawing: Drawing = PAPER,
        pairs: int | None = None,
    ) -> None:
        sets = Sets.of(starts)
        starts, counts = sets.starts, sets.counts
        images = np.arange(len(counts)) if images is None else np.sort(np.asarray(images, np.int64))
        usable = with_partners(sets, images)
        self.left_out = len(images) - len(usable)
        first = np.repeat(starts[usable], counts[usable])
        count = np.repeat(counts[usable], counts[usable])
        within = np.arange(len(first)) - np.repeat(np.cumsum(counts[usable]) - counts[usable], counts[usable])
        self.device = torch.device(device)
        self.first, self.count = torch.from_numpy(first).to(self.device), torch.from_numpy(count).to(self.device)
        self.within = torch.from_numpy(within).to(self.device)
        self.cells = len(first) if pairs is None else pairs
        self._sets, self._usable, self._count, self._equal = sets, usable, counts[usable], drawing.weigh == "images"
        if self.cells != len(first) and not self._equal:
            raise SamplingError(
                f"{pairs} pairs of {len(first)} cells: where every cell is a source once, there are as many pairs as cells."
            )
        self._rows = None if sets.rows is None else torch.from_numpy(sets.rows).to(self.device)
        self._shapes = None if drawing.shapes is None else torch.from_numpy(drawing.shapes).to(self.device)

    def chunks(self, seed: int, epoch: int, chunk: int) -> tuple[Chunk, ...]:
        """Put the images into a random order and cut it into chunks of whole images.

        Parameters
        ----------
        seed, epoch : int
            Of the training run.
        chunk : int
            Cells of a chunk at most; an image with more is a chunk of its own.

        Returns
        -------
        tuple of Chunk
            Each image in one; images of a single cell are in none.

        Raises
        ------
        SamplingError
            `chunk` is below 1.
        """
        return tuple(self._cut(seed, epoch, chunk)[0])

    def _cut(self, seed: int, epoch: int, chunk: int) -> tuple[list[Chunk], np.ndarray]:
        """Return the chunks, and for each image the number of its chunk."""
        if chunk < 1:
            raise SamplingError(f"a chunk holds at least one cell, found {chunk}. Leave it out to draw over all images at once.")
        order = np.random.default_rng([seed, epoch, 0xC4]).permutation(len(self._count))  # on the CPU: the same on every device
        ends, pairs = np.cumsum(self._count[order]), np.cumsum(self._shares(seed, epoch)[order])
        number = np.empty(len(order), np.int32)
        out: list[Chunk] = []
        first, cells, begin = 0, 0, 0
        while first < len(order):
            last = max(first + 1, int(np.searchsorted(ends, cells + chunk, "right")))
            number[order[first:last]] = len(out)
            out.append(Chunk(begin, self._sets.spans(self._usable[order[first:last]])))
            first, cells, begin = last, int(ends[last - 1]), int(pairs[last - 1])
        return out, number

    def _shares(self, seed: int, epoch: int) -> np.ndarray:
        """Return the number of sources that each image gives."""
        return equal_shares(len(self._count), self.cells, seed, epoch) if self._equal else self._count

    def epoch(self, seed: int, epoch: int, chunk: int | None = None) -> Pairs:
        """Draw one epoch: every cell once as a source (or each image equally often), in random order, each with a fresh target.

        The draw depends on `seed`, `epoch` and `chunk` alone, so that a cut run resumes inside an epoch.

        Parameters
        ----------
        seed, epoch : int
            Of the training run.
        chunk : int, optional
            Keep the pairs of a chunk of whole images together (see `chunks`): chunk after chunk, in random order
            within each. By default the order is random over all cells.

        Returns
        -------
        Pairs

        Raises
        ------
        SamplingError
            `chunk` is below 1.
        """
        generator = torch.Generator(self.device)
        generator.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1))
        order = torch.randperm(self.cells, generator=generator, device=self.device)
        if self._equal:
            order = spread_sources(self._count, self._shares(seed, epoch), seed, epoch, self.device)[order]
        chunks: list[Chunk] = []
        if chunk is not None:
            chunks, number = self._cut(seed, epoch, chunk)
            of_cell = torch.from_numpy(np.repeat(number, self._count)).to(self.device)
            order = order[torch.sort(of_cell[order], stable=True).indices]  # stable: within a chunk the order stays the random one
        first, count, within = self.first[order], self.count[order], self.within[order]
        # 62 random bits modulo n - 1: the bias is below n / 2^62
        tries = 1 if self._shapes is None else CANDIDATES
        draws = torch.randint(0, 2**62, (self.cells * tries,), generator=generator, device=self.device).view(-1, tries)
        flips = torch.randint(0, 2, (self.cells, 4), generator=generator, device=self.device, dtype=torch.uint8).bool()
        first, count, within = first[:, None], count[:, None], within[:, None]
        source, targets = self._row(first + within)[:, 0], self._row(first + (within + draws % (count - 1) + 1) % count)
        target = targets[:, 0] if self._shapes is None else farthest(self._shapes, source, targets)
        return Pairs(source, target, flips, tuple(chunks), first[:, 0])

    def _row(self, position: Tensor) -> Tensor:
        return position if self._rows is None else self._rows[position]


def with_partners(sets: Sets, images: np.ndarray) -> np.ndarray:
    """Return those of some images, or other sets, that have two cells, in the same order.

    Raises
    ------
    SamplingError
        There are none.
    """
    usable = np.asarray(images[sets.counts[images] >= 2])
    if not len(usable):
        raise SamplingError(
            f"none of the {len(images)} {sets.noun} has two cells, so there is no pair to draw. Check the column '{sets.column}'."
        )
    return usable


def split_images(n: int, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide images into those to train on and those to hold out.

    Parameters
    ----------
    n : int
        Number of images.
    holdout : float
        Share to hold out, in [0, 1); at least one image if above 0.
    seed : int
        Of the division.

    Returns
    -------
    train, held_out : ndarray of int
        Image numbers, sorted, without overlap.
    """
    order = np.random.default_rng([seed, 0x5EED]).permutation(n)
    k = 0 if holdout <= 0 else min(n - 1, max(1, round(n * holdout)))
    return np.sort(order[k:]), np.sort(order[:k])
