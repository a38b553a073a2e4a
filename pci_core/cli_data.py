"""``pci data``: images from their public addresses."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Images from their public addresses.")
