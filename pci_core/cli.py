"""The command line: ``pci``. Exit status 0 done, 1 failed with one message on stderr, 2 wrong usage."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import pci_core
from pci_core import cli_check, cli_data, cli_init, cli_provenance, cli_weights, distributed
from pci_core import recipe as recipes
from pci_core.cli_options import (
    CompileOption,
    CropsOption,
    DaskOption,
    DataOption,
    DeviceOption,
    EpochsOption,
    JobsOption,
    PrecisionOption,
    QuietOption,
    RecipeArgument,
    RunsOption,
    ScratchOption,
    SeedOption,
    SetOption,
    StartOption,
    Vgg16Option,
    WeightsOption,
    WidthOption,
    training_keys,
)
from pci_core.distributed import World
from pci_core.errors import DistributedError, PCIError

app = typer.Typer(
    name="pci",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # or what stands in [brackets] is taken for markup and not shown
    pretty_exceptions_enable=False,
    help="Paired cell inpainting: single-cell features without labels.",
)

app.add_typer(cli_weights.app, name="weights")
app.add_typer(cli_data.app, name="data")
app.command()(cli_init.init)
app.command()(cli_provenance.provenance)
app.command()(cli_check.check)


STOPPED = "pci: stopped; what was made so far is kept, run the same command to go on"
TOGETHER = ("cells", "train", "features")  # what several processes, started by torchrun, can do


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False
) -> None:
    if version:
        print(f"pci_core {pci_core.__version__}")
        raise typer.Exit()
    if distributed.is_started_together() and context.invoked_subcommand not in TOGETHER:
        raise DistributedError(
            f"'pci {context.invoked_subcommand}' runs in one process; several can do {', '.join(TOGETHER)}. Start it without torchrun."
        )


@app.command("recipes")
def list_recipes() -> None:
    """List the embedded recipes."""
    for name in recipes.names():
        recipe = recipes.load(name)
        print(f"{name:28} {'simulated' if recipe.simulated else 'real':10} {recipe.title}")


@app.command()
def info(recipe: RecipeArgument, data: DataOption = None, runs: RunsOption = None, device: DeviceOption = "auto") -> None:
    """Say what a recipe makes, how large it is, on which device, and how long it takes."""
    from pci_core.info import describe_run

    print(describe_run(recipe, runs, device, data))


@app.command()
def cells(
    recipe: RecipeArgument,
    data: DataOption = None,
    runs: RunsOption = None,
    device: DeviceOption = "auto",
    seed: SeedOption = None,
    jobs: JobsOption = -1,
    dask: DaskOption = None,
    quiet: QuietOption = False,
) -> None:
    """Make the single-cell crops: simulate or download, segment, crop."""
    from pci_core import flags
    from pci_core.run import Run

    run = Run(recipe, runs, data=data, device=device, training={"seed": seed}, jobs=jobs, dask=dask, quiet=quiet)
    dataset = run.cells()
    print(
        f"{dataset.folder}: {len(dataset)} cells of {len(dataset.starts) - 1} images, crops {dataset.crops.shape[1:]} {dataset.crops.dtype}"
    )
    print(flags.told(dataset.info.get("flagged")))


@app.command()
def train(
    recipe: RecipeArgument,
    model: Annotated[str, typer.Option("--model", help="pci or autoencoder.")] = "pci",
    data: DataOption = None,
    runs: RunsOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    compile: CompileOption = "auto",
    crops: CropsOption = "auto",
    seed: SeedOption = None,
    epochs: EpochsOption = None,
    width: WidthOption = None,
    start: StartOption = None,
    changes: SetOption = None,
    jobs: JobsOption = -1,
    quiet: QuietOption = False,
) -> None:
    """Train a network, or go on where an earlier call was cut."""
    from pci_core.run import Run

    training = training_keys(seed, epochs, width, start=start, changes=changes)
    run = Run(
        recipe,
        runs,
        data=data,
        device=device,
        precision=precision,
        compile=compile,
        crops=crops,
        training=training,
        jobs=jobs,
        quiet=quiet,
    )
    print(f"{run.train(model)}: weights, losses and TensorBoard log")


@app.command()
def features(
    recipe: RecipeArgument,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="conv1 … conv5 (default: all), untrained_conv1 …, autoencoder_conv1 …, classic, cellprofiler, designed, pixels, "
            "supervised, vgg16_block4_conv1_protein … (also _channels, _rgb; fc1).",
        ),
    ] = None,
    weights: WeightsOption = None,
    scratch: ScratchOption = False,
    vgg16_weights: Vgg16Option = None,
    data: DataOption = None,
    runs: RunsOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    compile: CompileOption = "auto",
    crops: CropsOption = "auto",
    seed: SeedOption = None,
    epochs: EpochsOption = None,
    width: WidthOption = None,
    start: StartOption = None,
    changes: SetOption = None,
    jobs: JobsOption = -1,
    dask: DaskOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write feature sets as .h5ad and .parquet, making cells and model first where needed."""
    from pci_core.encoders import LAYERS
    from pci_core.run import Run

    training = training_keys(seed, epochs, width, scratch, start, weights, changes)
    run = Run(
        recipe,
        runs,
        data=data,
        device=device,
        precision=precision,
        compile=compile,
        crops=crops,
        training=training,
        jobs=jobs,
        dask=dask,
        quiet=quiet,
        vgg16_weights=vgg16_weights,
    )
    for path in run.feature_files(names or LAYERS).values():
        print(path)


