"""Galleries of crops: one row a cluster, protein or branch."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pci_core.cells import CellDataset, Channel
from pci_core.errors import CellTableError
from pci_core.plots import style
from pci_core.plots.images import composite, scale_bar

SHOW = ("composite", "protein")


def draw_cells(dataset: CellDataset, rows: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Choose up to n of some cells, from as many images as possible: (up to n,) row numbers.

    Parameters
    ----------
    dataset : CellDataset
    rows : ndarray of int
        Rows of its table to choose from.
    n : int
    seed : int
    """
    rows = np.random.default_rng(seed).permutation(np.asarray(rows, np.int64))
    images = dataset.table["image"].to_numpy()[rows]
    turn = np.zeros(len(rows), np.int64)
    seen: dict[str, int] = {}
    for i, image in enumerate(images):
        turn[i] = seen[image] = seen.get(image, -1) + 1
    return rows[np.argsort(turn, kind="stable")][:n]


def crop_rows(
    dataset: CellDataset,
    rows: Mapping[str, np.ndarray | Sequence[int]],
    title: str,
    *,
    names: Mapping[str, Sequence[str]] | None = None,
    show: str = "composite",
    note: str = "",
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Show crops of cells, one row of pictures a group.

    Parameters
    ----------
    dataset : CellDataset
        Where the crops are read from; only those shown are.
    rows : mapping of str to sequence of int
        Rows of the dataset's table to show, by the name of the group; rows may differ in length.
    title : str
    names : mapping of str to sequence of str, optional
        Text above each crop of a group, e.g. its protein.
    show : str
        ``"composite"``: all channels in colour; ``"protein"``: the protein alone, grey on black.
    note : str
        On which cells, e.g. ``SIMULATED cells``.
    colours : mapping of str to str, optional
        Colour of each group's name.

    Raises
    ------
    CellTableError
        No crop to show, or `show` is neither.
    """
    if show not in SHOW:
        raise CellTableError(f"show='{show}' is no way to show crops; take one of {', '.join(SHOW)}.")
    groups = {name: np.asarray(r, np.int64) for name, r in rows.items() if len(r)}
    if not groups:
        raise CellTableError("no crop to show: every group is empty.")
    columns = max(len(r) for r in groups.values())
    text = any((names or {}).get(g) for g in groups)
    size = 1.0 if columns <= 10 else 0.8
    figure = Figure(figsize=(size * columns + 1.6, (size + (0.2 if text else 0.04)) * len(groups) + 0.75), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)  # type: ignore[union-attr, call-arg]
    grid = figure.subplots(len(groups), columns, squeeze=False)
    p = dataset.n_protein
    for line, (group, members) in zip(grid, groups.items(), strict=True):
        crops = dataset.read(members)
        for j, axes in enumerate(line):
            if j >= len(members):
                axes.axis("off")
                continue
            axes.imshow(_picture(crops[j], dataset.channels, p, show))
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            above = (names or {}).get(group)
            if above is not None and j < len(above):
                axes.set_title(textwrap.shorten(str(above[j]), 15, placeholder="…"), fontsize=6.5, pad=1.5)
        label = "\n".join(textwrap.wrap(group, 18))
        line[0].set_ylabel(label, fontsize=7.5, rotation=0, ha="right", va="center", color=(colours or {}).get(group, "black"))
    scale_bar(grid[0, 0], dataset.um_per_px, dataset.crops.shape[3])
    figure.suptitle(title, fontsize=10)
    shown = np.concatenate(list(groups.values()))
    table = dataset.table.iloc[shown]
    proteins = f" of {table['protein'].nunique()} proteins" if "protein" in table and (table["protein"] != "").all() else ""
    style.foot(figure, f"{len(shown)} cells{proteins}", note, _colours(dataset.channels, show), _bar(dataset))
    return figure


def _picture(crop: np.ndarray, channels: Sequence[Channel], n_protein: int, show: str) -> np.ndarray:
    if show == "composite":
        return composite(crop, channels, 0.5, 99.9)
    plane = crop[:n_protein].astype(float).max(axis=0)
    low, high = np.percentile(plane, [0.5, 99.9])
    return np.repeat(np.clip((plane - low) / max(high - low, 1e-9), 0, 1)[..., None], 3, axis=2)


def _colours(channels: Sequence[Channel], show: str) -> str:
    if show == "protein":
        return "protein channel alone, each crop stretched to its own range"
    structural = iter(("blue", "purple", "green"))
    told = [f"{c.name} {'yellow' if c.role == 'protein' else next(structural)}" for c in channels]
    return ", ".join(told) + ", each crop stretched to its own range"


def _bar(dataset: CellDataset) -> str:
    return "" if dataset.um_per_px else "scale bar in px of the crop: the source does not tell their size"
