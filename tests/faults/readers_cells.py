"""Readers of cells: the folders of a run, and ready crops of other tools."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deeploc_files
import numpy as np
import pandas as pd
import test_h5sc
from made_up import CHANNELS, write_own_recipe
from readers import Reader, alike, anything, exact

from pci_core import recipe
from pci_core.cells import CellDataset, CellWriter
from pci_core.data import duloc, sources
from pci_core.data.h5sc import h5sc_cells
from pci_core.data.half_file import HalfFile
from pci_core.data.manifest import Manifest
from pci_core.data.measured import read_provided
from pci_core.logs import MEASURED
from pci_core.run import Run

_made: dict[str, Path] = {}


def _run(folder: Path) -> Run:
    return Run(folder / "own.toml", folder / "runs", device="cpu", jobs=1, quiet=True, training={"epochs": 1})


def whole_run(*files: str, train: bool = False) -> Callable[[Path], list[Path]]:
    """Copy a run whose cells and features (and network) are made, and return some of its files."""

    def make(folder: Path) -> list[Path]:
        kind = "trained" if train else "cells"
        if kind not in _made:
            made = Path(tempfile.mkdtemp(prefix="faults-run-", dir=os.environ.get("PCI_FAULTS_SCRATCH")))
            write_own_recipe(made / "own")
            run = _run(made / "own")
            run.features("pixels")
            if train:
                run.features("conv1")
            _made[kind] = made / "own"
        shutil.copytree(_made[kind], folder, dirs_exist_ok=True)  # with the files' times, as the stamps have them
        return [folder / "runs" / "own" / f for f in files]

    return make


def _cells(folder: Path) -> Any:
    dataset = _run(folder).cells()
    return [np.asarray(dataset.crops), dataset.table, dataset.um_per_px, [c.name for c in dataset.channels], dataset.sha256]


def _features(folder: Path) -> Any:
    found = _run(folder).features("pixels")["pixels"]
    facts = {k: v for k, v in found.uns["pci"].items() if k not in MEASURED}  # made again, they take another time
    return [np.asarray(found.X), found.obs, list(found.var_names), facts]


def _trained(folder: Path) -> Any:
    run = _run(folder)
    return [run.features("conv1")["conv1"].X, [p.detach() for p in run.model().parameters()]]


def _losses(folder: Path) -> pd.DataFrame:
    table = _run(folder).losses()
    return table[["epoch", "train_loss"]]


def _dataset(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    with CellWriter(folder / "cells", CHANNELS, 0.5, recipe="made-up") as writer:
        for i in range(3):
            table = pd.DataFrame({"cell_id": [f"i{i}_{j}" for j in range(6)], "image": f"i{i}", "protein": f"P{i}", "y": 1.0})
            writer.add(rng.integers(0, 200, (6, 2, 8, 8), dtype=np.uint8), table)
    return sorted((folder / "cells").iterdir())


def _read_dataset(folder: Path) -> Any:
    dataset = CellDataset(folder / "cells")
    dataset.verify()
    return [dataset.read(np.arange(len(dataset))), dataset.table, dataset.um_per_px, [c.name for c in dataset.channels], dataset.sha256]


def _h5sc(folder: Path) -> list[Path]:
    return [test_h5sc.write(folder / "cells.h5sc")]


def _read_h5sc(folder: Path) -> Any:
    import tomllib

    spec = recipe.parse(tomllib.loads(test_h5sc.RECIPE), "cells.toml", folder)
    cells = h5sc_cells(spec, folder / "out", progress=False)
    return {"crops": np.asarray(cells.crops), "cells": len(cells)}


def _deeploc(folder: Path) -> list[Path]:
    deeploc_files.write_file(folder / "chong_train.h5", n=8, dtype="u2", **deeploc_files.info(8))
    return [folder / "chong_train.h5"]


def _read_deeploc(folder: Path) -> Any:
    cells = deeploc_files.read(folder / "chong_train.h5", folder / "out")
    return {"crops": np.asarray(cells.crops), "cells": len(cells)}


def one_shape(good: dict[str, Any], found: dict[str, Any], path: Path) -> str:
    """HDF5 without check sums: whole finite crops; cells of a changed class are left out and counted, so there may be fewer."""
    crops = found["crops"]
    if crops.shape[1:] != good["crops"].shape[1:] or not 0 < len(crops) <= len(good["crops"]):
        return f"crops {crops.shape} instead of {good['crops'].shape}"
    return "" if crops.dtype.kind != "f" or np.isfinite(crops).all() else "NaN or infinite pixels"


def _provided(folder: Path) -> list[Path]:
    _deeploc(folder)
    deeploc_files.read(folder / "chong_train.h5", folder / "cells")
    return [folder / "cells" / "provided.parquet"]


def _duloc(folder: Path) -> tuple[Path, Path]:
    tiles = np.random.default_rng(0).integers(0, 250, (18, 4, 16, 16), dtype=np.uint8)
    rows = [
        {"folder": "img_comb1", "id": f"mixed_img{m}", "tile_row": r, "tile_col": c, "n_nuclei": 1,
         "fractions": "cytosol=0.25;nucleoplasm=0.75", "landmark_group": f"{m}{r}{c}"}
        for m in range(2) for r in range(3) for c in range(3)
    ]  # fmt: skip
    np.savez_compressed(folder / "tiles_16.npz", crops=tiles)
    pd.DataFrame(rows).to_csv(folder / "tiles.csv", index=False)
    return folder / "tiles_16.npz", folder / "tiles.csv"


def _read_duloc(folder: Path) -> Any:
    spec = recipe.load("hpa-duloc").replace(fields={"downscale": 32}, crop={"size": 16, "resize": 8}, source={"path": str(folder)})
    cells = duloc.duloc_cells(spec, folder / "out")
    return {"crops": np.asarray(cells.crops), "cells": len(cells)}


# --- notes beside files: what cannot be read counts as not there


def _half(folder: Path) -> list[Path]:
    (folder / "f.part").write_bytes(b"x" * 40)
    (folder / "f.part.json").write_text('{"url": "https://a/f", "version": "\\"tag\\"", "total": 100}')
    return [folder / "f.part.json"]


def _read_half(folder: Path) -> bool:
    found = HalfFile.read(folder / "f.part", "https://a/f")
    assert found is None or (found.url == "https://a/f" and isinstance(found.total, int) and found.total > 40)
    return True


def _manifest(folder: Path) -> list[Path]:
    manifest = Manifest(folder)
    for i in range(4):
        (folder / f"{i}.jpg").write_bytes(b"\xff\xd8" + bytes([i]) * 20)
        stat = (folder / f"{i}.jpg").stat()
        manifest.add(f"{i}.jpg", "https://a", "ok", bytes=stat.st_size, sha256="0" * 64, mtime_ns=stat.st_mtime_ns)
    return [manifest.journal]


def _read_manifest(folder: Path) -> bool:
    """A line that cannot be read is a file that is looked at again."""
    from pci_core.data.hpa import check_jpeg

    manifest = Manifest(folder)
    for i in range(4):
        assert manifest.has(f"{i}.jpg", check_jpeg) in (True, False)
    manifest.write_table()
    return True


def _place(folder: Path) -> list[Path]:
    sources.remember(recipe.load("chong").replace(source={"path": str(folder)}), folder / "data.txt")
    return [folder / "data.txt"]


def _read_place(folder: Path) -> str:
    spec = recipe.load("chong").replace(source={"path": "not-there"})
    with contextlib.redirect_stdout(io.StringIO()):
        return str(sources.located(spec, None, folder / "data.txt").source_path)


READERS = [
    Reader("run: crops.npy", whole_run("cells/crops.npy"), _cells, exact, named="cells"),
    Reader("run: cells.parquet", whole_run("cells/cells.parquet"), _cells, exact, named="cells"),
    Reader("run: dataset.json", whole_run("cells/dataset.json"), _cells, exact, text=True, named="cells"),
    Reader("run: stamp of the cells", whole_run("steps/cells.json"), _cells, exact, text=True),
    Reader("run: h5ad", whole_run("features/pixels.h5ad"), _features, exact),
    Reader("run: stamp of features", whole_run("steps/features/pixels.json"), _features, exact, text=True),
    Reader("run: stamp of a network", whole_run("steps/models/pci+epochs=1.json", train=True), _trained, exact, text=True, costly=True),
    Reader("run: weights", whole_run("models/pci+epochs=1/weights.safetensors", train=True), _trained, exact, costly=True),
    Reader("run: losses", whole_run("models/pci+epochs=1/losses.csv", train=True), _losses, alike, text=True, costly=True),
    Reader("cell dataset", _dataset, _read_dataset, exact, named="cells"),
    Reader("provided.parquet", _provided, lambda f: read_provided(CellDataset(f / "cells")), exact),
    Reader("h5sc", _h5sc, _read_h5sc, one_shape),
    Reader("deeploc hdf5", _deeploc, _read_deeploc, one_shape),
    Reader("duloc npz", lambda f: [_duloc(f)[0]], _read_duloc, exact),
    Reader("duloc csv", lambda f: [_duloc(f)[1]], _read_duloc, one_shape, text=True),
    Reader("half file", _half, _read_half, exact, text=True),
    Reader("manifest", _manifest, _read_manifest, exact, text=True),
    Reader("place of the data", _place, _read_place, anything, text=True),
]
