"""The figure of a training."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pci_core.plots.style import PAPER, TRAINED


def training_curve(losses: pd.DataFrame, title: str) -> Figure:
    """Show the mean squared error by epoch, in training and, where images were held out, on those."""
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(losses["epoch"], losses["train_loss"], "o-", ms=3, color=TRAINED, label="training images")
    if losses["held_out_loss"].notna().any():
        axes.plot(losses["epoch"], losses["held_out_loss"], "s--", ms=3, color=PAPER, label="images never trained on")
    axes.set(xlabel="epoch", ylabel="mean squared error", title=title, ylim=(0, None))
    axes.title.set_fontsize(9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8, frameon=False)
    return figure
