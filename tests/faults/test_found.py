"""What damaged files brought to light once, each cause as a small test of its own."""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from pci_core import hdf5, recipe
from pci_core.analysis.join import read_table
from pci_core.analysis.neighbours import read_genes
from pci_core.baselines.vgg16 import load_weights
from pci_core.cells import CellDataset
from pci_core.checkpoint import load_checkpoint, save_checkpoint
from pci_core.data.archives import unpack
from pci_core.data.sources import located
from pci_core.data.table import read_field_table
from pci_core.errors import CellTableError, CheckpointError, DatasetError, DownloadError, ImageError, PCIError, RecipeError, StaleError
from pci_core.features import read_features
from pci_core.imaging.labels import read_labels
from pci_core.imaging.pixels import read_pixels
from pci_core.reading import read_csv, read_json, refusing
from pci_core.run import Run
from pci_core.steps import Steps
from pci_core.weights import load_safetensors, save_safetensors


def flip(path: Path, place: int, bit: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(bytes(content))


# --- errors of libraries that nobody had listed


def test_a_library_error_of_any_kind_becomes_ours_and_our_own_go_through(tmp_path: Path) -> None:
    for error in (
        ZeroDivisionError("x"),
        MemoryError(),
        RecursionError(),
        AssertionError(),
        KeyError("a"),
        OSError(22, "Invalid argument"),
    ):
        with (
            pytest.raises(ImageError, match=r"f\.tif is damaged \(.+\)\. Copy it again\.$"),
            refusing("f.tif", ImageError, "is damaged", "Copy it again."),
        ):
            raise error
    with pytest.raises(RecipeError, match="ours"), refusing("f.tif", ImageError, "is damaged", ""):
        raise RecipeError("ours")
    with pytest.raises(ModuleNotFoundError), refusing("f.tif", ImageError, "is damaged", ""):
        raise ModuleNotFoundError("a library that is not installed is no damage")
    with pytest.raises(ImageError, match="you may not read it"), refusing("f.tif", ImageError, "is damaged", ""):
        raise PermissionError(13, "Permission denied")
    with pytest.raises(KeyboardInterrupt), refusing("f.tif", ImageError, "is damaged", ""):
        raise KeyboardInterrupt


def test_a_tiff_whose_header_holds_a_zero(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((3, 20, 30), np.uint16), photometric="minisblack")
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.tags["RowsPerStrip"].valueoffset
    content = path.read_bytes()
    path.write_bytes(content[:place] + bytes(4) + content[place + 4 :])
    with pytest.raises(ImageError, match=r"a\.tif"):
        read_pixels(path)


def test_a_header_of_npy_that_is_no_python(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((20, 30), np.uint16))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"}", b"(", 1))
    with pytest.raises(ImageError, match=r"a\.npy cannot be read as a plain array"):
        read_labels(tmp_path / "a.npy", (20, 30))


@pytest.mark.parametrize("damage", [lambda c: c[:-9], lambda c: c[:60] + b"\0" * 20 + c[80:]])
def test_a_damaged_gzip_of_features(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    text = "cell_id,a\n" + "".join(f"c{i},{i * 7 % 13}\n" for i in range(200))
    (tmp_path / "a.csv.gz").write_bytes(damage(gzip.compress(text.encode(), mtime=0)))
    with pytest.raises(CellTableError, match=r"a\.csv\.gz cannot be read as csv"):
        read_table(tmp_path / "a.csv.gz")


@pytest.mark.parametrize("content", [b"", b"gene\n\xff\n", b"gene,x\nA,1,2\n"])
def test_a_file_of_genes_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "g.csv").write_bytes(content)
    with pytest.raises(CellTableError, match=r"g\.csv cannot be read as names of genes"):
        read_genes(str(tmp_path / "g.csv"))


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "{", "\udcff", "null"])
def test_json_that_is_no_object(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json", DatasetError, "Make it again.")
    assert Steps(tmp_path).stamp("a") is None
    assert not Steps(tmp_path).is_made("a", {}, [])


def test_a_zip_that_points_before_its_beginning(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "x" * 500)
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content[:4] + content[300:])
    with pytest.raises(DownloadError, match=r"a\.zip"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("text", [b"\xff\xfe", b"/a\0b"])
def test_a_note_of_the_folder_that_is_no_path(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "data_folder.txt").write_bytes(text)
    with pytest.raises(RecipeError, match=r"data_folder\.txt does not tell"):
        located(recipe.load("chong").replace(source={"path": "nowhere"}), None, tmp_path / "data_folder.txt")


# --- check sums that were there and not looked at, or not there


def test_a_flipped_bit_in_a_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 60_000, (40, 40), dtype=np.uint16)).save(path)
    path_size = path.stat().st_size
    answers = set()
    for place in range(60, path_size - 30, 41):
        flip(path, place)
        with pytest.raises(ImageError, match=r"a\.png"):
            answers.add(read_pixels(path).tobytes())
        flip(path, place)
    read_pixels(path)


def test_a_flipped_bit_in_weights_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.arange(1000.0)}, path)
    content = path.read_bytes()
    flip(path, content.index(torch.arange(1000.0).numpy().tobytes()[400:440]))
    with pytest.raises(CheckpointError, match=r"a\.pth is damaged .*check sum"):
        load_weights(path)


def test_a_checkpoint_knows_its_content(tmp_path: Path) -> None:
    path, config = tmp_path / "checkpoint.pt", {"a": 1}
    content: dict[str, Any] = {
        "config": json.dumps(config),
        "model": {"w": torch.arange(500.0)},
        "epoch": 3,
        "losses": [{"loss": 0.5}],
        "none": None,
    }
    save_checkpoint(path, content)
    assert load_checkpoint(path, config)["epoch"] == 3
    flip(path, path.read_bytes().index(torch.arange(500.0).numpy().tobytes()[400:440]))
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt is damaged: its content is not what was written"):
        load_checkpoint(path, config)
    torch.save(content, path)  # as before there was a hash
    assert torch.equal(load_checkpoint(path, config)["model"]["w"], torch.arange(500.0))


