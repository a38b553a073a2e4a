"""What every figure goes through in a test."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def texts() -> Callable[[Figure], str]:
    """Draw a figure and return all that is written in it."""

    def read(figure: Figure) -> str:
        figure.savefig(io.BytesIO(), format="png", dpi=50)  # whatever cannot be drawn fails here
        found = [t.get_text() for axes in figure.axes for t in axes.texts] + [axes.get_title() for axes in figure.axes]
        for legend in figure.legends:
            found += [t.get_text() for t in (legend.get_title(), *legend.get_texts())]
        return "|".join([*found, figure.get_suptitle(), figure.get_supxlabel()])

    return read
