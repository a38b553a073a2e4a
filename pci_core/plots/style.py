"""Colours and words that all figures share: Okabe and Ito's palette, names of feature sets, captions."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from pci_core.errors import CellTableError, unknown_name

PROTEIN, STRUCTURAL = (0.94, 0.89, 0.26), ((0.0, 0.45, 0.70), (0.80, 0.47, 0.65), (0.0, 0.62, 0.45))
TRAINED, UNTRAINED, PAPER = "#0072B2", "#999999", "#D55E00"
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, BLACK = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"
BAND = "#F2F2F2"  # behind every second row
PAPER_LABEL = "paper (other cells)"
CLASSIFIERS = {"knn": "kNN", "logistic": "L1 logistic regression", "forest": "random forest", "end_to_end": "network's own output"}
_VGG16 = re.compile(r"vgg16_(?:block(\d)_conv(\d)|(fc1))_(\w+)")


def set_label(name: str) -> str:
    """Write a feature set's name for a figure: ``conv4`` is ``PCI conv4``; names of a user's own sets stay as they are."""
    name, _, variant = name.partition("+")
    if re.fullmatch(r"conv\d(_mean)?", name):
        name = "PCI " + name.replace("_", ", ")
    elif match := _VGG16.fullmatch(name):
        name = f"VGG16 {match[3] or f'conv{match[1]}_{match[2]}'}, {match[4]}"
    elif re.fullmatch(r"(untrained|autoencoder)_conv\d(_mean)?", name):
        name = name.replace("_", " ", 1).replace("_", ", ")
    elif name == "cellprofiler":
        name = "CellProfiler"
    return f"{name} ({variant.replace('+', ', ')})" if variant else name


def is_pci(name: str) -> bool:
    """Tell PCI's own layers, which figures print in bold."""
    return re.fullmatch(r"conv\d(_mean)?(\+.*)?", name) is not None


def left_out_label(left_out: str) -> str:
    """Write what was left out: ``own image left out``."""
    return f"own {left_out.replace('_', ' ')} left out"


def pick(scores: pd.DataFrame, columns: Sequence[str], **wanted: str | int | None) -> pd.DataFrame:
    """Return the rows with the wanted values; columns asked for None are not looked at.

    Raises
    ------
    UnknownNameError
        A column is not there.
    CellTableError
        No row is left.
    """
    for column in (*columns, *(c for c, v in wanted.items() if v is not None)):
        if column not in scores:
            raise unknown_name("column", column, scores.columns)
    keep = pd.Series(True, index=scores.index)
    for column, value in wanted.items():
        keep &= (scores[column] == value) if value is not None else True
    if not keep.any():
        held = {c: sorted(scores[c].unique().tolist()) for c, v in wanted.items() if v is not None}
        raise CellTableError(f"no score of {wanted} to draw; the table holds {held}.")
    return scores[keep]


def once(scores: pd.DataFrame, *key: str) -> None:
    """Refuse a table that holds two rows where a figure has one place.

    Raises
    ------
    CellTableError
        Two rows share the values of `key`.
    """
    twice = scores[scores.duplicated(list(key))]
    if len(twice):
        raise CellTableError(f"{len(twice)} scores stand twice, e.g. {twice.iloc[0][list(key)].to_dict()}; draw one data set at a time.")


def leak_free(left_out: Iterable[str]) -> list[str]:
    """Return what was left out besides the cell itself, in order of appearance."""
    return [name for name in dict.fromkeys(left_out) if name != "cell"]


def caption(figure: Figure, scores: pd.DataFrame, note: str, *more: str) -> None:
    """Write under the figure on which cells it was computed, the note, and what the marks mean."""
    parts = [_span(scores["n_cells"], "cells")]
    if "n_classes" in scores:
        parts.append(_span(scores["n_classes"], "classes"))
    groups = [name for name in leak_free(scores["left_out"]) if name != "protein"]
    if "n_groups" in scores:
        parts.append(_span(scores["n_groups"], f"{groups[0].replace('_', ' ')}s" if groups else "groups"))
    foot(figure, ", ".join(parts), note, *more)


def head(figure: Figure, title: str, handles: Sequence[Artist]) -> None:
    """Write the title with the legend under it; as one block, since constrained layout would print one over the other."""
    columns = min(len(handles), 6 if figure.get_figwidth() >= 10 else 5 if figure.get_figwidth() > 8 else 3)
    figure.legend(
        handles=list(handles), title=title, loc="outside upper center", ncols=columns, fontsize=8, title_fontsize=10, frameon=False
    )


def paper_handle() -> Line2D:
    """Return the legend entry of the paper's figures."""
    return Line2D([], [], ls="", marker="D", mfc="none", mec=PAPER, mew=1.3, ms=6, label=PAPER_LABEL)


def paper_mark(axes: Axes, x: float | Sequence[float], y: float | Sequence[float], size: float = 6) -> None:
    """Draw figures of the paper as open diamonds."""
    axes.plot(x, y, "D", mfc="none", mec=PAPER, mew=1.3, ms=size, zorder=4)


def chance_handle(chance: float) -> Line2D:
    """Return the legend entry of the line of guessing."""
    return Line2D([], [], color="black", lw=1, ls=":", label=f"chance ({chance:.2f})")


def foot(figure: Figure, *parts: str) -> None:
    """Write under the figure what it was computed on, in lines that fit its width."""
    width = int(figure.get_figwidth() * 17)  # characters of 8 pt in an inch, with room to spare
    figure.supxlabel("\n".join(textwrap.wrap(" · ".join(p for p in parts if p), width)), fontsize=8)
    literal(figure)


def literal(figure: Figure) -> None:
    """Have every text of a figure drawn as it stands: a dollar in a name is no formula, which could fail or change the name."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # type: ignore[attr-defined]


def _span(values: pd.Series, unit: str) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,} {unit}" if low == high else f"{low:,}–{high:,} {unit}"


def set_names(axes: Axes, names: Sequence[str]) -> None:
    """Label the rows of a figure by feature set, PCI's own in bold, with a light band behind every second row."""
    axes.set_yticks(range(len(names)), [set_label(n) for n in names])
    for tick, name in zip(axes.get_yticklabels(), names, strict=False):  # none where another panel to the left has them
        tick.set(fontsize=8.5, fontweight="bold" if is_pci(name) else "normal")
    axes.tick_params(axis="y", length=0)
    for row in range(0, len(names), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=BAND, lw=0, zorder=0)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
