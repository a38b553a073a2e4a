"""CellDataset: written by blocks, read by rows, and refused when something does not fit."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pci_core.cells import CROPS, HEADER, TABLE, CellDataset, CellWriter, Channel, CropsFile, check_table, image_starts
from pci_core.errors import CellTableError, DatasetError

CHANNELS = (Channel("protein", "protein"), Channel("marker", "structural"))


def rows(n: int, image: str = "a", first: int = 0) -> pd.DataFrame:
    return pd.DataFrame({"cell_id": [f"{image}{i}" for i in range(first, first + n)], "image": image})


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_what_is_written_is_read(tmp_path: Path, dtype: str) -> None:
    crops = np.random.default_rng(0).integers(0, 250, (7, 2, 8, 12)).astype(dtype)
    with CellWriter(tmp_path / "d", CHANNELS, 0.25, recipe="r") as writer:
        writer.add(crops[:4], rows(4))
        writer.add(crops[4:], rows(3, "b"))
    dataset = CellDataset(tmp_path / "d")
    np.testing.assert_array_equal(dataset.crops, crops)
    np.testing.assert_array_equal(np.load(tmp_path / "d" / CROPS), crops)  # a plain .npy for everyone
    order = np.array([6, 0, 3, 3])
    np.testing.assert_array_equal(dataset.read(order), crops[order])
    assert dataset.starts.tolist() == [0, 4, 7]
    assert (dataset.n_protein, dataset.n_structural, dataset.um_per_px, dataset.info["recipe"]) == (1, 1, 0.25, "r")
    dataset.verify()


def test_a_failed_writing_leaves_the_older_dataset(tmp_path: Path, make_cells: Callable[..., CellDataset]) -> None:
    before = make_cells(name="d").sha256
    with pytest.raises(RuntimeError, match="cut"), CellWriter(tmp_path / "d", CHANNELS, None) as writer:
        writer.add(np.zeros((2, 2, 8, 8), np.uint8), rows(2))
        raise RuntimeError("cut")
    assert CellDataset(tmp_path / "d").sha256 == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d"]  # nothing temporary left


def test_crops_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="all crops of a dataset have one shape"), CellWriter(tmp_path / "d", CHANNELS, None) as writer:
        writer.add(np.zeros((1, 2, 8, 8), np.uint8), rows(1))
        writer.add(np.zeros((1, 2, 8, 12), np.uint8), rows(1, first=1))
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    crops = np.zeros((1, 2, 8, 8), np.float32)
    crops[0, 1, 3, 3] = bad
    with pytest.raises(DatasetError, match="NaN or infinite.*leave out"), CellWriter(tmp_path / "d", CHANNELS, None) as writer:
        writer.add(crops, rows(1))


def test_no_cell_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="not a single cell"), CellWriter(tmp_path / "d", CHANNELS, None):
        pass


def test_structural_before_protein_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="protein first"):
        CellWriter(tmp_path / "d", CHANNELS[::-1], None)


def test_table_without_image_and_with_double_ids() -> None:
    with pytest.raises(CellTableError, match="t.csv.*no column 'image'.*found: cell_id"):
        check_table(pd.DataFrame({"cell_id": ["a"]}), "t.csv")
    with pytest.raises(CellTableError, match="1 values of 'cell_id' occur more than once.*'a'"):
        check_table(pd.DataFrame({"cell_id": ["a", "a"], "image": "i"}), "t.csv")
    with pytest.raises(CellTableError, match=r"'image' is empty in rows \[1\]"):
        check_table(pd.DataFrame({"cell_id": ["a", "b"], "image": ["i", None]}), "t.csv")


def test_required_columns_must_hold_something(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells()
    dataset.require("protein", "location")
    dataset.table["location"] = ""
    with pytest.raises(CellTableError, match="no values in column 'location'.*field table"):
        dataset.require("protein", "location")


def test_cells_of_an_image_apart_are_refused() -> None:
    assert image_starts(["a", "a", "b"], "x").tolist() == [0, 2, 3]
    with pytest.raises(DatasetError, match="next to each other"):
        image_starts(["a", "b", "a"], "x")


def test_damage_is_named(tmp_path: Path, make_cells: Callable[..., CellDataset]) -> None:
    folder = make_cells(name="d").folder
    crops = (folder / CROPS).read_bytes()
    (folder / CROPS).write_bytes(crops[:-10])
    with pytest.raises(DatasetError, match="damaged part of a cell dataset"):
        CellDataset(folder)
    (folder / CROPS).write_bytes(crops[:-1] + bytes([crops[-1] ^ 1]))
    with pytest.raises(DatasetError, match=f"{CROPS} changed after it was written"):
        CellDataset(folder).verify()
    (folder / CROPS).write_bytes(crops)
    header = json.loads((folder / HEADER).read_text())
    (folder / HEADER).write_text(json.dumps({**header, "um_per_px": 5.0}))
    with pytest.raises(DatasetError, match=f"{HEADER} was changed after it was written"):
        CellDataset(folder)
    del header["header_sha256"], header["provenance"]  # as before there were any
    (folder / HEADER).write_text(json.dumps(header))
    assert CellDataset(folder).um_per_px == header["um_per_px"]
    more = {**header, "channels": [*header["channels"], {"name": "third", "role": "structural"}]}
    (folder / HEADER).write_text(json.dumps(more))
    with pytest.raises(DatasetError, match="3 channels"):
        CellDataset(folder)
    (folder / TABLE).unlink()
    with pytest.raises(DatasetError, match=f"{TABLE} is missing"):
        CellDataset(folder)


def test_neighbours_are_one_read_and_changes_are_seen(make_cells: Callable[..., CellDataset], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_cells(dtype="uint16")
    reads: list[tuple[int, int]] = []
    original = CropsFile.read

    def spy(self: CropsFile, first: int, out: np.ndarray) -> None:
        reads.append((first, len(out)))
        original(self, first, out)

    monkeypatch.setattr(CropsFile, "read", spy)
    rows = np.array([3, 4, 5, 9, 8, 20, 21, 0, 0])
    np.testing.assert_array_equal(dataset.read(rows), dataset.crops[rows])
    assert reads == [(3, 3), (9, 1), (8, 1), (20, 2), (0, 1), (0, 1)]
    assert dataset.read(rows[:0]).shape == (0, 2, 16, 16)
    content = (dataset.folder / CROPS).read_bytes()
    time.sleep(0.02)  # coarser than the clock of some file systems
    (dataset.folder / CROPS).write_bytes(content)
    with pytest.raises(DatasetError, match="was written to after it was opened"):
        dataset.read(rows)


def test_a_read_that_comes_in_pieces_is_put_together(make_cells: Callable[..., CellDataset], monkeypatch: pytest.MonkeyPatch) -> None:
    class Pieces(io.FileIO):  # as the system does beyond 2 GB
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            return super().readinto(buffer[:300]) or 0

    dataset = make_cells()
    monkeypatch.setattr("builtins.open", lambda path, mode, buffering: Pieces(path, mode))
    np.testing.assert_array_equal(dataset.read(np.arange(2, 9)), dataset.crops[2:9])


MEMORY = """
import resource, sys
import numpy as np
from pathlib import Path
from pci_core.cells import CellDataset
dataset = CellDataset(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for start in range(0, len(dataset), 64):
    dataset.read(np.arange(start, min(start + 64, len(dataset))))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux reports it")
def test_reading_by_rows_keeps_memory_flat(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells(images=20, cells=200, side=64)  # 32 MB of crops
    grown = subprocess.run([sys.executable, "-c", MEMORY, dataset.folder], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 8 * 1024  # KiB: a batch is 0.5 MB; mapping the file would add its 32 MB
