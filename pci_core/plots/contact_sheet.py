"""Contact sheet of a folder: some fields with the cells found and the crops proposed, for a person to check before anything is cut."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from skimage.segmentation import find_boundaries

from pci_core.cells import Channel
from pci_core.errors import ImageError
from pci_core.plots import style
from pci_core.plots.images import scale_bar

ROWS, CROPS = 6, 12
_SIDE = 420  # px to which a field is reduced for drawing
_SQUARES = 5  # crops drawn on a field
_CLOSE = 7  # crops along the side of the close-up
_INCH = 2.1


@dataclass(frozen=True)
class View:
    """One field to show.

    Attributes
    ----------
    name, image : str
    planes : ndarray
        (C, H, W), channels in the order of the recipe.
    labels : ndarray
        (H, W) int: cells found, 0 = background.
    centres : ndarray
        (n, 2) y and x of the cells that would be cut out, px.
    crops : ndarray
        (n, C, S, S) those cells.
    """

    name: str
    image: str
    planes: np.ndarray
    labels: np.ndarray
    centres: np.ndarray
    crops: np.ndarray


def contact_sheet(
    views: Sequence[View], channels: Sequence[Channel], crop: int, um_per_px: float | None, title: str, notes: Sequence[str] = ()
) -> Figure:
    """Show fields, one row each: every channel in grey, then all in colour with outlines and crops; below, cells as they would be cut.

    Parameters
    ----------
    views : sequence of View
        The first `ROWS` are shown; crops come from all.
    channels : sequence of Channel
        Protein first.
    crop : int
        Side of a crop, px of the planes.
    um_per_px : float or None
        Of the planes; None = not known, scale bars are in px.
    title : str
    notes : sequence of str
        Lines for the foot.

    Raises
    ------
    ImageError
        Nothing to show.
    """
    if not views:
        raise ImageError("no field of view to draw on the contact sheet.")
    shown, c = views[:ROWS], len(channels)
    limits = [_limits([v.planes[i] for v in views]) for i in range(c)]
    crops = _pick(views, limits)
    rows = [float(np.clip(v.planes.shape[1] / v.planes.shape[2], 0.2, 3)) for v in shown]
    width = max(7.0, _INCH * (c + 1))
    high = (width - 0.5) / (c + 1) * sum(rows)
    strip = 2 * width / CROPS + 0.3 if crops else 0.4
    figure = Figure(figsize=(width, high + strip + 1.1), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)  # type: ignore[union-attr, call-arg]
    parts: list[SubFigure] = list(np.ravel(figure.subfigures(2, 1, squeeze=False, height_ratios=[high + 0.2, strip])))
    grid = parts[0].subplots(len(shown), c + 1, squeeze=False, gridspec_kw={"height_ratios": rows})
    for k, (line, view) in enumerate(zip(grid, shown, strict=True)):
        _field(line, view, channels, crop, um_per_px, [ranges[k] for ranges in limits], first=k == 0)
    if crops:
        _crops(parts[1].subplots(2, CROPS, squeeze=False), crops, channels)
        parts[1].suptitle("cells as they would be cut out: all channels, and the protein alone", fontsize=8)
    else:
        parts[1].text(0.5, 0.5, "NO cell would be cut out: correct the segmentation in the recipe", ha="center", color=style.VERMILLION)
    figure.suptitle("\n".join(textwrap.wrap(title, int(width * 12))), fontsize=10)
    structural = iter(("blue", "purple", "green"))
    colours = ", ".join(f"{ch.name} {'yellow' if ch.role == 'protein' else next(structural, 'green')}" for ch in channels)
    found = sum(len(np.unique(v.labels)) - 1 for v in views)
    cuttable = sum(len(v.centres) for v in views)
    count = f"{len(shown)} of {len(views)} sampled fields shown; {found} cells found in the sample, {cuttable} of them cut out"
    style.foot(
        figure,
        count,
        f"{colours}, each field stretched to its own range",
        "white: outlines of cells; orange: crops; light blue: the part shown close up",
        *notes,
    )
    return figure


def _limits(planes: Sequence[np.ndarray]) -> list[tuple[float, float]]:
    """Return what is drawn black and white in each field: its own range, but a field with nothing in it stays dark."""
    own = [tuple(float(v) for v in np.percentile(p[..., ::2, ::2], (1, 99.8))) for p in planes]
    usual = float(np.median([high - low for low, high in own]))
    return [(low, max(high, low + 0.2 * usual, low + 1e-6)) for low, high in own]


def _field(
    line: np.ndarray,
    view: View,
    channels: Sequence[Channel],
    crop: int,
    um_per_px: float | None,
    limits: Sequence[tuple[float, float]],
    first: bool,
) -> None:
    step = max(1, round(max(view.planes.shape[1:]) / _SIDE))
    h, w = (s // step * step for s in view.planes.shape[1:])
    small = view.planes[:, :h, :w].reshape(len(channels), h // step, step, w // step, step).mean((2, 4), dtype=np.float32)
    for axes, plane, channel, (low, high) in zip(line, small, channels, limits, strict=False):
        axes.imshow(plane, cmap="gray", vmin=low, vmax=high, extent=(-0.5, w - 0.5, h - 0.5, -0.5))
        if first:
            axes.set_title(f"{channel.name} ({channel.role})", fontsize=8, pad=3)
    close = line[-1]
    y, x, side_y, side_x = _window(view, crop)
    part = slice(y, y + side_y), slice(x, x + side_x)
    picture = 0.85 * _blend(view.planes[(slice(None), *part)], channels, limits)
    picture[find_boundaries(view.labels[part], mode="inner")] = 1.0
    close.imshow(picture, extent=(x - 0.5, x + side_x - 0.5, y + side_y - 0.5, y - 0.5))
    for cy, cx in _apart(view.centres, crop, (y, x, side_y, side_x)):
        corner = round(cx) - crop // 2 - 0.5, round(cy) - crop // 2 - 0.5
        close.add_patch(Rectangle(corner, crop, crop, fill=False, color=style.ORANGE, lw=1.4))
    scale_bar(line[0], um_per_px, w)
    if (side_y, side_x) != view.planes.shape[1:]:
        line[0].add_patch(Rectangle((x, y), side_x, side_y, fill=False, color=style.SKY, lw=1))
        scale_bar(close, um_per_px, side_x)
    if first:
        close.set_title("close-up: all, outlines, crops", fontsize=8, pad=3)
    for axes in line[:-1]:
        axes.set(xlim=(-0.5, w - 0.5), ylim=(h - 0.5, -0.5))
    close.set(xlim=(x - 0.5, x + side_x - 0.5), ylim=(y + side_y - 0.5, y - 0.5))
    for axes in line:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    found = len(np.unique(view.labels)) - 1
    image = textwrap.wrap(f"image {view.image}", 26)[:2] if view.image != view.name else []
    told = [*textwrap.wrap(view.name, 26)[:2], *image, f"{found} found, {len(view.centres)} cut"]
    line[0].set_ylabel("\n".join(told), fontsize=7)


def _window(view: View, crop: int) -> tuple[int, int, int, int]:
    """Choose the part of a field that is drawn close up, where most cells are: top, left, height, width."""
    h, w = view.planes.shape[1:]
    side_y, side_x = min(h, _CLOSE * crop), min(w, _CLOSE * crop)
    if not len(view.centres):
        return (h - side_y) // 2, (w - side_x) // 2, side_y, side_x
    places = [(y, x) for y in np.linspace(0, h - side_y, 9).astype(int) for x in np.linspace(0, w - side_x, 9).astype(int)]
    inside = [_inside(view.centres, (y, x, side_y, side_x), crop).sum() for y, x in places]
    y, x = places[int(np.argmax(inside))]
    return int(y), int(x), side_y, side_x


def _inside(centres: np.ndarray, window: tuple[int, int, int, int], crop: int) -> np.ndarray:
    y, x, side_y, side_x = window
    low, high = np.array([y, x]) + crop // 2, np.array([y + side_y, x + side_x]) - crop // 2
    return np.asarray(((centres >= low) & (centres <= high)).all(axis=1))


def _apart(centres: np.ndarray, crop: int, window: tuple[int, int, int, int]) -> list[tuple[float, float]]:
    """Choose a few cells whose crops lie within the window, far from one another."""
    left = centres[_inside(centres, window, crop)] if len(centres) else centres
    middle = np.array([window[0] + window[2] / 2, window[1] + window[3] / 2])
    left = left[np.argsort(np.abs(left - middle).max(axis=1))] if len(left) else left
    chosen: list[tuple[float, float]] = []
    while len(left) and len(chosen) < _SQUARES:
        chosen.append((float(left[0][0]), float(left[0][1])))
        left = left[np.abs(left - left[0]).max(axis=1) > 1.1 * crop]
    return chosen


def _blend(planes: np.ndarray, channels: Sequence[Channel], limits: Sequence[tuple[float, float]]) -> np.ndarray:
    """Blend the protein and up to three structural channels; there are no more colours that all readers can tell apart."""
    structural = iter(style.STRUCTURAL)
    out = np.zeros((*planes.shape[1:], 3))
    for plane, channel, (low, high) in zip(planes, channels, limits, strict=True):
        colour = style.PROTEIN if channel.role == "protein" else next(structural, None)
        if colour is not None:
            out += np.clip((plane.astype(np.float32) - low) / (high - low), 0, 1)[..., None] * np.array(colour) / max(colour)
    return np.clip(out, 0, 1)


def _pick(views: Sequence[View], limits: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[np.ndarray, list[tuple[float, float]]]]:
    """Take crops from all fields in turn, each with the range of its field."""
    turns = [(turn, k) for turn in range(CROPS) for k in range(len(views)) if turn < len(views[k].crops)][:CROPS]
    return [(views[k].crops[turn * 7 % len(views[k].crops)], [ranges[k] for ranges in limits]) for turn, k in turns]


def _crops(grid: np.ndarray, crops: Sequence[tuple[np.ndarray, list[tuple[float, float]]]], channels: Sequence[Channel]) -> None:
    for axes in grid.ravel():
        axes.axis("off")
    for j, (crop, limits) in enumerate(crops):
        grid[0, j].imshow(_blend(crop, channels, limits))
        grid[1, j].imshow(crop[0], cmap="gray", vmin=limits[0][0], vmax=limits[0][1])
