"""Figures: one function each; tables, AnnData and arrays in, a matplotlib Figure out."""

from __future__ import annotations

from pci_core.plots.benchmark import accuracy_by_k, classifiers, feature_set_accuracy, vgg16_layers
from pci_core.plots.classes import confusion, recall_heatmap
from pci_core.plots.gallery import crop_rows, draw_cells
from pci_core.plots.images import composite, field_of_view, painted_pairs, scale_bar, training_pairs
from pci_core.plots.maps import umaps
from pci_core.plots.scores import accuracy_by_layer, recall_by_class
from pci_core.plots.style import PAPER, PROTEIN, STRUCTURAL, TRAINED, UNTRAINED, set_label
from pci_core.plots.training import training_curve

__all__ = [
    "PAPER",
    "PROTEIN",
    "STRUCTURAL",
    "TRAINED",
    "UNTRAINED",
    "accuracy_by_k",
    "accuracy_by_layer",
    "classifiers",
    "composite",
    "confusion",
    "crop_rows",
    "draw_cells",
    "feature_set_accuracy",
    "field_of_view",
    "painted_pairs",
    "recall_by_class",
    "recall_heatmap",
    "scale_bar",
    "set_label",
    "training_curve",
    "training_pairs",
    "umaps",
    "vgg16_layers",
]