def test_a_card_knows_its_content(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    card = {"um_per_px": 0.25, "crop": (64, 64), "channels": [{"name": "gfp"}]}
    save_safetensors({"w": torch.ones(3)}, path, card)
    assert load_safetensors(path)[1]["um_per_px"] == 0.25 and "card_sha256" not in load_safetensors(path)[1]
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.35"))
    with pytest.raises(CheckpointError, match=r"w\.safetensors: its card is not the one that was written"):
        load_safetensors(path)


def test_features_know_their_content(own_recipe: Path, tmp_path: Path) -> None:
    run = Run(own_recipe, tmp_path / "runs", device="cpu", jobs=1, quiet=True)
    path = run.feature_files("pixels")["pixels"]
    known = path.stat()
    values = np.asarray(read_features(path).X)[0, :20].tobytes()
    flip(path, path.read_bytes().index(values))
    with pytest.raises(StaleError, match=r"pixels\.h5ad is not what this run wrote"):
        run.features("pixels")
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))  # as a bad disk does it: the time stays
    with pytest.raises(DatasetError, match=r"pixels\.h5ad is no readable feature set"):
        read_features(path)


# --- a library that does not come back


@pytest.mark.parametrize("what", ["while True: pass", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"])
def test_hdf5_that_hangs_or_crashes_the_library(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 loops for ever on some damaged attributes; here the walk through the file is told to."""
    anndata.AnnData(np.ones((3, 2), np.float32), obs=pd.DataFrame(index=list("abc"))).write_h5ad(tmp_path / "own.h5ad")
    assert read_table(tmp_path / "own.h5ad").n_obs == 3
    walk = hdf5._WALK.replace("def attributes", f"{what}\n\ndef attributes", 1)  # behind the limits, where files are walked
    assert walk.count(what) == 1
    limit = f"RLIMIT_CPU, {hdf5.SECONDS})"
    assert walk.count(limit) == 1
    walk = walk.replace(limit, "RLIMIT_CPU, 2)")  # seconds of nothing but looping
    monkeypatch.setattr(hdf5, "_WALK", walk)
    monkeypatch.setattr(hdf5, "_PATIENCE", 60)  # the limit on work ends it, not the clock
    for read in (read_table, read_features):
        with pytest.raises(PCIError, match=r"own\.h5ad is damaged: the HDF5 library comes to no end with it, or crashes"):
            read(tmp_path / "own.h5ad")


# --- tables whose columns shift


@pytest.mark.parametrize(
    "text", ["cell_id,a,b\nc1,1,2\nc2,3\n", "cell_id,a,b\nc1,1,2,3\n", 'cell_id,a,b\nc1,"1,2\nc2,3,4\n', "cell_id,a,b\nc1,1\0,2\n"]
)
def test_rows_that_are_not_as_wide_as_the_header(tmp_path: Path, text: str) -> None:
    (tmp_path / "own.csv").write_text(text)
    with pytest.raises(CellTableError, match=r"own\.csv cannot be read as csv"):
        read_table(tmp_path / "own.csv")
    with pytest.raises(Exception, match="line|quot|string|EOF|end of data"):
        read_csv(tmp_path / "own.csv")


def test_blank_lines_and_quoted_ones_are_no_damage(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_bytes(b'\xef\xbb\xbfcell_id,a,note\r\n\r\nc1,1,"two\r\nlines, and a comma"\r\n  \r\nc2,2,\r\n')
    assert read_csv(tmp_path / "own.csv")["a"].tolist() == [1, 2]
    assert read_table(tmp_path / "own.csv").X.tolist() == [[1.0], [2.0]]


def test_a_name_that_no_file_can_have(own_recipe: Path) -> None:
    table = own_recipe.parent / "fields.csv"
    rows = pd.read_csv(table)
    rows.loc[0, "path"] = "x" * 5000
    rows.to_csv(table, index=False)
    with pytest.raises(CellTableError, match="1 of 8 files of column 'path' are not there"):
        read_field_table(table, recipe.load(own_recipe))
    for name in ("x" * 5000 + ".toml", "x" * 5000, "a\0b.toml"):
        with pytest.raises(PCIError):
            recipe.load(name)
    with pytest.raises(CellTableError, match="is not there"):
        read_table("x" * 5000 + ".csv")


def test_a_header_of_another_dataset(make_cells: Callable[..., CellDataset]) -> None:
    folder = make_cells().folder
    table = pd.read_parquet(folder / "cells.parquet").assign(y="left")
    table.to_parquet(folder / "cells.parquet")
    with pytest.raises(CellTableError, match=r"cells\.parquet: column 'y' must hold numbers"):
        CellDataset(folder)


def test_a_look_at_hdf5_that_could_not_be_taken_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process that looks cannot start its work, the file is not opened as if it had been looked at."""
    import h5py

    from pci_core import hdf5
    from pci_core.errors import DatasetError

    with h5py.File(tmp_path / "good.h5", "w") as file:
        file["x"] = [1.0, 2.0]
        file.attrs["a"] = "b"
    hdf5.check_hdf5(tmp_path / "good.h5", DatasetError, "")
    monkeypatch.setattr(hdf5, "_WALK", "import no_such_module_at_all")
    with pytest.raises(DatasetError, match=r"good\.h5 was not opened.*no_such_module_at_all"):
        hdf5.check_hdf5(tmp_path / "good.h5", DatasetError, "")
