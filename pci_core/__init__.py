"""Paired cell inpainting: single-cell features from multi-channel microscopy images without labels.

The public names below are loaded on first use, so that ``import pci_core`` stays light. A name with
an empty home is a module of its own.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Autoencoder": "model",
    "CellDataset": "cells",
    "CellWriter": "cells",
    "Channel": "cells",
    "PCIError": "errors",
    "PairSampler": "pairs",
    "PairedCellInpainting": "model",
    "Run": "run",
    "aggregate": "features",
    "analysis": "",
    "benchmark": "analysis.benchmark",
    "beside_paper": "analysis.paper",
    "build_cells": "imaging",
    "check_layer": "encoders",
    "classify": "analysis",
    "compare": "comparison",
    "crop_cells": "imaging",
    "embed": "analysis",
    "join": "analysis.join",
    "load_model": "train",
    "load_recipe": "recipe:load",
    "notebook": "",
    "pairs_to_show": "painting",
    "paper_figure": "analysis.paper",
    "plots": "",
    "preprocess": "",
    "read_features": "features",
    "read_field": "imaging",
    "read_table": "analysis.join",
    "segment_field": "imaging",
    "simulate": "data.simulate",
    "split_names": "names",
    "train": "",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pci_core' has no attribute '{name}'")
    module, _, attribute = _PUBLIC[name].partition(":")
    if not module:
        return importlib.import_module(f"pci_core.{name}")
    loaded = importlib.import_module(f"pci_core.{module}")
    if module == "analysis":
        return importlib.import_module(f"pci_core.analysis.{name}")
    return getattr(loaded, attribute or name)


def __dir__() -> list[str]:
    return sorted(__all__)
