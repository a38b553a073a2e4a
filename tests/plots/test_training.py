"""The figure of a training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pci_core import plots


@pytest.mark.parametrize("held_out", [0.1, np.nan])
def test_training_curve(held_out: float, texts: Callable[[Figure], str]) -> None:
    losses = pd.DataFrame({"epoch": [1, 2], "train_loss": [0.2, 0.1], "held_out_loss": held_out})
    figure = plots.training_curve(losses, "curve")
    texts(figure)
    assert len(figure.axes[0].lines) == (1 if np.isnan(held_out) else 2)
