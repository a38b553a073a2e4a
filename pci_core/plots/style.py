"""Colours and words that all figures share."""

from __future__ import annotations

PROTEIN, STRUCTURAL = (0.94, 0.89, 0.26), ((0.0, 0.45, 0.70), (0.80, 0.47, 0.65), (0.0, 0.62, 0.45))
TRAINED, UNTRAINED, PAPER = "#0072B2", "#999999", "#D55E00"
