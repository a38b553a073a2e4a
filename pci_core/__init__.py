"""Paired cell inpainting: single-cell features from multi-channel microscopy images without labels."""

__version__ = "0.1.0"
