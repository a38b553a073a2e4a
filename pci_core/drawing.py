"""How pairs are drawn where a recipe wants it otherwise than the paper: each image equally often, and targets far in shape.

The paper takes every cell as a source once an epoch and any other cell of its image as the target. A large image then rules, and
most targets look much like their source. Both are choices of a recipe, ``weigh`` and ``targets`` in [training].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CANDIDATES = 4  # targets drawn for a source, of which the farthest is taken: harder than chance, and not always the one odd cell
_BLOCK = 65_536  # pairs compared at once: bounds the memory to some tens of MB
_EXTRA, _ORDER = 0xE87A, 0x0D3  # tell the draws below from one another and from the sampler's own


@dataclass(frozen=True)
class Drawing:
    """What a `PairSampler` does otherwise than the paper; the defaults are the paper's.

    Attributes
    ----------
    weigh : str
        ``"cells"``: every cell is a source once an epoch. ``"images"``: every image (or other set of cells that are paired)
        gives equally many sources, to within one.
    shapes : ndarray or None
        (N, D) float32, a descriptor for each row of the dataset, see `pci_core.shape`: the target is the one of `CANDIDATES`
        random ones that is farthest from the source. None: one random target.
    """

    weigh: str = "cells"
    shapes: np.ndarray | None = None


PAPER = Drawing()


def equal_shares(sets: int, pairs: int, seed: int, epoch: int) -> np.ndarray:
    """Share an epoch's sources out over sets: each as many, and those that are left over to some drawn at random.

    Parameters
    ----------
    sets, pairs : int
    seed, epoch : int
        Of the training run.

    Returns
    -------
    ndarray
        (sets,) int64, which sum to `pairs` and differ by at most one.
    """
    shares = np.full(sets, pairs // sets, np.int64)
    shares[np.random.default_rng([seed, epoch, _EXTRA]).permutation(sets)[: pairs % sets]] += 1
    return shares


def shard_shares(sets: np.ndarray, pairs: int) -> np.ndarray:
    """Share an epoch's sources out over shards of some sets each, so that `equal_shares` within them is equal over all of them, too.

    Parameters
    ----------
    sets : ndarray of int
        (shards,) number of sets of each.
    pairs : int

    Returns
    -------
    ndarray
        (shards,) int64, which sum to `pairs`: the exact share rounded up or down. A set's share then lies between the whole
        numbers next to ``pairs / sum(sets)`` in every shard.
    """
    exact = sets * pairs  # over sum(sets), in whole numbers
    shares = exact // sets.sum()
    up = np.argsort(-(exact % sets.sum()), kind="stable")[: pairs - shares.sum()]
    shares[up] += 1
    return np.asarray(shares, np.int64)


def spread_sources(count: np.ndarray, shares: np.ndarray, seed: int, epoch: int, device: torch.device) -> Tensor:
    """Choose the sources of an epoch, set after set, the cells of each as evenly as its share allows.

    A set's cells stand in a random order that is the same in every epoch; each epoch goes on where the one before ended. So a cell
    of a large image waits for its turn and is not left to chance, and in one epoch two cells of a set differ by at most one.

    Parameters
    ----------
    count : ndarray of int
        (sets,) cells of each set.
    shares : ndarray of int
        (sets,) sources that each gives, see `equal_shares`.
    seed, epoch : int
        Of the training run.
    device : torch.device

    Returns
    -------
    Tensor
        (sum(shares),) int64 numbers of cells, counted through the sets.
    """
    generator = torch.Generator(device)
    generator.manual_seed(int(np.random.SeedSequence([seed, _ORDER]).generate_state(1, np.uint64)[0] >> 1))
    cells = int(count.sum())
    order = torch.randperm(cells, generator=generator, device=device)
    of_cell = torch.from_numpy(np.repeat(np.arange(len(count)), count)).to(device)
    order = order[torch.sort(of_cell[order], stable=True).indices]
    total = int(shares.sum())
    begin, size, share = (torch.from_numpy(np.asarray(v, np.int64)).to(device) for v in (np.cumsum(count) - count, count, shares))
    number = torch.repeat_interleave(torch.arange(len(count), device=device), share, output_size=total)
    turn = torch.arange(total, device=device) - (torch.cumsum(share, 0) - share)[number] + epoch * (total // len(count))
    return order[begin[number] + turn % size[number]]


def farthest(shapes: Tensor, source: Tensor, candidates: Tensor) -> Tensor:
    """Return for each source the candidate that differs most in shape; the first of equal ones.

    Parameters
    ----------
    shapes : Tensor
        (rows, D) float32, each column on the same scale.
    source : Tensor
        (N,) int64 rows.
    candidates : Tensor
        (N, k) int64 rows.

    Returns
    -------
    Tensor
        (N,) int64 rows.
    """
    out = []
    for own, others in zip(source.split(_BLOCK), candidates.split(_BLOCK), strict=True):
        distance = (shapes[others] - shapes[own][:, None]).square().sum(2)
        out.append(others.gather(1, distance.argmax(1, keepdim=True))[:, 0])
    return torch.cat(out)
