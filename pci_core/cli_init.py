"""``pci init``: from a folder of images to a recipe that a person checks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pci_core.cli_options import QuietOption


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of images; or scPortrait's .h5sc file, or SubCell's path_list.csv.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder to write to [default: NAME-pci in the current folder].")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the recipe [default: the folder's].")] = None,
    protein: Annotated[
        str | None, typer.Option("--protein", metavar="CHANNEL", help="The protein channel [default: guessed from names and pictures].")
    ] = None,
    segment: Annotated[str | None, typer.Option("--segment", metavar="CHANNEL", help="The channel that cells are found on.")] = None,
    group: Annotated[
        str | None,
        typer.Option(
            "--group", help="What makes an image (one protein, one kind of cells): well, name (without field number), folder, field."
        ),
    ] = None,
    method: Annotated[str | None, typer.Option("--method", help="Segmentation method, e.g. nuclei, yeast, labels, cellpose.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write new files even if some are there; the old are kept as .bak.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Look at a folder of images; guess channels, wells, cells and crop; write fields.csv, a recipe and a contact sheet to be checked."""
    from pci_core.init import init_folder

    written = init_folder(
        folder, out, name, protein=protein, segment=segment, group=group, method=method, force=force, progress=not quiet
    )  # fmt: skip
    print(written.summary)
