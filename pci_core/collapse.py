"""Tell a training whose features become the same for all cells, while it runs: nothing that such a network gives is worth anything."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pci_core.cells import CellDataset
from pci_core.errors import TrainingError
from pci_core.networks import Model
from pci_core.preprocess import preprocess
from pci_core.recipe import Preprocess
from pci_core.sets import Sets

CELLS = 256  # looked at; a standard deviation of as many is known to 4 %
EVERY = 200  # batches between two looks: one costs less than two batches
LEAST = 1e-3  # of a feature's size: an untrained network has some tenths


def spread(features: Tensor) -> float:
    """Return the standard deviation of features over cells, (N, D), as a share of their size (root mean square).

    0: all cells have the same; NaN where a value is not finite.
    """
    x = features.double()
    size = x.square().mean().sqrt()
    return float(x.std(0, correction=0).square().mean().sqrt() / size) if float(size) != 0 else 0.0


class Watch:
    """Look at some cells of a training from time to time.

    Parameters
    ----------
    dataset : CellDataset
    images : ndarray of int
        Trained on; the cells are of as many of them as there are.
    spec : Preprocess
    device : torch.device
    pretext : str
        For the message.
    sets : Sets, optional
        What `images` are numbers of where cells of other sets are paired.
    """

    def __init__(
        self, dataset: CellDataset, images: np.ndarray, spec: Preprocess, device: torch.device, pretext: str, sets: Sets | None = None
    ) -> None:
        sets = sets or Sets.of(dataset.starts)
        some = images[np.unique(np.linspace(0, len(images) - 1, CELLS).round().astype(np.int64))]
        first, count = sets.starts[some], sets.counts[some]
        rows = np.concatenate([first + k for k in range(-(-CELLS // len(some)))])
        ends = np.tile(first + count, -(-CELLS // len(some)))
        rows = rows[rows < ends][:CELLS]
        self.rows = np.sort(rows if sets.rows is None else sets.rows[rows])
        self._raw = torch.from_numpy(dataset.read(self.rows))
        self._spec, self._device, self._n_protein, self._pretext = spec, device, dataset.n_protein, pretext

    @torch.no_grad()
    def spread(self, model: Model) -> float:
        """Return the `spread` of the last layer's pooled features; the network is left as it was."""
        training = model.training
        model.eval()
        parts = [
            model.source.features(preprocess(raw.to(self._device), self._spec, self._n_protein), ("conv5",))["conv5"]
            for raw in self._raw.split(64)
        ]
        model.train(training)
        return spread(torch.cat(parts).cpu())

    def look(self, model: Model, when: str) -> float:
        """Return the `spread`, and refuse one that is none.

        Raises
        ------
        TrainingError
            The features are the same for all cells, or not finite.
        """
        found = self.spread(model)
        if found >= LEAST or len(self.rows) < 2:
            return found
        what = (
            f"collapsed: the features of {len(self.rows)} cells differ by {found:.1g} of their size"
            if found == found
            else "diverged: features are no finite numbers"
        )
        raise TrainingError(
            f"{when}: the network of pretext '{self._pretext}' has {what}, so it tells no cells apart. The last checkpoint is kept. Delete "
            "it and train again with a smaller [training] learning_rate, a larger batch_size, or another pretext ('inpainting' cannot give "
            "every cell the same features and still paint)."
        )
