"""Paint proteins into cells with a trained network: for looking, not for features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pci_core import device as devices
from pci_core.cells import CellDataset
from pci_core.errors import CheckpointError
from pci_core.model import PairedCellInpainting
from pci_core.networks import Model
from pci_core.preprocess import preprocess
from pci_core.recipe import Preprocess


@dataclass(frozen=True)
class Painted:
    """Pairs and what the network painted.

    Attributes
    ----------
    source, target : ndarray
        (N, C, H, W) float32 in [0, 1], whole crops, protein first.
    painted : ndarray
        (N, n_protein, H, W) float32: the protein predicted for the target.
    """

    source: np.ndarray
    target: np.ndarray
    painted: np.ndarray


def paint(
    model: Model, dataset: CellDataset, sources: np.ndarray, targets: np.ndarray, spec: Preprocess, *, device: str = "auto"
) -> Painted:
    """Predict the protein of the target cells from the source cells, without flips, in float32.

    Parameters
    ----------
    model : PairedCellInpainting
        Trained; an autoencoder cannot paint another cell.
    dataset : CellDataset
        Where both cells are.
    sources, targets : ndarray of int
        (N,) rows; they may be of different images (the paper's supplementary figure 1).
    spec : Preprocess
        As in training.
    device : str
        See `pci_core.device`.

    Returns
    -------
    Painted

    Raises
    ------
    CheckpointError
        The model is no `PairedCellInpainting`.
    """
    if not isinstance(model, PairedCellInpainting):
        raise CheckpointError(f"only a 'pci' model paints the protein of another cell; this one is '{model.pretext or model.kind}'.")
    where = devices.choose_device(device)
    model = model.to(where).eval()
    with torch.inference_mode():
        crops = [preprocess(torch.from_numpy(dataset.read(rows)).to(where), spec, dataset.n_protein) for rows in (sources, targets)]
        painted = model(crops[0], crops[1][:, dataset.n_protein :])
    return Painted(crops[0].cpu().numpy(), crops[1].cpu().numpy(), painted.cpu().numpy())


def pairs_to_show(dataset: CellDataset, n: int, seed: int, label: str, mismatched: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Choose pairs for a figure, as different in label as the data allow.

    Parameters
    ----------
    dataset : CellDataset
        Images with at least two cells.
    n : int
        Number of pairs.
    seed : int
        Of the choice.
    label : str
        Column of the table; sources take different values of it in turn.
    mismatched : bool
        Take the target from an image of another label, a pair that training never shows.

    Returns
    -------
    sources, targets : ndarray of int
        (n,) rows.
    """
    rng = np.random.default_rng(seed)
    counts = np.diff(dataset.starts)
    images = rng.permutation(np.flatnonzero(counts >= 2))
    labels = dataset.table[label].astype(str).to_numpy()[dataset.starts[:-1]]
    plain = np.array([";" not in labels[i] for i in images])
    images = images[plain] if plain.any() else images  # one term a picture is easier to judge
    order = np.argsort([np.count_nonzero(labels[images[:i]] == labels[image]) for i, image in enumerate(images)], kind="stable")
    chosen = np.resize(images[order], n)
    sources, targets = np.empty(n, np.int64), np.empty(n, np.int64)
    for i, image in enumerate(chosen):
        sources[i], targets[i] = dataset.starts[image] + rng.choice(counts[image], 2, replace=False)
        if mismatched:
            others = images[labels[images] != labels[image]]
            other = rng.choice(others if len(others) else images)
            targets[i] = dataset.starts[other] + rng.integers(counts[other])
    return sources, targets
