"""Files that carry a program (pickles in any wrapping): refused with one of our errors, and the program does not run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import h5py
import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zarr

from pci_core import imported, pretrained, recipe
from pci_core.analysis.join import read_table
from pci_core.analysis.result import Benchmark
from pci_core.baselines import vgg16
from pci_core.book import _read_toc
from pci_core.cells import CROPS, HEADER, TABLE, CellDataset
from pci_core.checkpoint import load_checkpoint
from pci_core.data import deeploc_file, duloc, h5sc
from pci_core.errors import PCIError
from pci_core.features import read_features
from pci_core.imaging.labels import read_labels
from pci_core.imaging.pixels import read_pixels
from pci_core.keras_h5 import read_keras_h5
from pci_core.weights import load_safetensors

MARK = "PCI_FAULTS_MARK"
NEVER = ("pickle.load", "pickle.loads", "marshal.loads", "joblib.load", "yaml.load", "eval", "exec", "os.system")


class Program:
    """Unpickled, it makes the file that the environment names: whatever opens it has run a stranger's program."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os; open(os.environ['{MARK}'], 'w').close()",)


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(MARK, str(tmp_path / "it ran"))
    return tmp_path / "it ran"


def test_the_program_of_these_tests_would_run(mark: Path) -> None:
    pickle.loads(pickle.dumps(Program()))
    assert mark.exists()


def objects() -> np.ndarray:
    out = np.empty(1, object)
    out[0] = Program()
    return out


def as_npy(path: Path) -> None:
    with open(path, "wb") as handle:
        np.save(handle, objects(), allow_pickle=True)


def as_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Program()))


def as_joblib(path: Path) -> None:
    joblib.dump(Program(), path, compress=0)


def as_joblib_gz(path: Path) -> None:
    joblib.dump(Program(), path, compress=("gzip", 3))


def as_torch(path: Path) -> None:
    torch.save({"config": "{}", "state": Program()}, path)


def as_old_torch(path: Path) -> None:
    torch.save({"config": "{}", "state": Program()}, path, _use_new_zipfile_serialization=False)


def as_torch_script(path: Path) -> None:
    """A zip of TorchScript's kind: torch.load goes another way there."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps(Program()))
        archive.writestr("archive/data.pkl", pickle.dumps(Program()))
        archive.writestr("archive/version", "3\n")


def as_tar(path: Path) -> None:
    """The oldest form of PyTorch's files."""
    import tarfile

    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(Program())
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def as_npz(path: Path) -> None:
    with open(path, "wb") as handle:  # a path would get the suffix .npz
        np.savez(handle, crops=objects())


def as_parquet(path: Path) -> None:
    """pandas' own metadata and a column of an extension type that unpickles when it is read."""
    table = pa.table({"cell_id": ["a"], "image": ["i"], "f": [1.0]})
    field = pa.field("f", pa.float64(), metadata={b"ARROW:extension:name": b"arrow.py_extension_type",
                                                  b"ARROW:extension:metadata": pickle.dumps(Program())})  # fmt: skip
    schema = pa.schema([table.schema.field(0), table.schema.field(1), field], metadata={b"pandas": pickle.dumps(Program())})
    pq.write_table(table.cast(schema), path)


def as_hdf5(path: Path) -> None:
    """What PyTables and pandas keep in attributes, beside opaque values and texts, everywhere our readers look."""
    blob = np.void(pickle.dumps(Program(), protocol=0))
    with h5py.File(path, "w") as file:
        for name in ("layer_names", "model_config", "keras_version", "encoding-type", "column-order", "data1_columns", "CLASS", "TITLE"):
            file.attrs[name] = blob
        for group in ("obs", "obsm", "uns", "var", "model_weights"):
            file.create_group(group).attrs["column-order"] = blob
        file["X"] = blob
        for name in ("data1", "Index1", "Info1", "obsm/single_cell_images", "obs/_index"):
            file.create_dataset(name, data=np.array([blob, blob]))


def as_h5ad(path: Path) -> None:
    """A true feature set with a pickle as an opaque value among its facts."""
    adata = anndata.AnnData(
        np.ones((2, 2), np.float32), obs=pd.DataFrame({"cell_id": ["a", "b"]}, index=["a", "b"]), uns={"pci": {"dataset": "x"}}
    )
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["uns/pci"].create_dataset("object", data=np.void(pickle.dumps(Program())))
        file["uns/pci/object"].attrs["encoding-type"] = "pickle"
        file["uns/pci/object"].attrs["encoding-version"] = "0.1.0"


def as_zarr(path: Path) -> None:
    """Zarr format 2 has a codec that unpickles each chunk."""
    from numcodecs import Pickle

    array = zarr.create_array(store=str(path), shape=(4, 4), chunks=(4, 4), dtype="uint8", zarr_format=2, compressors=None)
    array[:] = 1
    header = (path / ".zarray").read_text()
    import json

    content = json.loads(header)
    content["dtype"], content["filters"], content["fill_value"] = "|O", [{"id": "pickle2", "protocol": 5}], None
    (path / ".zarray").write_text(json.dumps(content))
    for chunk in path.glob("0*"):
        chunk.write_bytes(Pickle().encode(objects()))


def as_yaml(path: Path) -> None:
    path.write_text(f"root: !!python/object/apply:os.system ['touch ${MARK}']\n")


