"""``pci weights``: networks as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pci_core.cli_options import (
    DeviceOption,
    EpochsOption,
    PrecisionOption,
    QuietOption,
    RecipeArgument,
    RunsOption,
    SeedOption,
    WidthOption,
    training_keys,
)

app = typer.Typer(no_args_is_help=True, help="Networks as files: ours, and the paper's authors'.")


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
    quiet: QuietOption = False,
) -> None:
    """Keep the source cell encoder of a training in a small file with its card, training first where needed."""
    from pci_core.export import export
    from pci_core.run import Run

    run = Run(recipe, runs, device=device, precision=precision, training=training_keys(seed, epochs, width), quiet=quiet)
    scored = Run(score, runs, device=device, precision=precision, quiet=quiet) if score else None
    given = {"--model": model, "--score": score, "--seed": seed, "--epochs": epochs, "--width": width}
    options = "".join(f" {k} {v}" for k, v in given.items() if v is not None)
    export(run, out, model, scored, f"pci weights export {recipe} --out {out.name}{options}")
    print(out)


@app.command("show")
def show_weights(file: Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors of this package.")]) -> None:
    """Print the card of a file of weights: what it was trained on, for how long, and what it is worth."""
    import json

    from pci_core.weights import load_safetensors

    print(json.dumps(load_safetensors(file)[1], indent=1, ensure_ascii=False))
