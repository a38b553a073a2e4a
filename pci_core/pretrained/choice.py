"""Which weights a recipe takes for which kind of network, and what that adds to the names of what is made with them."""

from __future__ import annotations

from pathlib import Path

import torch

from pci_core import pretrained
from pci_core.recipe import Recipe
from pci_core.storage import as_file_name


def weights_of(recipe: Recipe, kind: str, *, shipped: bool = True, progress: bool = False) -> pretrained.Weights | None:
    """Return the weights that a recipe names for a kind of network; None: it is to be trained on the recipe's cells.

    Parameters
    ----------
    recipe : Recipe
        ``training.pretrained``.
    kind : str
        ``"pci"`` or ``"autoencoder"``.
    shipped : bool
        Whether shipped ones count: they are encoders alone.
    progress : bool
        Show a progress bar while downloading.

    Raises
    ------
    UnknownNameError, CheckpointError, DownloadError
        See `pci_core.pretrained.find`.
    """
    named = recipe.training.pretrained
    if not pretrained.holds(named, kind, recipe.folder) or (named in pretrained.names() and not shipped):
        return None
    return pretrained.find(named, kind, recipe.folder, progress)


def start_of(recipe: Recipe, kind: str, *, progress: bool = False) -> dict[str, torch.Tensor] | None:
    """Return the encoder weights that a training of the recipe starts from, None where it starts at random.

    Raises
    ------
    UnknownNameError, CheckpointError, DownloadError
        See `pci_core.pretrained.find` and `pci_core.pretrained.load_fitting`.
    """
    if not recipe.training.start:
        return None
    given = pretrained.find(recipe.training.start, kind, recipe.folder, progress)
    return pretrained.load_fitting(given.path, given.name, recipe)[0].state_dict()


def suffix(recipe: Recipe, base: Recipe, kind: str, scratch: str) -> str:
    """Return what is added to the name of a feature set: nothing where the weights are the base recipe's own choice.

    Parameters
    ----------
    recipe : Recipe
        As it is used.
    base : Recipe
        As it was given, before a call changed ``training``.
    kind : str
        Of the network.
    scratch : str
        For a network that is trained though `base` names weights; empty where the name says already how it differs.
    """
    named, usual = recipe.training.pretrained, base.training.pretrained
    if named in (usual, pretrained.absolute(usual, base.folder)):
        return ""
    if not named:
        return scratch if usual else ""
    if pretrained.holds(named, kind, recipe.folder):
        return f"+weights={as_file_name(Path(named).stem) if pretrained.is_file(named) else named}"
    return scratch if pretrained.holds(usual, kind, base.folder) else ""
