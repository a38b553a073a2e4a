"""Figures as files that are the same every time and say where they come from."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from pci_core.provenance import KEY, record
from pci_core.storage import atomic_path

DPI = 150


def save_figure(figure: Figure, stem: str | os.PathLike[str]) -> None:
    """Write a figure as PNG and SVG under one name, each with the record of `pci_core.provenance` in its metadata.

    Parameters
    ----------
    figure : Figure
    stem : path-like
        Path without an ending.
    """
    stem = Path(stem)
    made = record("figure", stem.name).text()
    metadata = {"png": {KEY: made}, "svg": {"Source": made, "Date": None}}
    for kind, told in metadata.items():
        # the salt stands in for the random one that marks of an SVG are named by
        with mpl.rc_context({"svg.hashsalt": stem.name}), atomic_path(stem.with_name(f"{stem.name}.{kind}")) as temporary:
            figure.savefig(temporary, format=kind, dpi=DPI, metadata=told)
