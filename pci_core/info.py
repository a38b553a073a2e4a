"""What a run will make, how large it is, on which device, and how long it takes: for ``pci info``."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pci_core import device as devices
from pci_core import recipe as recipes
from pci_core.data import sources
from pci_core.data.authors import toy_size
from pci_core.data.duloc import known_cells
from pci_core.data.simulate import plan_fields, simulate
from pci_core.data.table import read_field_table
from pci_core.encoders import build_encoder
from pci_core.imaging.build import field_cells
from pci_core.networks import build_for
from pci_core.recipe import Recipe
from pci_core.run import DATA_PLACE

PROBE_FIELDS = 6


@dataclass(frozen=True)
class Expected:
    """Cells to expect and how that is known."""

    cells: int
    images: int
    fields: int
    how: str
    seconds: float  # of simulating, reading, segmenting and cropping


def describe_run(
    recipe: str | os.PathLike[str],
    runs: str | os.PathLike[str] | None = None,
    device: str = "auto",
    data: str | os.PathLike[str] | None = None,
) -> str:
    """Describe a run in words and numbers; times come from a probe of a few seconds on this machine.

    Parameters
    ----------
    recipe : str or path-like
        Name of an embedded recipe or path of a TOML file.
    runs : path-like, optional
        Folder of all runs.
    device : str
        See `pci_core.device`.
    data : path-like, optional
        Where the source's files lie, instead of the recipe's own ``path``.

    Returns
    -------
    str
        Several lines.
    """
    spec = recipes.load(recipe)
    folder = Path(runs or os.environ.get("PCI_RUNS", "runs")) / spec.name
    spec = sources.located(spec, data, folder / DATA_PLACE)
    where = devices.choose_device(device)
    dtype = devices.choose_precision(where)
    devices.tune(where)
    if spec.source.kind in recipes.NEED_PATH and not spec.source_path.exists() and not (folder / "cells" / "dataset.json").exists():
        return "\n".join(
            [*_head(spec), *sources.expected_files(spec), f"  run folder    {folder}: {', '.join(_made(folder)) or 'nothing made yet'}"]
        )
    expected = _expect(spec, folder)
    trained_on = expected.cells * (1 - spec.training.holdout)
    pairs_rate, cells_rate = probe_speed(spec, where, dtype)
    wide = 4 if spec.source.kind in ("authors", "deeploc", "h5sc") else 1 if spec.fields.format == "composite" else 2
    crop = len(spec.channels) * spec.crop.resize**2 * wide
    features = sum(build_encoder(spec.training.encoder, len(spec.channels), spec.training.width).dims.values())
    lines = [
        *_head(spec),
        *(sources.expected_files(spec) if spec.source.kind == "folder" else []),
        f"  cells         {expected.cells:,} of {expected.images:,} images, {expected.how}",
        f"  training      {spec.training.epochs} epochs, batches of {spec.training.batch_size}, "
        f"width {spec.training.width:g}, {spec.training.holdout:.0%} of the images held out",
        *beyond_the_paper(spec),
        f"  device        {devices.describe(where, dtype)}",
        f"  disk          crops {_size(expected.cells * crop)}, "
        f"all five layers {_size(2 * 4 * expected.cells * features)} (.h5ad and .parquet)",
        f"  time          cells {_time(expected.seconds)}, "
        f"training {_time(trained_on * spec.training.epochs / pairs_rate)} ({pairs_rate:,.0f} pairs/s), "
        f"features {_time(expected.cells / cells_rate)} ({cells_rate:,.0f} cells/s)",
        *(
            [f"  features      of the network '{spec.training.pretrained}'; --scratch trains on the recipe's own cells"]
            if spec.training.pretrained
            else []
        ),
        f"  run folder    {folder}: {', '.join(_made(folder)) or 'nothing made yet'}",
    ]
    return "\n".join(lines)


def _head(spec: Recipe) -> list[str]:
    lines = [
        f"{spec.name}: {spec.title}{' (SIMULATED images)' if spec.simulated else ''}",
        *([f"  {spec.description}"] if spec.description else []),
        f"  channels      {', '.join(f'{c.name} ({c.role})' for c in spec.channels)}",
        f"  crops         {spec.crop.size} px cut, stored at {spec.crop.resize} px{_um(spec)}; "
        f"images with fewer than {spec.crop.min_cells} cells are left out",
    ]
    lines += [f"  reads         outside the recipe's folder: {path}" for path in recipes.read_outside(spec)]
    lines += [f"  licence       {spec.licence}"] if spec.licence else []
    return lines + ([f"  credit        {spec.credit}"] if spec.credit else [])


def beyond_the_paper(spec: Recipe) -> list[str]:
    """Return a line on what a training does otherwise than the paper's; none where it does not.

    Parameters
    ----------
    spec : Recipe

    Returns
    -------
    list of str
        At most one line: the keys of [training] that came after the paper's and are not at their default.
    """
    keys = [f for f in dataclasses.fields(spec.training) if f.metadata.get("later")]
    other = [f"{f.name} = {value}" for f in keys if (value := getattr(spec.training, f.name)) != f.default]
    twice = " (twice the training: an earlier network tells which images)" if spec.training.leave_out_varying else ""
    return [f"  not the paper {', '.join(other)}{twice}"] if other else []


def probe_speed(spec: Recipe, where: torch.device, dtype: torch.dtype, seconds: float = 2.0) -> tuple[float, float]:
    """Measure training (pairs/s) and extraction to conv5 (cells/s) on random crops for a moment."""
    n_protein = sum(c.role == "protein" for c in spec.channels)
    model = build_for("pci", n_protein, len(spec.channels) - n_protein, spec.training)
    model.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters())
    crops = torch.rand(2, spec.training.batch_size, len(spec.channels), spec.crop.resize, spec.crop.resize, device=where)
    source, target = (c.contiguous(memory_format=torch.channels_last) for c in crops)

    def step() -> None:
        with devices.autocast(where, dtype):
            loss = model.loss(source, target).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    def encode() -> None:
        with torch.inference_mode(), devices.autocast(where, dtype):
            model.source.features(source)["conv5"].sum().item()

    rates = []
    for work in (step, encode):
        work()  # the first one sets up
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            work()
            done += spec.training.batch_size
        rates.append(done / (time.perf_counter() - began))
    return rates[0], rates[1]


def _expect(spec: Recipe, folder: Path) -> Expected:
    if (folder / "cells" / "dataset.json").exists():
        from pci_core.cells import CellDataset

        made = CellDataset(folder / "cells")
        return Expected(len(made), len(made.starts) - 1, 0, "already made", 0.0)
    if spec.source.kind == "authors":
        cells, images = toy_size(spec.source.subset)
        return Expected(cells, images, 0, "crops ready made, downloaded from the authors' archive", 5.0)
    if spec.source.kind in ("deeploc", "h5sc", "subcell"):
        return Expected(*sources.ready_size(spec), 0, "crops ready made", 5.0)
    if spec.source.kind == "duloc":
        cells, images = known_cells()
        how = "from ready tiles" if spec.source.path else "single cells ready made, downloaded as 630 small files (100 MB)"
        return Expected(cells, images, 0, how, 5.0 if spec.source.path else 120.0)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        if spec.source.kind == "simulate":
            plans = plan_fields(spec.source)
            chosen = [plans[i] for i in np.linspace(0, len(plans) - 1, min(PROBE_FIELDS, len(plans))).astype(int)]
            simulate(spec.source, Path(scratch), jobs=1, progress=False, plans=chosen)
            n, images = len(plans), len({p.meta["image"] for p in plans})
            table, root = read_field_table(Path(scratch) / "fields.csv", spec)
        else:
            table, root = sources.field_table(spec)
            n, images = len(table), table["image"].nunique()
            table = table.iloc[np.linspace(0, n - 1, min(PROBE_FIELDS, n)).astype(int)]
        found = [len(field_cells({str(k): v for k, v in row.items()}, spec, str(root)).cells.crops) for row in table.to_dict("records")]
    each = (time.perf_counter() - began) / len(found)
    cores = os.cpu_count() or 1
    how = f"estimated from {len(found)} of {n:,} fields of view before images with too few cells are left out"
    return Expected(round(float(np.mean(found)) * n), images, n, how, each * n / cores)


def _um(spec: Recipe) -> str:
    if not spec.fields.um_per_px:
        return ""
    return f" ({spec.fields.um_per_px * spec.fields.downscale * spec.crop.size / spec.crop.resize:.2g} µm/px)"


def _made(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder / "steps").with_suffix("").as_posix() for p in (folder / "steps").rglob("*.json"))


def _size(n: float) -> str:
    return next(f"{n / 10**p:.1f} {unit}" for p, unit in ((9, "GB"), (6, "MB"), (0, "B")) if n >= 10**p or p == 0)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