@app.command()
def benchmark(
    recipe: RecipeArgument,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Feature sets, see 'pci features --help' (default: one of each kind, all layers)."),
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(
            "--table", metavar="[NAME=]PATH", help="A feature table of your own (.parquet, .csv, .h5ad, with cell_id) as one more set."
        ),
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="Column of the cell table to predict [default: the recipe's].")] = None,
    classifiers: Annotated[str, typer.Option("--classifiers", help="Of knn, logistic, forest.")] = "knn,logistic,forest",
    leave_out_protein: Annotated[
        bool, typer.Option("--leave-out-protein", help="Also score with all cells of the own protein left out.")
    ] = False,
    seeds: Annotated[
        str, typer.Option("--seeds", help="Seeds of the training, e.g. 0,1,2: each trains anew, the interval covers them.")
    ] = "",
    weights: WeightsOption = None,
    scratch: ScratchOption = False,
    vgg16_weights: Vgg16Option = None,
    data: DataOption = None,
    runs: RunsOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    epochs: EpochsOption = None,
    width: WidthOption = None,
    jobs: JobsOption = -1,
    quiet: QuietOption = False,
) -> None:
    """Compare feature sets on the same cells: kNN, logistic regression, random forest, with intervals."""
    from pci_core.comparison import DEFAULT_SETS, compare, parse_table, summary
    from pci_core.run import Run

    try:
        numbers = [int(s) for s in seeds.split(",") if s.strip()]
    except ValueError:
        raise typer.BadParameter(f"--seeds takes whole numbers with commas between them, found '{seeds}'.") from None
    if weights is not None and numbers:
        raise typer.BadParameter("--weights takes a network as it is; --seeds would train several. Leave out either.")
    training = training_keys(None, epochs, width, scratch, weights=weights)
    run = Run(
        recipe, runs, data=data, device=device, precision=precision, training=training, jobs=jobs, quiet=quiet, vgg16_weights=vgg16_weights
    )
    stem = f"benchmark{run.differs}"
    found = compare(
        run,
        names or DEFAULT_SETS,
        label=label,
        tables=dict(parse_table(t) for t in table or []),
        classifiers=[c.strip() for c in classifiers.split(",") if c.strip()],
        leave_out_protein=leave_out_protein,
        seeds=numbers,
        stem=stem,
    )
    print(summary(found, run))
    if weights is not None:
        print(f"conv1 … conv5: the network {Path(weights).name}")
    print(f"tables: {run.folder / 'tables'}/{stem}_*.parquet, .csv and {stem}.json")


@app.command()
def atlas(
    recipe: RecipeArgument,
    features: Annotated[str, typer.Option("--features", help="Feature set, see 'pci features --help'.")] = "conv3",
    out: Annotated[Path | None, typer.Option("--out", help="The HTML file to write [default: in the run's folder].")] = None,
    runs: RunsOption = None,
    device: DeviceOption = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the map.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Write the interactive map of all proteins: one page that opens in a browser without a server."""
    from pci_core.atlas import make
    from pci_core.run import Run

    print(make(Run(recipe, runs, device=device, quiet=quiet), features, out, seed=seed))


@app.command()
def results(
    recipe: RecipeArgument,
    features: Annotated[
        str, typer.Option("--features", help="Feature sets with commas between them.")
    ] = "conv3,conv4,autoencoder_conv4,classic,untrained_conv3",
    only: Annotated[list[str] | None, typer.Option("--only", help="Numbers of the notebooks to run, e.g. 03.")] = None,
) -> None:
    """Run the analyses on several feature sets and keep their headline numbers under book/results (from the root of the repository)."""
    from pci_core.names import split_names
    from pci_core.results import keep

    for path in keep(Path.cwd(), recipe, split_names(features), only):
        print(path)


@app.command()
def book(
    recipe: Annotated[str, typer.Option("--recipe", help="Recipe that the notebooks run on.")] = "simulated-human",
    only: Annotated[list[str] | None, typer.Option("--only", help="Numbers of the notebooks to run, e.g. 01.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Make nothing; list the stale pages and why, exit status 1 if any.")] = False,
) -> None:
    """Run the notebooks and build the book (from the root of the repository); pages whose inputs changed are told and made again."""
    from pci_core import book as the_book

    if not check:
        print(the_book.build(Path.cwd(), recipe, only or None))
    elif stale := the_book.check(Path.cwd(), recipe):
        print("\n".join(f"{page}: stale, because {why}" for page, why in stale))
        raise typer.Exit(1)
    else:
        print("every page is up to date")


def main() -> None:
    """Run the command line and turn our own errors into one line and exit status 1."""
    try:
        if distributed.is_started_together():
            # what torch prints of a broken connection buries our line that says which process is gone
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
            _run_together(distributed.world())
        else:
            app()
    except PCIError as error:
        print(f"pci: {_visible(str(error))}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as error:
        if error.code == 130:  # typer's way to tell of Ctrl-C
            print(STOPPED, file=sys.stderr)
        raise


def _visible(text: str) -> str:
    """Return a message with its control characters written out: what a file says must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def _run_together(world: World) -> None:
    """Run the command line as one of several processes: the first speaks, and an error in one ends all."""
    if not world.is_first:
        sys.stdout = open(os.devnull, "w")  # until the process ends  # noqa: SIM115
    try:
        with world.guard():
            app()
    except PCIError as error:
        world.report(error)
        world.abandon()
    except SystemExit as error:
        if not error.code:
            world.close()
            raise
        if world.is_first and error.code == 130:
            print(STOPPED, file=sys.stderr)
        world.abandon(int(error.code))


if __name__ == "__main__":
    main()
