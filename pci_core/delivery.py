"""Batches of pairs with their crops: what `ShardedSampler` draws, through a `Feed` for each shard of this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import torch
from torch import Tensor

from pci_core.cells import CellDataset
from pci_core.chunks import as_stored, new_buffer
from pci_core.distributed import World
from pci_core.feed import Feed
from pci_core.pairs import Pairs
from pci_core.shards import ShardedSampler, joined


class Delivery:
    """Deliver this process' part of each batch of a training.

    Parameters
    ----------
    dataset : CellDataset
    sampler : ShardedSampler
        Whose own shards are delivered; each feed reads and holds the images of its shard only.
    device : torch.device
    mode : str
        See `pci_core.feed`.
    use : str
        ``"pairs"``, or ``"rows"`` for an order that has no chunks.
    chunk : int, optional
        Cells of a chunk at most; by default rank 0 chooses by its memory, and all processes take what it took.
    reserve : int
        Bytes on the device that are not for crops.
    world : World, optional
        The processes that train together.

    Attributes
    ----------
    chunk : int or None
        Taken by all shards of all processes: it is part of the order.
    told : str
        Mode and why, for a printed line.
    """

    def __init__(
        self,
        dataset: CellDataset,
        sampler: ShardedSampler,
        device: torch.device,
        mode: str = "auto",
        *,
        use: str = "pairs",
        chunk: int | None = None,
        reserve: int = 0,
        world: World | None = None,
    ) -> None:
        self.dataset, self.sampler, self.device = dataset, sampler, device
        self._feeds: list[Feed] = []
        world = world or World()
        more: dict[str, Any] = {"sets": sampler.sets, "reserve": reserve, "share": 1 / max(1, len(sampler.parts))}
        if world.is_first and sampler.parts:
            self._feeds.append(Feed(dataset, device, mode, use=use, chunk=chunk, images=sampler.parts[0], **more))
            chunk = self._feeds[0].chunk
        self.chunk: int | None = world.first(lambda: chunk)
        use = "rows" if self.chunk is None else "pairs"
        for images in sampler.parts[len(self._feeds) :]:
            self._feeds.append(Feed(dataset, device, mode, use=use, chunk=self.chunk, images=images, **more))
        self.told = self._feeds[0].told if self._feeds else "none"
        self._settings: dict[str, Any] = {"mode": mode, "use": use, "chunk": self.chunk, "reserve": reserve}

    def of(self, sampler: ShardedSampler) -> Delivery:
        """Return a delivery of other shards in the same order of chunks; this one ends."""
        for feed in self._feeds:
            feed.close()
        self._feeds.clear()
        return Delivery(self.dataset, sampler, self.device, **self._settings)

    @property
    def order(self) -> dict[str, int | None]:
        """What the order of the pairs depends on beside the recipe, to be kept in a checkpoint."""
        return {"shards": self.sampler.shards, "chunk": self.chunk}

    @property
    def waited(self) -> float:
        """Seconds that the work has stood still for crops so far."""
        return sum(feed.waited for feed in self._feeds)

    def slow(self, elapsed: float, steps: int) -> str | None:
        """Say, once, that reading holds the work up, see `Feed.slow`."""
        return self._feeds[0].slow(elapsed, steps) if self._feeds else None

    def batches(self, epoch: int, start: int = 0, *, last: bool = True) -> Iterator[tuple[Pairs, Tensor, int]]:
        """Yield the own part of each batch of an epoch.

        Parameters
        ----------
        epoch : int
        start : int
            Number of the batch to begin with.
        last : bool
            Whether no other epoch follows, whose first chunks could be read ahead.

        Yields
        ------
        pairs : Pairs
            May be empty where a shard has none in this batch.
        crops : Tensor
            (2 N, C, H, W) as stored, on the device: the sources, then the targets.
        whole : int
            Pairs of the whole batch, over all processes.
        """
        drawn, bounds = self.sampler.draw(epoch, self.chunk), self.sampler.bounds
        ahead = [()] * len(drawn) if last or self.chunk is None else self.sampler.chunks(epoch + 1, self.chunk)
        with ExitStack() as stack:
            streams = [
                stack.enter_context(closing(feed.pairs(pairs, cuts, start, then)))
                for feed, pairs, cuts, then in zip(self._feeds, drawn, bounds, ahead, strict=True)
            ]
            for step in range(start, self.sampler.steps):
                parts = [next(stream) for stream in streams]
                yield joined([pairs for pairs, _ in parts]), self._together([crops for _, crops in parts]), self.sampler.size(step)
            for stream in streams:  # to its end: what was read ahead is kept for the next epoch
                next(stream, None)

    def _together(self, parts: list[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return as_stored(new_buffer(self.dataset, 0, self.device))
        halves = [part.tensor_split(2) for part in parts]
        return torch.cat([half[i] for i in (0, 1) for half in halves])
