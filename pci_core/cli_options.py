"""Arguments and options that several commands of ``pci`` share."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Name of an embedded recipe (see 'pci recipes') or path of a TOML file.")
]
RunsOption = Annotated[Path | None, typer.Option("--runs", help="Folder of all runs [default: $PCI_RUNS or ./runs].")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="auto, float32, bfloat16, float16.")]
CompileOption = Annotated[
    str, typer.Option("--compile", help="auto (on for CUDA), on, off, graphs (CUDA graphs, for small batches): compile the network.")
]
CropsOption = Annotated[
    str,
    typer.Option(
        "--crops",
        help="Where crops wait: resident (on the device), chunked (chunks of whole images, read ahead), streamed (row by row); "
        "auto chooses by the memory that is free, and says so.",
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of the training [default: the recipe's].")]
EpochsOption = Annotated[int | None, typer.Option("--epochs", help="Epochs of the training [default: the recipe's].")]
WidthOption = Annotated[
    float | None, typer.Option("--width", help="Factor on the numbers of filters; 1 is the paper's [default: the recipe's].")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the recipe's [training]: pretext=contrast, encoder=residual, pair_by=protein, batch_size=192 … Repeat it for "
        "several.",
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option(
        "--start", help="Encoder to start the training from: a shipped one ('simulated-human') or a .safetensors [default: random]."
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="NAME|FILE",
        help="Take this trained network: a name of 'pci weights list' (authors-yeast …), a .safetensors or a Keras .h5 "
        "[default: the recipe's; with none there, one is trained].",
    ),
]
JobsOption = Annotated[int, typer.Option("--jobs", help="Processes for work per field of view; -1 = all cores.")]
DaskOption = Annotated[
    str | None,
    typer.Option(
        "--dask", metavar="ADDRESS", help="Scheduler of a Dask cluster (tcp://10.0.0.1:8786) whose workers do what --jobs would do here."
    ),
]
ScratchOption = Annotated[
    bool, typer.Option("--scratch", help="Train on the recipe's own cells even where pretrained weights are shipped.")
]
Vgg16Option = Annotated[
    Path | None, typer.Option("--vgg16-weights", help="VGG16 weights (.pth or .safetensors) instead of torch's public ImageNet file.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Where the source's files lie [default: 'path' in [source] of the recipe].")
]


def training_keys(
    seed: int | None,
    epochs: int | None,
    width: float | None,
    scratch: bool = False,
    start: str | None = None,
    weights: str | None = None,
    changes: list[str] | None = None,
) -> dict[str, Any]:
    """Return the keys of the recipe's [training] that the options change."""
    asked = {"--seed": seed, "--epochs": epochs, "--width": width, "--scratch": scratch or None, "--start": start, "--set": changes or None}
    if weights is not None and (others := [option for option, value in asked.items() if value is not None]):
        raise typer.BadParameter(f"--weights takes a network as it is; {', '.join(others)} would train one. Leave out either.")
    keys = {"seed": seed, "epochs": epochs, "width": width, "pretrained": "" if scratch else weights, "start": start}
    for text in changes or []:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise typer.BadParameter(f"--set takes KEY=VALUE, e.g. pretext=contrast, found '{text}'.")
        if keys.get(key.strip()) is not None:
            raise typer.BadParameter(f"'{key.strip()}' is given twice. Leave out one.")
        keys[key.strip()] = _value(value.strip())
    return keys


def _value(text: str) -> Any:
    """Read a value as TOML does; what is none there is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
