"""``pci provenance``: where a file comes from, and whether its parents are still there and unchanged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from pci_core.cli_options import RunsOption


def provenance(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A feature set, table, figure, weights, notebook, page of the book, atlas or folder of cells."),
    ],
    runs: RunsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole record as JSON, for programs.")] = False,
) -> None:
    """Say where a file comes from: recipe, code, data, weights, seed, and its parents: unchanged, changed since, or gone."""
    from pci_core.lineage import as_plain, describe

    folder = Path(runs or os.environ.get("PCI_RUNS", "runs"))
    print(json.dumps(as_plain(file, folder), indent=1, ensure_ascii=False) if as_json else describe(file, folder))
