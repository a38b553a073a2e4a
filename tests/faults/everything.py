"""Make every kind of artefact in one folder: run twice by test_same_bytes.py, each time as on another day, in another place.

``python everything.py OUT JOBS DAYS PART ...``: OUT gets ``own/`` (a recipe with its images), ``runs/``, ``_build/`` and ``other/``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "tests") not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT / "tests"))

from made_up import OWN_RECIPE  # noqa: E402

SHORT = ("few",)
PARTS = (
    "fields",
    "cells",
    "training",
    "features",
    "more_features",
    "tables",
    "exports",
    "atlas",
    "notebooks",
    "all_notebooks",
    "book",
    "results",
)
RECIPE = OWN_RECIPE.replace('label = "protein"', 'label = "location"')


def on_another_day(days: int) -> None:
    """Let Python's clocks be ahead: what asks them for a date gets another one."""
    ahead, now, gmtime, localtime, strftime = days * 86400.0, time.time, time.gmtime, time.localtime, time.strftime
    time.time = lambda: now() + ahead
    time.gmtime = lambda s=None: gmtime(now() + ahead if s is None else s)
    time.localtime = lambda s=None: localtime(now() + ahead if s is None else s)
    time.strftime = lambda form, t=None: strftime(form, time.localtime() if t is None else t)


