"""``pci data``: images and weights from their public addresses, with their licence and credit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pci_core.cli_hpa import hpa
from pci_core.cli_options import QuietOption

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Images and weights from their public addresses.")
fetch = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Download a public source; what is there already and right is not fetched again."
)
app.add_typer(fetch, name="fetch")
fetch.command("hpa")(hpa)


@app.command("list")
def list_sources() -> None:
    """Say what each public source holds, what it costs and whose it is."""
    from pci_core.data.catalog import SOURCES

    for name, source in SOURCES.items():
        print(f"{name}: {source.title}")
        for key in ("holds", "download", "licence", "credit", "address"):
            print(f"  {key:<10}{getattr(source, key)}")
    print("hpa: fields of the Human Protein Atlas by gene; see 'pci data fetch hpa --help'")


OutOption = Annotated[Path | None, typer.Option("--out", help="Folder to put the files into [default: ./<name of the source>].")]


def _get(name: str, quiet: bool, out: Path | None = None) -> None:
    from pci_core.data.catalog import SOURCES, get

    source = SOURCES[name]
    print(f"{source.title}: {source.download}\n  {source.address}\n  licence: {source.licence}\n  credit: {source.credit}")
    print(get(name, out, progress=not quiet))


@fetch.command("example-yeast")
def example_yeast(out: OutOption = None, quiet: QuietOption = False) -> None:
    """Fetch six real yeast fields in separate 16-bit files, with label masks."""
    _get("example-yeast", quiet, out)


@fetch.command("example-human")
def example_human(out: OutOption = None, quiet: QuietOption = False) -> None:
    """Fetch 82 real human fields as RGB pictures, of 28 locations."""
    _get("example-human", quiet, out)


@fetch.command("authors-toy")
def authors_toy(quiet: QuietOption = False) -> None:
    """Fetch the toy sets of the paper's authors, for the recipes authors-toy-yeast and authors-toy-human."""
    _get("authors-toy", quiet)


@fetch.command("authors-weights")
def authors_weights(quiet: QuietOption = False) -> None:
    """Fetch the pretrained networks of the paper's authors, see 'pci weights import'."""
    _get("authors-weights", quiet)


@fetch.command("duloc")
def duloc(quiet: QuietOption = False) -> None:
    """Fetch single human cells with known fractions, for the recipe hpa-duloc."""
    _get("duloc", quiet)
