"""Networks by name: the paper's two, and those of the other pretext tasks."""

from __future__ import annotations

from typing import Any

import torch

from pci_core.errors import unknown_name
from pci_core.model import Autoencoder, PairedCellInpainting
from pci_core.pretext.both import InpaintingContrast
from pci_core.pretext.contrast import Contrast
from pci_core.pretext.redundancy import Redundancy
from pci_core.recipe import Training

Model = PairedCellInpainting | Autoencoder | Contrast | Redundancy
KINDS = ("pci", "autoencoder")
PRETEXTS: dict[str, type[PairedCellInpainting] | type[Contrast] | type[Redundancy]] = {
    "inpainting": PairedCellInpainting,
    "contrast": Contrast,
    "redundancy": Redundancy,
    "inpainting+contrast": InpaintingContrast,
}


def build(
    kind: str,
    n_protein: int,
    n_structural: int,
    width: float = 1.0,
    seed: int | None = None,
    *,
    pretext: str = "inpainting",
    encoder: str = "paper",
    loss: str = "mse",
) -> Model:
    """Build a network by name with reproducible initial weights.

    Parameters
    ----------
    kind : str
        ``"pci"``, what learns from pairs, or ``"autoencoder"``.
    n_protein, n_structural, width
        See `pci_core.model.PairedCellInpainting`.
    seed : int or None
        Seed of the initial weights; None uses torch's global state.
    pretext, encoder, loss : str
        See [training] of a recipe, `pci_core.recipe.Training`; an autoencoder has the encoder alone.
    """
    if kind not in KINDS:
        raise unknown_name("model", kind, KINDS)
    if pretext not in PRETEXTS:
        raise unknown_name("pretext", pretext, PRETEXTS)
    more: dict[str, Any] = {"encoder": encoder} | ({"loss": loss} if kind == "pci" and pretext.startswith("inpainting") else {})
    network = Autoencoder if kind == "autoencoder" else PRETEXTS[pretext]
    if seed is None:
        return network(n_protein, n_structural, width, **more)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network(n_protein, n_structural, width, **more)


def build_for(kind: str, n_protein: int, n_structural: int, spec: Training) -> Model:
    """Build the network that a recipe's [training] asks for."""
    return build(kind, n_protein, n_structural, spec.width, spec.seed, pretext=spec.pretext, encoder=spec.encoder, loss=spec.loss)
