"""Figures: one function each; tables, AnnData and arrays in, a matplotlib Figure out."""

from __future__ import annotations

from pci_core.plots.images import composite, field_of_view, painted_pairs, scale_bar, training_pairs
from pci_core.plots.scores import accuracy_by_layer, recall_by_class
from pci_core.plots.style import PAPER, PROTEIN, STRUCTURAL, TRAINED, UNTRAINED
from pci_core.plots.training import training_curve

__all__ = [
    "PAPER",
    "PROTEIN",
    "STRUCTURAL",
    "TRAINED",
    "UNTRAINED",
    "accuracy_by_layer",
    "composite",
    "field_of_view",
    "painted_pairs",
    "recall_by_class",
    "scale_bar",
    "training_curve",
    "training_pairs",
]
