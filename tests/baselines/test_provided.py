"""Measurements that came with the cells as a feature set, from made-up files of DeepLoc's form to a benchmark."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from deeploc_files import info, read, write_file

from pci_core import cli
from pci_core.analysis.paper import paper_figure
from pci_core.baselines.provided import provided
from pci_core.cells import CellDataset
from pci_core.data.measured import PROVIDED
from pci_core.errors import DatasetError
from pci_core.features import read_features
from pci_core.run import Run

N = 96


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of 48 cells of three classes; one measurement tells the class, one has gaps; nothing tells a well."""
    out = tmp_path / "datasets"
    out.mkdir()
    for seed, name in enumerate(("train", "test")):
        n = N // 2
        index = np.eye(4, dtype=np.uint8)[np.arange(n) % 4]
        more = info(n, {"Cells_Texture_RFP": [str(i % 4) for i in range(n)], "Sparse": ["nan" if i % 3 else "1.5" for i in range(n)]}, seed)
        area = more["Info1"][:, 0]
        area[0] = b""  # a gap
        write_file(out / f"Chong_{name}_set.hdf5", n, seed=seed, Index1=index, **more)
    return out


def test_values_are_those_of_the_source(folder: Path, tmp_path: Path) -> None:
    cells = read(folder, tmp_path / "cells")
    made = provided(cells)
    assert made.names == ["Cells_AreaShape_Area", "Cells_Texture_GFP", "Cells_Texture_RFP"]
    assert made.values.shape == (N, 3) and made.values.dtype == np.float32 and np.isfinite(made.values).all()
    assert made.facts["columns_dropped"] == "Sparse" and made.facts["values_filled"] == 2
    assert "ObjectNumber" in made.facts["columns_that_are_no_features"]
    row = int(np.flatnonzero(cells.table["cell_id"] == "Chong_train_set_00001")[0])
    np.testing.assert_allclose(made.values[row, 0], float(info(48)["Info1"][1, 0]), rtol=1e-6)  # float32


def test_rows_follow_the_cells(folder: Path, tmp_path: Path) -> None:
    cells = read(folder, tmp_path / "cells")
    table = pd.read_parquet(tmp_path / "cells" / PROVIDED)
    assert table["cell_id"].tolist() == cells.table["cell_id"].tolist()


def test_cells_without_measurements(make_cells: Callable[..., CellDataset], folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="their source has none.*--table"):
        provided(make_cells())
    write_file(tmp_path / "one.hdf5")
    with pytest.raises(DatasetError, match="one.hdf5 has no 'Info1'"):
        provided(read(tmp_path / "one.hdf5", tmp_path / "one"))


def test_a_changed_file_is_refused(folder: Path, tmp_path: Path) -> None:
    cells = read(folder, tmp_path / "cells")
    path = tmp_path / "cells" / PROVIDED
    pd.read_parquet(path).iloc[::-1].to_parquet(path, index=False)
    with pytest.raises(DatasetError, match="changed after it was written"):
        provided(cells)
    path.unlink()
    with pytest.raises(DatasetError, match="gone"):
        provided(cells)


def test_a_sample_of_the_cells_and_new_measurements(folder: Path, tmp_path: Path) -> None:
    def make(sample: int | None = None) -> np.ndarray:
        run = Run("chong", tmp_path / "runs", data=folder, sample=sample, jobs=1, quiet=True)
        adata = run.features("provided")["provided"]
        assert adata.uns["pci"]["model"] == "provided"
        return np.asarray(adata.X)

    whole, few = make(), make(40)
    assert len(whole) == N and 40 <= len(few) < N
    for name in ("train", "test"):  # the same cells with other measurements: the set is made again
        index = np.eye(4, dtype=np.uint8)[np.arange(N // 2) % 4]
        write_file(folder / f"Chong_{name}_set.hdf5", N // 2, seed=("train", "test").index(name), Index1=index, **info(N // 2, seed=7))
    assert make().shape == (N, 2)


def test_from_files_to_a_benchmark(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pci(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["pci", *arguments, "--data", str(folder), "--runs", str(tmp_path / "runs"), "--quiet"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code, capsys.readouterr().err
        return capsys.readouterr().out

    assert "96 cells of 96 images" in pci("cells", "chong")
    out = pci("features", "chong", "provided", "classic", "--jobs", "1")
    made = read_features(next(line for line in out.splitlines() if line.endswith("provided.h5ad")))
    assert made.n_vars == 3 and made.obs["location"].nunique() == 3
    out = pci("benchmark", "chong", "provided", "classic", "--classifiers", "knn", "--jobs", "1")
    assert "provided" in out and "classic" in out and "96 cells, 3 classes of 'location'" in out
    scores = pd.read_parquet(tmp_path / "runs" / "chong" / "tables" / "benchmark_scores.parquet")
    best = scores.query("features == 'provided' and k == 11 and left_out == 'cell'")["accuracy"].iloc[0]
    assert best > 0.8  # a column holds the class itself; the pixels are noise, where 1/3 is chance
    assert scores.query("features == 'classic' and k == 11 and left_out == 'cell'")["accuracy"].iloc[0] < 0.6
    assert paper_figure("provided") == paper_figure("cellprofiler")  # the paper's row of CellProfiler was made of these
