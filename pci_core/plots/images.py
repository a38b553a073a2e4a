"""Figures of images: fields of view, crops and pairs.

Channels are drawn in Okabe and Ito's colours, which colour-blind readers can tell apart: the
protein yellow, structural channels blue, then purple.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from skimage.segmentation import find_boundaries

from pci_core.cells import Channel
from pci_core.plots import style
from pci_core.plots.style import PROTEIN, STRUCTURAL

if TYPE_CHECKING:
    from pci_core.painting import Painted  # at run time it would load torch, which no figure needs

_Row = tuple[str, np.ndarray, Sequence[Channel]]  # name, (N, C, H, W), what its channels are


def composite(image: np.ndarray, channels: Sequence[Channel], low: float = 1.0, high: float = 99.8) -> np.ndarray:
    """Blend channels into RGB, each stretched between two percentiles of its own.

    Parameters
    ----------
    image : ndarray
        (C, H, W), any range.
    channels : sequence of Channel
        As many as the image has.
    low, high : float
        Percentiles that become black and full colour.

    Returns
    -------
    ndarray
        (H, W, 3) float in [0, 1].
    """
    out = np.zeros((*image.shape[1:], 3))
    structural = iter(STRUCTURAL)
    for plane, channel in zip(image.astype(float), channels, strict=True):
        colour = PROTEIN if channel.role == "protein" else next(structural)
        a, b = np.percentile(plane, [low, high])
        out += np.clip((plane - a) / max(b - a, 1e-9), 0, 1)[..., None] * np.array(colour) / max(colour)
    return np.clip(out, 0, 1)


def scale_bar(axes: Axes, um_per_px: float | None, width: int) -> None:
    """Draw a scale bar of about a fifth of the width, a round number of µm; px where the size is not known."""
    unit = um_per_px or 1.0
    target = width * unit / 5
    length = max((v for p in range(-1, 4) for v in (10**p, 2 * 10**p, 5 * 10**p) if v <= target), default=target)
    y, x = 0.94, 0.05
    axes.plot([x, x + length / unit / width], [y - 0.88, y - 0.88], color="white", lw=2.5, transform=axes.transAxes, solid_capstyle="butt")
    axes.text(x, y - 0.85, f"{length:g} {'µm' if um_per_px else 'px'}", color="white", fontsize=7, va="bottom", transform=axes.transAxes)


def field_of_view(
    field: np.ndarray, labels: np.ndarray, cells: pd.DataFrame, crop: int, channels: Sequence[Channel], um_per_px: float | None, title: str
) -> Figure:
    """Show a field, what the segmentation found, and the crops cut from it.

    Parameters
    ----------
    field : ndarray
        (C, H, W) as read.
    labels : ndarray
        (H, W) int: 0 background, one number a found object.
    cells : DataFrame
        The cells kept, with ``y`` and ``x`` of their centres, px.
    crop : int
        Side of a crop, px of the field.
    channels : sequence of Channel
    um_per_px : float or None
        Of the field.
    title : str
    """
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    picture = composite(field, channels)
    structural = [c for c in channels if c.role == "structural"]
    left.imshow(picture)
    outlined = composite(field[len(channels) - len(structural) :], structural)
    outlined[find_boundaries(labels)] = 1.0
    right.imshow(outlined)
    for y, x in cells[["y", "x"]].to_numpy():
        right.add_patch(Rectangle((x - crop / 2, y - crop / 2), crop, crop, fill=False, color=PROTEIN, lw=0.8))
        right.plot(x, y, "+", color=PROTEIN, ms=5)
    left.set_title(title, fontsize=9)
    right.set_title(f"{labels.max()} objects outlined, {len(cells)} crops", fontsize=9)
    for axes in (left, right):
        axes.set(xlim=(0, field.shape[2]), ylim=(field.shape[1], 0))
        axes.axis("off")
        scale_bar(axes, um_per_px, field.shape[2])
    _name_colours(figure, channels)
    style.literal(figure)
    return figure


def painted_pairs(
    pairs: Painted, channels: Sequence[Channel], names: Sequence[str], um_per_px: float | None, title: str, truth: bool = True
) -> Figure:
    """Show pairs as columns: source cell, target's structural markers, painted protein, true protein.

    Parameters
    ----------
    pairs : Painted
        What to show, up to about ten pairs.
    channels : sequence of Channel
    names : sequence of str
        One a pair, above its column.
    um_per_px : float or None
        Of the crops.
    title : str
    truth : bool
        Also show the target's own protein, which the network has not seen.
    """
    p = pairs.painted.shape[1]
    rows: list[_Row] = [
        ("source cell,\nall channels", pairs.source, channels),
        ("target cell,\nstructural", pairs.target[:, p:], channels[p:]),
    ]
    rows += [("painted\nprotein", pairs.painted, channels[:p])]
    if truth:
        rows += [("target's own\nprotein", pairs.target[:, :p], channels[:p])]
    return _grid(rows, channels, names, um_per_px, title)


def training_pairs(pairs: Painted, channels: Sequence[Channel], names: Sequence[str], um_per_px: float | None, title: str) -> Figure:
    """Show pairs as the network is trained on them (the paper's figure 1A); parameters as in `painted_pairs`."""
    p = pairs.painted.shape[1]
    rows: list[_Row] = [
        ("source cell,\nall channels", pairs.source, channels),
        ("target cell,\nstructural", pairs.target[:, p:], channels[p:]),
    ]
    rows += [("to be painted:\ntarget's protein", pairs.target[:, :p], channels[:p])]
    return _grid(rows, channels, names, um_per_px, title)


def _grid(rows: list[_Row], channels: Sequence[Channel], names: Sequence[str], um_per_px: float | None, title: str) -> Figure:
    n = len(rows[0][1])
    figure = Figure(figsize=(n + 0.5, 1.1 * len(rows) + 0.9), layout="constrained")
    grid = figure.subplots(len(rows), n, squeeze=False)
    for i, (name, images, shown) in enumerate(rows):
        for j, axes in enumerate(grid[i]):
            axes.imshow(composite(images[j], shown, 0.5, 99.9))
            axes.set(xticks=[], yticks=[])
        grid[i, 0].set_ylabel(name, fontsize=8)
    for j, text in enumerate(names):
        grid[0, j].set_title("\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, 14)), fontsize=7)
    scale_bar(grid[0, 0], um_per_px, rows[0][1].shape[3])
    figure.suptitle(title, fontsize=9)
    _name_colours(figure, channels)
    style.literal(figure)
    return figure


def _name_colours(figure: Figure, channels: Sequence[Channel]) -> None:
    structural = iter(("blue", "purple", "green"))
    told = [f"channel '{c.name}' in {'yellow' if c.role == 'protein' else next(structural)}" for c in channels]
    figure.supxlabel(" · ".join(told), fontsize=8)
