"""Fields of view to single-cell crops: read, segment, crop, build."""

from __future__ import annotations

from pci_core.imaging.build import build_cells
from pci_core.imaging.crop import CellCrops, crop_cells
from pci_core.imaging.read import downscale, read_field
from pci_core.imaging.segment import read_labels, segment_field, segment_nuclei

__all__ = [
    "CellCrops",
    "build_cells",
    "crop_cells",
    "downscale",
    "read_field",
    "read_labels",
    "segment_field",
    "segment_nuclei",
]
