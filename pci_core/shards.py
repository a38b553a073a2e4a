"""The images of a training in parts, so that several processes can share it without changing it.

A shard is a set of whole images with a `PairSampler` of its own. What an epoch draws depends on the number of shards and on the seed,
not on the number of processes: one process can work through all shards, or several through some each, and a training may
go on with another number of processes than it began with.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np
import torch

from pci_core.drawing import PAPER, Drawing, shard_shares
from pci_core.errors import SamplingError
from pci_core.pairs import Chunk, Pairs, PairSampler
from pci_core.sets import Sets


def divide_images(starts: np.ndarray | Sets, images: np.ndarray, shards: int, seed: int) -> list[np.ndarray]:
    """Divide images into shards with about as many cells each: the largest image first, each to the shard with the fewest cells.

    Parameters
    ----------
    starts : ndarray of int or Sets
        (images + 1,), see `CellDataset.starts`; or sets of cells that are paired, which then count as images.
    images : ndarray of int
        Those to divide; the ones with a single cell, which have no pair, are left out where there is more than one shard.
    shards : int
    seed : int
        Decides between images of the same size.

    Returns
    -------
    list of ndarray of int
        Image numbers of each shard, sorted; none is empty.

    Raises
    ------
    SamplingError
        There are fewer images with two cells than shards.
    """
    if shards == 1:
        return [images]  # as in every training before there were shards
    sets = Sets.of(starts)
    counts = sets.counts
    usable = images[counts[images] >= 2]
    if len(usable) < shards:
        raise SamplingError(
            f"{shards} shards need as many {sets.noun} with two cells to train on, here are {len(usable)}: "
            f"none of them is ever divided. Start at most {max(1, len(usable))} processes."
        )
    shuffled = np.random.default_rng([seed, 0x54A2D]).permutation(usable)
    parts: list[list[int]] = [[] for _ in range(shards)]
    filled = [(0, v) for v in range(shards)]
    for image in shuffled[np.argsort(-counts[shuffled], kind="stable")].tolist():
        cells, v = heapq.heappop(filled)
        parts[v].append(image)
        heapq.heappush(filled, (cells + int(counts[image]), v))
    return [np.sort(np.array(part, np.int64)) for part in parts]


class ShardedSampler:
    """Draw an epoch's batches, each from all shards in proportion to their cells, and hand out those of some shards.

    The pairs of a shard are spread evenly over the epoch, so that all shards end together and every batch but
    the last one is full. One shard gives exactly the batches of its `PairSampler`.

    Parameters
    ----------
    starts : ndarray of int or Sets
        (images + 1,), see `CellDataset.starts`; or sets of cells that are paired, which then count as images.
    images : ndarray of int
        To train on.
    batch_size : int
        Pairs of a batch, over all shards.
    seed : int
        Of the training.
    shards : int
        Number of parts.
    own : iterable of int, optional
        The shards whose pairs are handed out here; all by default. May be none.
    device : str or torch.device
        Where to draw.
    drawing : Drawing
        What is done otherwise than in the paper, see `pci_core.drawing`.

    Attributes
    ----------
    sets : Sets
        What `images` are numbers of.
    cells : int
        Sources of an epoch, over all shards.
    steps : int
        Batches of an epoch.
    left_out : int
        Images left out because they hold a single cell.
    parts : list of ndarray of int
        Images of each own shard.
    bounds : list of ndarray of int
        (steps + 1,) for each own shard: how many of its pairs come before each batch.

    Raises
    ------
    SamplingError
        No image has two cells, or fewer have than there are shards.
    """

    def __init__(
        self,
        starts: np.ndarray | Sets,
        images: np.ndarray,
        batch_size: int,
        seed: int,
        shards: int = 1,
        own: range | None = None,
        device: str | torch.device = "cpu",
        drawing: Drawing = PAPER,
    ) -> None:
        self.sets = Sets.of(starts)
        counts = self.sets.counts
        self.shards, self.batch_size, self.seed = shards, batch_size, seed
        self.own = range(shards) if own is None else own
        parts = divide_images(self.sets, images, shards, seed)
        self.left_out = int((counts[images] < 2).sum())
        self.parts = [parts[v] for v in self.own]
        usable = [counts[part][counts[part] >= 2] for part in parts]
        sizes = np.array([part.sum() for part in usable])
        if drawing.weigh == "images":  # a shard of many small images then gives more pairs than it has cells
            sizes = shard_shares(np.array([len(part) for part in usable]), int(sizes.sum()))
        own_sizes = [int(sizes[v]) for v in self.own]
        self._samplers = [PairSampler(self.sets, part, device, drawing, pairs) for part, pairs in zip(self.parts, own_sizes, strict=True)]
        self.cells = int(sizes.sum())
        self.steps = -(-self.cells // batch_size)
        bounds = _bounds(sizes, batch_size)
        self.bounds = [bounds[:, v] for v in self.own]

    def draw(self, epoch: int, chunk: int | None = None) -> list[Pairs]:
        """Draw an epoch of each own shard.

        The draw depends on seed, number of shards, epoch and chunk alone, so that a cut run resumes inside an epoch.
        """
        return [sampler.epoch(self._seed(v), epoch, chunk) for v, sampler in zip(self.own, self._samplers, strict=True)]

    def chunks(self, epoch: int, chunk: int) -> list[tuple[Chunk, ...]]:
        """Return the chunks of an epoch of each own shard, see `PairSampler.chunks`."""
        return [sampler.chunks(self._seed(v), epoch, chunk) for v, sampler in zip(self.own, self._samplers, strict=True)]

    def size(self, step: int) -> int:
        """Return the pairs of a whole batch, over all shards."""
        return min(self.batch_size, self.cells - step * self.batch_size)

    def batches(self, epoch: int, start: int = 0, chunk: int | None = None) -> Iterator[tuple[Pairs, int]]:
        """Yield the own part of each batch of an epoch, from batch number `start` on, and the size of the whole batch."""
        drawn = self.draw(epoch, chunk)
        for step in range(start, self.steps):
            cuts = [slice(*bounds[step : step + 2].tolist()) for bounds in self.bounds]
            yield joined([pairs.part(cut) for pairs, cut in zip(drawn, cuts, strict=True)]), self.size(step)

    def _seed(self, shard: int) -> int:
        if self.shards == 1:
            return self.seed
        return int(np.random.SeedSequence([self.seed, self.shards, shard]).generate_state(1, np.uint64)[0] >> 1)


def _bounds(sizes: np.ndarray, batch_size: int) -> np.ndarray:
    """Return how many pairs of each shard come before each batch, (batches + 1, shards) int64.

    Pair k of a shard of n stands at (k + 1/2) / n of the epoch; batches are cut from the pairs of all shards in this order.
    """
    cells = int(sizes.sum())
    steps = -(-cells // batch_size)
    if len(sizes) == 1:
        return np.minimum(np.arange(steps + 1) * batch_size, cells)[:, None]
    place = np.concatenate([(np.arange(n) + 0.5) / n for n in sizes.tolist()])
    shard = np.repeat(np.arange(len(sizes)), sizes)[np.argsort(place, kind="stable")]
    number = np.arange(cells) // batch_size
    counts = np.bincount(number * len(sizes) + shard, minlength=steps * len(sizes)).reshape(steps, len(sizes))
    return np.concatenate([np.zeros((1, len(sizes)), np.int64), np.cumsum(counts, 0)])


def joined(parts: list[Pairs]) -> Pairs:
    """Put the parts of a batch together, also of no shard at all."""
    if len(parts) == 1:
        return parts[0]
    if not parts:  # a process without a shard takes part with nothing
        none = torch.zeros(0, dtype=torch.int64)
        return Pairs(none, none, torch.zeros(0, 4, dtype=torch.bool))
    source, target, flips, group = (torch.cat([getattr(p, name) for p in parts]) for name in ("source", "target", "flips", "group"))
    return Pairs(source, target, flips, group=group)