def write_images(folder: Path, proteins: int = 6) -> Path:
    """Write a user's own images: an image of two fields of four cells for each protein, with label images and a recipe."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    for i in range(proteins):
        for j in range(2):
            name = f"i{i}_f{j}"
            field = rng.integers(0, 200, (2, 64, 64)).astype(np.uint16)
            field[0] += np.uint16(300) * (np.arange(64) % (i + 2) < 1).astype(np.uint16)
            labels = np.zeros((64, 64), np.uint16)
            for number, (y, x) in enumerate([(10, 10), (10, 40), (40, 10), (40, 40)], 1):
                labels[y : y + 8, x : x + 8] = number
            tifffile.imwrite(folder / f"{name}.tif", field, photometric="minisblack")
            tifffile.imwrite(folder / f"{name}_labels.tif", labels)
            row = {"field": name, "image": f"i{i}", "path": f"{name}.tif", "labels": f"{name}_labels.tif", "protein": f"P{i}"}
            rows.append(row | {"location": "ab"[i % 2], "cell_line": f"line {j}"})
    pd.DataFrame(rows).to_csv(folder / "fields.csv", index=False)
    (folder / "own.toml").write_text(RECIPE)
    return folder / "own.toml"


def fields(out: Path, jobs: int) -> None:
    from pci_core.data.simulate import simulate
    from pci_core.recipe import load

    for name, more in (("simulated-human", {}), ("simulated-yeast", {}), ("simulated-yeast-brightfield", {})):
        source = load(name).replace(source={"proteins": 2, "images_per_protein": 1, "fields_per_image": 1, **more}).source
        (out / "other" / name).mkdir(parents=True)
        simulate(source, out / "other" / name, jobs=jobs, labels=True, progress=False)


def cells(out: Path, jobs: int) -> None:
    from pci_core.run import Run

    Run(out / "own" / "own.toml", jobs=jobs, quiet=True).cells()
    Run(out / "own" / "own.toml", jobs=jobs, quiet=True, sample=20).cells()


def training(out: Path, jobs: int) -> None:
    from pci_core.run import Run

    run = Run(out / "own" / "own.toml", jobs=jobs, device="cpu", precision="float32", quiet=True)
    for kind in ("pci", "autoencoder"):
        run.train(kind)


def features(out: Path, jobs: int) -> None:
    from pci_core.run import Run

    names = ["conv1", "conv3", "untrained_conv1", "autoencoder_conv1", "pixels", "classic"]
    Run(out / "own" / "own.toml", jobs=jobs, device="cpu", precision="float32", quiet=True).feature_files(names)


def few(out: Path, jobs: int) -> None:
    """Make one of each kind that needs no other program, for the short run."""
    from pci_core.notebook import Notebook
    from pci_core.plots import training_curve
    from pci_core.pretrained import export_encoder
    from pci_core.run import Run

    run = Run(out / "own" / "own.toml", jobs=jobs, device="cpu", precision="float32", quiet=True)
    run.feature_files(["conv1", "pixels"])
    nb = Notebook("04_test", run, "conv1", seed=3)
    nb.table(run.losses()[["epoch", "train_loss", "held_out_loss"]], "losses")
    nb.figure(training_curve(run.losses(), "a curve"), "curve")
    nb.score("one", 0.5, 0.4, 0.6, n_cells=nb.cells.n_obs)
    nb.scores()
    with run.recording([run.train() / "weights.safetensors"]):
        export_encoder(run.train() / "weights.safetensors", out / "other" / "own-pci.safetensors")


def more_features(out: Path, jobs: int) -> None:
    from pci_core.run import Run

    names = ["designed", "cellprofiler", "supervised", "conv4_mean"]
    Run(out / "own" / "own.toml", jobs=jobs, device="cpu", precision="float32", quiet=True).feature_files(names)


def tables(out: Path, jobs: int) -> None:
    from pci_core.comparison import compare
    from pci_core.notebook import Notebook
    from pci_core.plots import feature_set_accuracy, training_curve
    from pci_core.run import Run

    run = Run(out / "own" / "own.toml", jobs=jobs, device="cpu", precision="float32", quiet=True)
    found = compare(run, ["conv1", "pixels"], classifiers=["knn"], ks=[1])
    nb = Notebook("04_test", run, "conv1")
    nb.table(found.benchmark.scores, "scores")
    nb.figure(training_curve(run.losses(), "a curve"), "curve")
    scores = found.benchmark.scores
    nb.figure(feature_set_accuracy(scores, 0.2, "sets", {}, k=1, note=nb.note), "sets")
    nb.score("one", 0.5, 0.4, 0.6, n_cells=nb.cells.n_obs)
    nb.scores()


def exports(out: Path, jobs: int) -> None:
    from pci_core.export import export
    from pci_core.init import init_folder
    from pci_core.run import Run

    run = Run(out / "own" / "own.toml", jobs=jobs, device="cpu", precision="float32", quiet=True)
    export(run, out / "other" / "own-pci.safetensors", command="pci weights export own.toml")
    init_folder(out / "other" / "simulated-human", out / "other" / "init", "drawn", progress=False)


def atlas(out: Path, jobs: int) -> None:
    from pci_core.atlas import make
    from pci_core.run import Run

    make(Run(out / "own" / "own.toml", jobs=jobs, device="cpu", precision="float32", quiet=True), "conv1", out / "other" / "atlas.html")


def repository(out: Path) -> Path:
    """Lay out a repository with the real book and notebooks."""
    root = out / "repository"
    if not root.exists():
        for name in ("book", "notebooks"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns(".*"))
        for name in ("_config.yml", "_toc.yml"):
            shutil.copyfile(ROOT / name, root / name)
    return root


def notebooks(out: Path, jobs: int, names: tuple[str, ...] = ("01_training",)) -> None:
    from pci_core.executing import execute, recipe_argument

    root = repository(out)
    recipe = recipe_argument(str(out / "own" / "own.toml"))
    for name in names:
        more = {"epochs": 1, "width": None} if name.startswith("01") else {}
        execute(root, root / "notebooks" / f"{name}.ipynb", out / "other" / "executed" / f"{name}.ipynb", {"recipe": recipe, **more})


def all_notebooks(out: Path, jobs: int) -> None:
    from pci_core.errors import AnalysisNeedsError

    for path in sorted((ROOT / "notebooks").glob("0[2-9]*.ipynb")):
        try:
            notebooks(out, jobs, (path.stem,))
        except AnalysisNeedsError as needs:
            print(f"{path.stem}: {needs}")


def book(out: Path, jobs: int) -> None:
    """Build the whole book, all prose and the reference, with one notebook executed; the pages of the others say that they were not run."""
    from pci_core.book import build

    build(repository(out), str(out / "own" / "own.toml"), ["01"])


def results(out: Path, jobs: int) -> None:
    from pci_core.results import keep

    keep(repository(out), str(out / "own" / "own.toml"), ["conv1", "pixels"], ["04"])


def begin(out: Path) -> None:
    write_images(out / "own")
    (out / "other").mkdir()


def main(out: Path, jobs: int, days: int, parts: list[str]) -> None:
    on_another_day(days)
    os.environ["PCI_RUNS"] = str(out / "runs")
    begin(out)
    spent = {}
    for part in parts:
        began = time.process_time()
        globals()[part](out, jobs)
        spent[part] = round(time.process_time() - began, 1)
    print(json.dumps(spent))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
