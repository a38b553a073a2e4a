"""Compute a baseline by its name: the one door through which a run reaches them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pci_core import device as devices
from pci_core.baselines import Measured
from pci_core.cells import CellDataset
from pci_core.errors import unknown_name
from pci_core.names import BASELINES, parse_feature_name
from pci_core.recipe import Recipe

PER_CELL = ("classic", "cellprofiler", "designed")  # measured cell by cell, in `jobs` processes or on a cluster


def compute(
    names: Sequence[str],
    dataset: CellDataset,
    recipe: Recipe,
    group: str = "",
    *,
    vgg16_weights: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    jobs: int = -1,
    quiet: bool = False,
) -> dict[str, Measured]:
    """Compute feature sets of one family in one pass.

    Parameters
    ----------
    names : sequence of str
        Of the same family; several only of ``vgg16_…``.
    dataset : CellDataset
        (N, C, H, W) crops.
    recipe : Recipe
        Its ``preprocess``, and for ``supervised`` its ``label`` and ``training.seed``, are used.
    group : str
        Column whose values ``supervised`` keeps on one side of each split.
    vgg16_weights : Path, optional
        Instead of torch's public ImageNet file.
    device, precision : str
        See `pci_core.device`.
    jobs : int
        Processes for measurements of single cells; -1 = all cores.
    quiet : bool
        No progress bar and no printed lines.

    Returns
    -------
    dict of str to Measured
        By name; ``facts`` say what it cost (``seconds``, ``cells_per_second`` of the whole pass).
    """
    family = parse_feature_name(names[0]).family
    began = time.perf_counter()
    spec = recipe.preprocess
    if family == "vgg16":
        from pci_core.baselines.vgg16 import vgg16

        made = vgg16(dataset, spec, names, vgg16_weights, device=device, precision=precision, quiet=quiet)
    elif family == "supervised":
        from pci_core.baselines.supervised import supervised

        made = {
            family: supervised(
                dataset, spec, recipe.label, group, seed=recipe.training.seed, device=device, precision=precision, quiet=quiet
            )
        }
    elif family == "classic":
        from pci_core.baselines.classic import classic

        made = {family: classic(dataset, spec, jobs=jobs, quiet=quiet)}
    elif family == "cellprofiler":
        from pci_core.baselines.cellprofiler import cellprofiler

        made = {family: cellprofiler(dataset, spec, jobs=jobs, quiet=quiet)}
    elif family == "designed":
        from pci_core.baselines.designed import designed

        made = {family: designed(dataset, spec, jobs=jobs, quiet=quiet)}
    elif family == "pixels":
        from pci_core.baselines.pixels import pixels

        made = {family: pixels(dataset, spec)}
    elif family == "provided":
        from pci_core.baselines.provided import provided

        made = {family: provided(dataset)}
    else:
        raise unknown_name("baseline", family, (*BASELINES, "vgg16"))
    seconds = time.perf_counter() - began
    where = devices.choose_device(device)
    cost = {
        "seconds": seconds,
        "cells_per_second": len(dataset) / seconds,
        "hardware": devices.describe(where, devices.choose_precision(where, precision)),
    }
    return {name: replace(m, facts={"layer": "", "pooling": "", **m.facts, **cost}) for name, m in made.items()}