def a_dataset_with(path: Path, crops: Callable[[Path], None]) -> None:
    """A cell dataset with a pickle for its crops."""
    path.mkdir()
    crops(path / CROPS)
    pd.DataFrame({"cell_id": ["a"], "image": ["i"]}).to_parquet(path / TABLE)
    (path / HEADER).write_text('{"channels": [{"name": "a", "role": "protein"}, {"name": "b", "role": "structural"}]}')


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], object]
    fine: bool = False  # the file may also be read: then without the program

    def __str__(self) -> str:
        return self.name


def _weights(path: Path) -> object:
    return pretrained.load_encoder(pretrained.find(str(path)).path)


CASES = [
    Case("labels.npy", as_npy, lambda p: read_labels(p, (4, 4))),
    Case("pickled.npy", as_pickle, lambda p: read_labels(p, (4, 4))),
    Case("cells-npy", lambda p: a_dataset_with(p, as_npy), CellDataset),
    Case("cells-pickle", lambda p: a_dataset_with(p, as_pickle), CellDataset),
    *(
        Case(f"checkpoint-{m.__name__}.pt", m, lambda p: load_checkpoint(p, {}))
        for m in (as_torch, as_old_torch, as_torch_script, as_tar, as_pickle, as_joblib, as_npz)
    ),
    *(
        Case(f"vgg16-{m.__name__}.pth", m, lambda p: vgg16.load_weights(p))
        for m in (as_torch, as_old_torch, as_torch_script, as_tar, as_pickle, as_joblib)
    ),
    *(Case(f"vgg16-{m.__name__}.safetensors", m, lambda p: vgg16.load_weights(p)) for m in (as_torch, as_pickle)),
    *(
        Case(f"weights-{m.__name__}{s}", m, _weights)
        for m in (as_torch, as_pickle, as_joblib)
        for s in (".safetensors", ".h5", ".pt", ".pkl", ".joblib", ".bin", ".keras")
    ),
    *(
        Case(f"import-{m.__name__}{s}", m, lambda p: imported.import_weights(p, p.with_suffix(".x.safetensors")))
        for m in (as_torch, as_pickle, as_hdf5)
        for s in (".h5", ".pt")
    ),
    *(Case(f"card-{m.__name__}.safetensors", m, load_safetensors) for m in (as_torch, as_pickle, as_npz)),
    Case("keras.h5", as_hdf5, read_keras_h5),
    Case("cells.h5sc", as_hdf5, lambda p: h5sc.init_recipe(p)),
    Case("deeploc.hdf5", as_hdf5, deeploc_file.read_parts),
    Case("features.h5ad", as_hdf5, lambda p: read_features(p)),
    Case("features-uns.h5ad", as_h5ad, lambda p: read_features(p), fine=True),
    Case("own-uns.h5ad", as_h5ad, read_table, fine=True),
    *(Case(f"own-{m.__name__}{s}", m, read_table) for m in (as_pickle, as_joblib, as_npz, as_hdf5) for s in (".h5ad", ".parquet", ".csv")),
    Case("own-joblib.csv.gz", as_joblib_gz, read_table),
    Case("own-ext.parquet", as_parquet, read_table, fine=True),
    Case("image.zarr", as_zarr, read_pixels),
    *(Case(f"image-{m.__name__}{s}", m, read_pixels) for m in (as_pickle, as_npy) for s in (".png", ".tif")),
    Case("benchmark.json", as_pickle, Benchmark.read),
    Case("recipe.toml", as_pickle, recipe.load),
    Case("toc.yml", as_yaml, _read_toc),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_program_in_a_file_does_not_run(case: Case, mark: Path, tmp_path: Path) -> None:
    path = tmp_path / case.name
    case.make(path)
    assert not mark.exists()  # making it does not run it
    try:
        case.read(path)
        read = True
    except PCIError as error:
        read = False
        assert case.name in str(error), f"the message does not name the file: {error}"
    assert not mark.exists(), "the program ran"
    assert case.fine or not read, "the file was taken for a good one"


def test_ready_tiles_with_a_program(mark: Path, tmp_path: Path) -> None:
    as_npz(tmp_path / "tiles_64.npz")
    pd.DataFrame(columns=list(duloc._COLUMNS)).to_csv(tmp_path / "tiles.csv", index=False)
    with pytest.raises(PCIError, match="tiles_64.npz"):
        duloc._ready(tmp_path, ["protein"], 64)
    assert not mark.exists()


def test_cellpose_models_are_read_without_programs() -> None:
    """Its networks are PyTorch files: older versions of PyTorch are told to take weights only."""
    from pci_core.imaging import cellpose

    assert "weights_only" in Path(cellpose.__file__).read_text(encoding="utf-8")


def test_nothing_in_the_package_unpickles() -> None:
    """No call of pickle, marshal, shelve, joblib.load, np.load or torch.load that could run a program."""
    import ast

    import pci_core

    wrong = []
    for path in sorted(Path(pci_core.__file__).parent.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if not any(word in text for word in ("pickle", "marshal", "shelve", "load(", "eval(", "exec(", "yaml", "shell")):
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            called, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            given_safely = {"np.load": ("allow_pickle", "False"), "torch.load": ("weights_only", "True")}.get(called)
            safe = called not in NEVER and (given_safely is None or given.get(given_safely[0]) == given_safely[1])
            if not safe or given.get("shell") == "True":
                wrong.append(f"{path.name}:{node.lineno} {called}")
    assert wrong == [] and os.environ.get(MARK) is None
