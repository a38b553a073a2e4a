"""PairSampler: a target for every source cell, from the same image, never itself ("Sampling Pairs").

Images are ranges of rows (see `CellDataset.starts`), so drawing is a few tensor operations: the
target is the source moved on by 1 … n - 1 places inside its image, each with the same probability.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pci_core.errors import SamplingError


@dataclass(frozen=True)
class Chunk:
    """Whole images whose pairs follow one another in an epoch, so that they are in memory together.

    Attributes
    ----------
    begin : int
        Position in the epoch of the first of these pairs.
    spans : ndarray
        (k, 2) int64: ranges of rows of the dataset, ascending, neighbours joined.
    """

    begin: int
    spans: np.ndarray

    @property
    def cells(self) -> int:
        """Number of cells, which is also the number of pairs."""
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
    starts : array of int
        (images + 1,): image i is the rows ``starts[i]:starts[i + 1]``.
    images : array of int, optional
        Which images to draw from; all by default.
    device : str or torch.device
        Where to draw and to keep the index: 25 bytes a cell, 94 while an epoch is drawn.

    Attributes
    ----------
    cells : int
        Number of source cells of an epoch.
    left_out : int
        Number of images left out because they hold a single cell, which has no partner.

    Raises
    ------
    SamplingError
        No image has two cells.
    """

    def __init__(self, starts: np.ndarray, images: np.ndarray | None = None, device: str | torch.device = "cpu") -> None:
        starts = np.asarray(starts, np.int64)
        counts = np.diff(starts)
        images = np.arange(len(counts)) if images is None else np.sort(np.asarray(images, np.int64))
        usable = images[counts[images] >= 2]
        self.left_out = len(images) - len(usable)
        if not len(usable):
            raise SamplingError(f"none of the {len(images)} images has two cells, so there is no pair to draw. Check the column 'image'.")
        first = np.repeat(starts[usable], counts[usable])
        count = np.repeat(counts[usable], counts[usable])
        within = np.arange(len(first)) - np.repeat(np.cumsum(counts[usable]) - counts[usable], counts[usable])
        self.device = torch.device(device)
        self.first, self.count = torch.from_numpy(first).to(self.device), torch.from_numpy(count).to(self.device)
        self.within = torch.from_numpy(within).to(self.device)
        self.cells = len(first)
        self._begin, self._count = starts[usable], counts[usable]  # of images, for chunks

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
            Each image once; images of a single cell are in none.

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
        ends = np.cumsum(self._count[order])
        number = np.empty(len(order), np.int32)
        out: list[Chunk] = []
        first, begin = 0, 0
        while first < len(order):
            last = max(first + 1, int(np.searchsorted(ends, begin + chunk, "right")))
            number[order[first:last]] = len(out)
            images = np.sort(order[first:last])
            low, high = self._begin[images], self._begin[images] + self._count[images]
            apart = np.flatnonzero(low[1:] != high[:-1])
            spans = np.stack([low[np.concatenate([[0], apart + 1])], high[np.concatenate([apart, [-1]])]], 1)
            out.append(Chunk(begin, spans))
            first, begin = last, int(ends[last - 1])
        return out, number

    def epoch(self, seed: int, epoch: int, chunk: int | None = None) -> Pairs:
        """Draw one epoch: every cell once as a source, in random order, each with a fresh target.

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
        chunks: list[Chunk] = []
        if chunk is not None:
            chunks, number = self._cut(seed, epoch, chunk)
            of_cell = torch.from_numpy(np.repeat(number, self._count)).to(self.device)
            order = order[torch.sort(of_cell[order], stable=True).indices]  # stable: within a chunk the order stays the random one
        first, count, within = self.first[order], self.count[order], self.within[order]
        # 62 random bits modulo n - 1: the bias is below n / 2^62
        step = torch.randint(0, 2**62, (self.cells,), generator=generator, device=self.device) % (count - 1) + 1
        flips = torch.randint(0, 2, (self.cells, 4), generator=generator, device=self.device, dtype=torch.uint8).bool()
        return Pairs(first + within, first + (within + step) % count, flips, tuple(chunks), first)


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
