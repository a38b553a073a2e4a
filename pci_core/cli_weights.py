"""``pci weights``: networks as files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from pci_core.cli_options import (
    DeviceOption,
    EpochsOption,
    PrecisionOption,
    QuietOption,
    RecipeArgument,
    RunsOption,
    SeedOption,
    SetOption,
    WidthOption,
    training_keys,
)

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Networks as files: ours, and the paper's authors'.")


@app.command("export")
def export_weights(
    recipe: RecipeArgument,
    out: Annotated[Path, typer.Option("--out", help="The .safetensors to write.")],
    model: Annotated[str, typer.Option("--model", help="pci or autoencoder.")] = "pci",
    score: Annotated[str | None, typer.Option("--score", metavar="RECIPE", help="Other cells on which to score it, for its card.")] = None,
    runs: RunsOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    seed: SeedOption = None,
    epochs: EpochsOption = None,
    width: WidthOption = None,
    changes: SetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Keep the source cell encoder of a training in a small file with its card, training first where needed."""
    from pci_core.export import export
    from pci_core.run import Run

    run = Run(recipe, runs, device=device, precision=precision, training=training_keys(seed, epochs, width, changes=changes), quiet=quiet)
    scored = Run(score, runs, device=device, precision=precision, quiet=quiet) if score else None
    given = {"--model": model, "--score": score, "--seed": seed, "--epochs": epochs, "--width": width}
    options = "".join(f" {k} {v}" for k, v in given.items() if v is not None)
    options += "".join(f" --set {shlex.quote(change)}" for change in changes or [])
    export(run, out, model, scored, f"pci weights export {recipe} --out {out.name}{options}")
    print(out)


@app.command("import")
def import_weights(
    source: Annotated[
        str, typer.Argument(metavar="FILE|NAME", help="A Keras .h5 of the paper's network, or authors-yeast, authors-human …")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The .safetensors to write [default: beside the file; of a name, in the current folder].")
    ] = None,
    channels: Annotated[str | None, typer.Option("--channels", help="Names of its channels, the protein first, e.g. gfp,rfp.")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Recipe whose channels and rescaling it was trained with [default: as the authors'].")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Convert a Keras network into a .safetensors of ours, with a card of what is known of it."""
    from pci_core import imported
    from pci_core import recipe as recipes

    names = [c.strip() for c in channels.split(",")] if channels is not None else None
    path, card = imported.import_weights(source, out, channels=names, recipe=recipes.load(recipe) if recipe else None, progress=not quiet)
    print(f"{path}: channels {', '.join(_channel(c) for c in card['channels'])}; BatchNorm {card['import']['batchnorm']}")
    if "assumed" in card:
        print(f"assumed: {card['assumed']}. If they are others, say so with --channels and --recipe.")
    print(f"licence: {card['licence']}")


@app.command("show")
def show_weights(
    source: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A .safetensors, a Keras .h5, or a name of 'pci weights list'.")],
) -> None:
    """Print the card of weights: what they were trained on, for how long, and what they are worth."""
    import json

    from pci_core import imported, pretrained
    from pci_core.weights import load_safetensors

    if Path(source).suffix.lower() in imported.KERAS:
        card = imported.describe(source)[1]
    elif source in imported.AUTHORS:
        card = imported.known_card(source)
    elif pretrained.is_file(source):
        card = load_safetensors(source)[1]
    else:
        card = load_safetensors(pretrained.path_of(source, next(k for k in ("pci", "autoencoder") if pretrained.has(source, k))))[1]
    print(json.dumps(card, indent=1, ensure_ascii=False))


@app.command("list")
def list_weights() -> None:
    """List the networks that --weights and [training] pretrained know by name."""
    from pci_core import imported, pretrained
    from pci_core.weights import load_safetensors

    for name in pretrained.names():
        kinds = [k for k in ("pci", "autoencoder") if pretrained.has(name, k)]
        card = load_safetensors(pretrained.path_of(name, kinds[0]))[1]
        print(f"{name} ({' and '.join(kinds)}, encoder alone)")
        _tell(
            card,
            f"{'simulated' if card['simulated'] else 'real'} cells of the recipe {card['recipe']}, {card['pairs']:,} pairs",
            "shipped with this package",
        )
    for name in imported.AUTHORS:
        card = imported.known_card(name)
        cells = f"{card['cells']:,} cells" if isinstance(card["cells"], int) else "number of cells unknown"
        print(f"{name} (pci, whole network, downloaded on first use)")
        _tell(card, f"{card['data']}; {cells}", card["licence"])


def _tell(card: dict[str, Any], data: str, licence: str) -> None:
    for key, text in (("channels", ", ".join(_channel(c) for c in card["channels"])), ("data", data), ("licence", licence)):
        print(f"  {key:9} {text}")


def _channel(channel: dict[str, Any]) -> str:
    also = f", also {', '.join(channel['also'])}" if channel.get("also") else ""
    return f"{channel['name']} ({channel['role']}{also})"
