"""The steps that write, each with what lies there before it, and what counts of what it leaves: values, not dates and speeds."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import safetensors.torch
import tifffile
import torch
from made_up import OWN_RECIPE
from skimage.draw import disk

# what differs between two runs that made the same: times, speeds, the machine
_COST = re.compile(r"^(seconds|made|date|time|tried|.*_per_second|data_wait_share|hardware|mtime_ns|reason|received|tries|files|sha256)$")
_NOT_COMPARED = ("events.out.tfevents", "manifest.jsonl")
MAIN = "import sys; from pci_core.cli import main; sys.argv = ['pci', *{arguments!r}]; main()"
EVERY_BATCH = "import functools; from pci_core import run; run.train = functools.partial(run.train, checkpoint_seconds=0.0); "

SIMULATED = """
name = "sim"
title = "Simulated"
simulated = true
label = "location"
[[channels]]
name = "protein"
role = "protein"
[[channels]]
name = "rfp"
role = "structural"
[source]
kind = "simulate"
organism = "yeast"
modality = "rfp"
proteins = 2
images_per_protein = 1
fields_per_image = 1
seed = 0
[fields]
format = "stack"
order = ["protein", "rfp"]
um_per_px = 0.16
[segmentation]
method = "yeast"
channel = "rfp"
sigma = 1.5
min_area = 100
[crop]
size = 64
resize = 32
min_cells = 2
"""

OWN = (
    OWN_RECIPE.replace('label = "protein"', 'label = "location"')
    .replace("epochs = 2", "epochs = 3")
    .replace("holdout = 0.25", "holdout = 0.2")
)

NOTEBOOK = """
import pci_core as pci
nb = pci.notebook.begin("03_small", globals())
import pandas as pd
import matplotlib.pyplot as plt
means = pd.DataFrame({"protein": nb.cells.obs["protein"].to_numpy(), "mean": nb.cells.X.mean(1)}).groupby("protein").mean()
nb.table(means, "means")
figure, axes = plt.subplots(figsize=(2, 2))
axes.plot(means["mean"])
nb.figure(figure, "means")
nb.score("mean of all features", float(nb.cells.X.mean()), n_cells=nb.cells.n_obs)
nb.scores()
"""


@dataclass(frozen=True)
class Scene:
    """A step that writes.

    Attributes
    ----------
    name : str
    command : list of str, or str
        Arguments of ``pci``, or Python, run in the folder.
    before : tuple of commands
        What is made beforehand.
    again : callable, optional
        Changes what the step is made from, so that it is made again over an earlier result.
    env : dict
    load : tuple of str
        Modules to import before the fork.
    heavy : bool
        Takes seconds each time.
    refuses : bool
        Once it is done it refuses to do it again.
    """

    name: str
    command: list[str] | str
    before: tuple[list[str] | str, ...] = ()
    again: Callable[[Path], None] | None = None
    env: dict[str, str] = field(default_factory=dict)
    load: tuple[str, ...] = ()
    heavy: bool = False
    refuses: bool = False


def pci(*arguments: str) -> list[str]:
    return [*arguments, "--runs", "runs", "--device", "cpu", "--quiet"]


def _edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return edit


_ONE = ("--jobs", "1")
_SLOWER = ("--precision", "float32")
CELLS = pci("cells", "own/own.toml", *_ONE)
TRAIN = EVERY_BATCH + MAIN.format(arguments=pci("train", "own/own.toml", *_ONE, *_SLOWER))
FEATURES = pci("features", "own/own.toml", "untrained_conv1", "untrained_conv4", *_ONE, *_SLOWER)
BENCHMARK = pci("benchmark", "own/own.toml", "pixels", "untrained_conv1", "--classifiers", "knn,logistic", *_ONE, *_SLOWER)
EXPORT = pci("weights", "export", "own/own.toml", "--out", "out/own.safetensors")
IMPORT = ["weights", "import", "keras.h5", "--out", "out/keras.safetensors", "--channels", "gfp,rfp", "--quiet"]
BASELINES = pci("features", "own/own.toml", "pixels", "classic", "designed", "supervised", *_ONE, *_SLOWER)
_CROP, _EPOCHS = (
    _edit("own/own.toml", "size = 16\nresize = 16", "size = 20\nresize = 20"),
    _edit("own/own.toml", "epochs = 3", "epochs = 5"),
)
_WIDTH = _edit("own/own.toml", "width = 0.05", "width = 0.06")
_LABEL = _edit("own/own.toml", 'label = "location"', 'label = "protein"')
_RESCALING = _edit("own/own.toml", "[training]", '[preprocess]\nprotein = "clip"\nstructural = "clip"\n[training]')
_RUNS, _ATLAS, _SIMULATING = {"PCI_RUNS": "runs"}, ("pci_core.atlas", "umap"), ("pci_core.data.simulate.yeast",)
_TRAINING = ("torch.utils.tensorboard",)
_BASELINES = ("pci_core.baselines.supervised", "pci_core.baselines.classic", "pci_core.baselines.designed", "sklearn.linear_model")
_PAGES = ("pci_core.results", "pci_core.book", "papermill", "nbclient")
_EXECUTE = (
    "from pathlib import Path; from pci_core.executing import execute; "
    "execute(Path.cwd(), Path('notebooks/03_small.ipynb').resolve(), Path('_build/executed/own/03_small.ipynb').resolve(), "
    "{'recipe': str(Path('own/own.toml').resolve()), 'features': 'pixels'})"
)

SCENES = [
    Scene("simulate", pci("cells", "sim.toml", *_ONE), again=_edit("sim.toml", "seed = 0", "seed = 1"), load=_SIMULATING),
    Scene("cells", CELLS, again=_CROP),
    Scene("train", TRAIN, (CELLS,), _WIDTH, load=_TRAINING),
    Scene("train on", TRAIN, (CELLS,), _EPOCHS, load=_TRAINING),
    Scene("features", FEATURES, (CELLS,), _RESCALING),
    Scene("baselines", BASELINES, (CELLS,), _RESCALING, load=_BASELINES, heavy=True),
    Scene("benchmark", BENCHMARK, (CELLS,), _LABEL, load=("pci_core.comparison", "sklearn.linear_model"), heavy=True),
    Scene("atlas", pci("atlas", "own/own.toml", "--features", "pixels", "--out", "atlas.html"), (CELLS,), load=_ATLAS, heavy=True),
    Scene("weights export", EXPORT, (CELLS, TRAIN), load=("pci_core.export",)),
    Scene("weights import", IMPORT, load=("pci_core.imported",)),
    Scene("init", ["init", "plate", "--out", "plate-pci", "--quiet"], load=("pci_core.init",), heavy=True, refuses=True),
    Scene("results", ["results", "own/own.toml", "--features", "pixels"], (CELLS,), _RESCALING, _RUNS, _PAGES, heavy=True),
    Scene("notebook", _EXECUTE, (CELLS,), _RESCALING, _RUNS, _PAGES, heavy=True),
    Scene("book", ["book", "--recipe", "own/own.toml"], (CELLS,), _RESCALING, _RUNS, _PAGES, heavy=True),
]  # fmt: skip


def furnish(folder: Path) -> None:
    """Write what all scenes start from: images with their recipe, a simulated recipe, a plate, Keras weights, a small book."""
    own = folder / "own"
    own.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(6):
        name = f"i{i}"
        image = rng.integers(0, 200, (2, 64, 64)).astype(np.uint16)
        image[0] += np.uint16(300 * (i % 2)) * (np.arange(64) % 4 < 2).astype(np.uint16)
        labels = np.zeros((64, 64), np.uint16)
        for number, (y, x) in enumerate([(12, 12), (12, 40), (40, 12), (40, 40)], 1):
            labels[y : y + 8, x : x + 8] = number
        tifffile.imwrite(own / f"{name}.tif", image, photometric="minisblack")
        tifffile.imwrite(own / f"{name}_labels.tif", labels)
        rows.append({"field": name, "image": name, "path": f"{name}.tif", "labels": f"{name}_labels.tif", "protein": f"P{i}"})
    pd.DataFrame(rows).assign(location=["a", "b"] * 3).to_csv(own / "fields.csv", index=False)
    (own / "own.toml").write_text(OWN)
    (folder / "sim.toml").write_text(SIMULATED)
    _plate(folder / "plate")
    _keras(folder / "keras.h5")
    _book(folder)


def _plate(folder: Path) -> None:
    folder.mkdir()
    for k, name in enumerate(("A01_f1", "B02_f1")):
        rng = np.random.default_rng(k)
        marker, gfp = rng.normal(100, 6, (2, 128, 128))
        for y in range(22, 108, 32):
            for x in range(22, 108, 32):
                marker[disk((y, x), 9, shape=marker.shape)] += 800
                gfp[disk((y, x), 9, shape=gfp.shape)] += 300
        for channel, plane in (("rfp", marker), ("gfp", gfp)):
            tifffile.imwrite(folder / f"{name}_{channel}.tif", plane.clip(0).astype(np.uint16))


def _keras(path: Path) -> None:
    from test_keras_h5 import keras_file, random_model

    keras_file(random_model()).write(path)


def _book(folder: Path) -> None:
    (folder / "book").mkdir()
    (folder / "book" / "intro.md").write_text("# Start\n\nA page.\n")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/intro\nchapters:\n  - file: notebooks/03_small\n")
    (folder / "_config.yml").write_text(
        "title: Small\nauthor: us\ncopyright: '2026'\nonly_build_toc_files: true\nexecute:\n  execute_notebooks: 'off'\n"
        "sphinx:\n  config:\n    mathjax_path: mathjax/tex-svg.js\n"
    )
    cells: list[dict[str, Any]] = [{"cell_type": "markdown", "id": "c0", "metadata": {}, "source": "# A page"}]
    for i, (source, tags) in enumerate([('recipe = "own"\nlayer = ""\nfeatures = "pixels"\nseed = 0', ["parameters"]), (NOTEBOOK, [])], 1):
        cells.append({"cell_type": "code", "id": f"c{i}", "metadata": {"tags": tags}, "source": source, "outputs": [],
                      "execution_count": None})  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (folder / "notebooks").mkdir()
    content = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (folder / "notebooks" / "03_small.ipynb").write_text(json.dumps(content))


# --- what counts


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of what counts in every file, by its path in `folder`."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.suffix == ".lock" or path.name == ".lock" or any(part in path.name for part in _NOT_COMPARED):
            continue
        if name.startswith(("_build/jupyter/", "_build/log/", "_build/sphinx")):
            continue
        found[name] = "there" if name.startswith(("_build/html", "_build/book-source")) else _digest(path)
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(b"".join(_parts(path))).hexdigest()


def _parts(path: Path) -> Iterator[bytes]:
    if path.suffix == ".h5ad":
        with h5py.File(path) as store:
            for name in ("X", "obs", "var", "obsm"):
                yield from _hdf5(store[name])
    elif path.suffix == ".safetensors":
        for name, value in sorted(safetensors.torch.load_file(path).items()):
            yield name.encode() + value.numpy().tobytes()
    elif path.suffix == ".pt":
        yield from _torch(torch.load(path, map_location="cpu", weights_only=True))
    elif path.suffix in (".csv", ".parquet") and path.parent.name != "own":
        table = pd.read_csv(path, dtype=str) if path.suffix == ".csv" else pd.read_parquet(path)
        if any(_COST.match(c) for c in table):
            yield table[[c for c in table if not _COST.match(c)]].to_csv().encode()
        else:
            yield path.read_bytes()
    elif path.suffix == ".json":
        content = _plain(json.loads(path.read_text()))
        if path.parent.name == "features":  # the stamp has the hash of the weights' file, whose card has times
            content = sorted(content)
        yield json.dumps(content, sort_keys=True).encode()
    elif path.suffix == ".ipynb":
        yield json.dumps(
            [[c["source"], [_output(o) for o in c.get("outputs", [])]] for c in json.loads(path.read_text())["cells"]]
        ).encode()
    elif path.suffix == ".svg":
        yield re.sub(rb"<dc:date>.*?</dc:date>|id=\"[^\"]*\"|#[A-Za-z0-9]+", b"", path.read_bytes())
    else:
        yield path.read_bytes()


def _hdf5(node: h5py.Group | h5py.Dataset) -> Iterator[bytes]:
    yield node.name.encode()
    if isinstance(node, h5py.Group):
        for name in sorted(node):
            yield from _hdf5(node[name])
    else:
        values = node[()]
        yield values.tobytes() if isinstance(values, np.ndarray) and values.dtype != object else repr(values).encode()


def _torch(value: Any) -> Iterator[bytes]:
    if isinstance(value, torch.Tensor):
        yield value.numpy().tobytes()
    elif isinstance(value, dict):
        for key in value:
            if not _COST.match(str(key)) and key != "losses":
                yield str(key).encode()
                yield from _torch(value[key])
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _torch(part)
    else:
        yield repr(value).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if not _COST.match(k)}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value


def _output(output: dict[str, Any]) -> Any:
    return {k: v for k, v in output.items() if k in ("text", "data", "name") and output.get("output_type") != "stream"}


def leftovers(folder: Path) -> list[str]:
    """Return what a step ought not leave: temporary names, half files, earlier versions that were moved aside."""
    found = []
    for path in folder.rglob("*"):
        temporary = path.name.startswith((".writing-", ".replaced-", ".training-", "tmp")) or path.name.endswith(
            ("-old", ".part", ".part.json")
        )
        if temporary and path.suffix != ".lock":
            found.append(path.relative_to(folder).as_posix())
    return found


def copy(source: Path, target: Path) -> Path:
    """Copy a scene with the times of its files, which tell a run whether images changed."""
    shutil.copytree(source, target, symlinks=True)
    return target
