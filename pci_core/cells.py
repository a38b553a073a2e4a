"""CellDataset: single-cell crops and their table on disk, the unit that everything else passes on.

A dataset is a folder with ``crops.npy`` (N, C, H, W), ``cells.parquet`` (one row a cell) and
``dataset.json``. Cells of one image lie next to each other, so that an image is a range of rows.
Raw intensities are kept; rescaling to [0, 1] belongs to `pci_core.preprocess`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd

from pci_core.errors import CellTableError, DatasetError
from pci_core.flags import COLUMN, Gate, Rule
from pci_core.provenance import record
from pci_core.reading import read_json, refusing
from pci_core.storage import as_storage_error, atomic_path, content_hash, file_sha256

CROPS, TABLE, HEADER = "crops.npy", "cells.parquet", "dataset.json"
DTYPES = ("uint8", "uint16", "float32")
_HEADER_HASH = "header_sha256"  # of dataset.json, within it
_DAMAGED, _AGAIN = "is a damaged part of a cell dataset", "Make it again with 'pci cells'."
_NPY_HEADER = 256  # fixed, so that the final shape can be written over the placeholder

TEXT_COLUMNS = (
    "cell_id", "image", "protein", "ensembl", "antibody", "cell_line", "location", "plate", "well", "field", COLUMN,
)  # fmt: skip
NUMBER_COLUMNS = ("y", "x", "area")


@dataclass(frozen=True)
class Channel:
    """One channel of the crops.

    Attributes
    ----------
    name : str
        Short name, e.g. ``"nucleus"``.
    role : str
        ``"protein"`` (varies from image to image) or ``"structural"`` (the same marker everywhere).
    """

    name: str
    role: str


def check_table(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Check a cell table and give it the column order and types of the contract.

    Parameters
    ----------
    table : DataFrame
        One row a cell, at least ``cell_id`` and ``image``.
    where : str
        File or step to name in an error.

    Returns
    -------
    DataFrame
        Known columns first; texts as ``str`` without missing values, numbers as float64.

    Raises
    ------
    CellTableError
        A needed column is missing, empty, or ``cell_id`` is not unique.
    """
    for column in ("cell_id", "image"):
        if column not in table:
            raise CellTableError(
                f"{where}: the cell table has no column '{column}' (found: {', '.join(map(str, table.columns))}). "
                "Each cell needs a unique 'cell_id' and the 'image' whose cells it may be paired with."
            )
        if table[column].isna().any():
            rows = np.flatnonzero(table[column].isna())[:5].tolist()
            raise CellTableError(f"{where}: column '{column}' is empty in rows {rows}; fill it for every cell.")
    table = table.reset_index(drop=True).copy()
    for column in table.columns:
        if column in TEXT_COLUMNS or (column not in NUMBER_COLUMNS and table[column].dtype == object):
            table[column] = table[column].fillna("").astype(str)
        elif column in NUMBER_COLUMNS:
            try:
                table[column] = table[column].astype("float64")
            except (TypeError, ValueError) as error:
                raise CellTableError(f"{where}: column '{column}' must hold numbers (px), found other things ({error}).") from error
    double = table["cell_id"][table["cell_id"].duplicated()]
    if len(double):
        raise CellTableError(
            f"{where}: {len(double)} values of 'cell_id' occur more than once, e.g. {double.iloc[:3].tolist()}. "
            "Make them unique, for instance <image>_<field>_<number>."
        )
    known = [c for c in TEXT_COLUMNS + NUMBER_COLUMNS if c in table]
    return table[known + [c for c in table.columns if c not in known]]


def image_starts(image: Sequence[str] | pd.Series, where: str) -> np.ndarray:
    """Return the first row of each image and, at the end, the number of rows: (images + 1,) int64.

    Raises
    ------
    DatasetError
        The cells of an image do not lie next to each other.
    """
    names = np.asarray(image, dtype=object)
    change = np.flatnonzero(names[1:] != names[:-1]) + 1 if len(names) else np.empty(0, int)
    starts = np.concatenate([[0], change, [len(names)]]) if len(names) else np.zeros(1)
    firsts = names[starts[:-1].astype(int)]
    if len(set(firsts)) != len(firsts):
        raise DatasetError(f"{where}: cells of one image do not lie next to each other; sort the table by 'image'.")
    return starts.astype(np.int64)


def _read_header(path: Path) -> dict[str, Any]:
    """Read ``dataset.json`` and hold it against its own hash; headers written before there was one have none."""
    info = read_json(path, DatasetError, _AGAIN)
    kept = info.pop(_HEADER_HASH, None)
    if kept != content_hash(info) and (kept is not None or "provenance" in info):  # they came together: its name may be what is damaged
        raise DatasetError(f"{path} was changed after it was written (sha256 {str(kept)[:12]}…). {_AGAIN}")
    with refusing(path, DatasetError, _DAMAGED, _AGAIN):
        channels = [Channel(**c) for c in info["channels"]]
        size, files = info.get("um_per_px"), dict(info.get("files", {}))
    roles = [c.role for c in channels]
    if (
        "protein" not in roles
        or roles != sorted(roles)
        or set(roles) - {"protein", "structural"}
        or not all(isinstance(c.name, str) for c in channels)
    ):
        raise DatasetError(f"{path}: channels must be protein first, then structural; found {channels}. {_AGAIN}")
    if size is not None and not (isinstance(size, (int, float)) and 0 < size < math.inf):
        raise DatasetError(f"{path}: a pixel of {size!r} µm is none. {_AGAIN}")
    if not isinstance(info.get("sha256"), str) or not {CROPS, TABLE} <= set(files):
        raise DatasetError(f"{path} lacks the hashes of the crops and the table. {_AGAIN}")
    return info


def _stamp(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns


class CropsFile:
    """The opened ``crops.npy`` of a dataset; made by `CellDataset.opened`."""

    def __init__(self, handle: io.FileIO, path: Path, offset: int, stamp: tuple[int, int]) -> None:
        self._handle, self._path, self._offset, self._stamp = handle, path, offset, stamp

    def read(self, first: int, out: np.ndarray) -> None:
        """Fill `out`, (n, C, H, W) of the stored dtype and contiguous, with rows `first` to `first` + n.

        Raises
        ------
        DatasetError
            The file ends before.
        """
        row = out[0].nbytes
        flat = out.reshape(-1).view(np.uint8).data
        self._handle.seek(self._offset + first * row)
        done = 0
        while done < len(flat):  # the system gives at most 2 GB at a time
            got = self._handle.readinto(flat[done:])
            if not got:
                raise DatasetError(f"{self._path} ends early at cell {first + done // row}: it changed while it was read.")
            done += got

    def check(self) -> None:
        """Raise `DatasetError` if the file is not the one that the dataset was opened with."""
        if _stamp(os.fstat(self._handle.fileno())) != self._stamp:
            raise DatasetError(
                f"{self._path} was written to after it was opened, so the cells read may be mixed. Start again when nothing writes to it."
            )


class CellDataset:
    """Single-cell crops with their table.

    Parameters
    ----------
    folder : path-like
        A folder written by `CellWriter`.

    Attributes
    ----------
    crops : numpy.memmap
        (N, C, H, W), uint8, uint16 or float32, raw intensities, protein channel(s) first.
    table : DataFrame
        One row a cell, see DESIGN contract: ``cell_id``, ``image`` and what is known of the cell.
    channels : tuple of Channel
    um_per_px : float or None
        Size of a crop's pixel in µm, None where the source does not say.
    starts : ndarray
        (images + 1,) int64: image i is the rows ``starts[i]:starts[i + 1]``.
    info : dict
        All of ``dataset.json``: recipe, source, versions, sha256, counts of what was left out.

    Raises
    ------
    DatasetError
        A file is missing or does not fit the others.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        for name in (CROPS, TABLE, HEADER):
            if not (self.folder / name).is_file():
                raise DatasetError(f"{self.folder / name} is missing: this is no complete cell dataset. Make it again with 'pci cells'.")
        self.info: dict[str, Any] = _read_header(self.folder / HEADER)
        self.channels = tuple(Channel(**c) for c in self.info["channels"])
        with refusing(self.folder / CROPS, DatasetError, _DAMAGED, _AGAIN):
            self.crops = np.load(self.folder / CROPS, mmap_mode="r", allow_pickle=False)
        with refusing(self.folder / TABLE, DatasetError, _DAMAGED, _AGAIN):
            table = pd.read_parquet(self.folder / TABLE)
        self.table = check_table(table, str(self.folder / TABLE))
        self.um_per_px: float | None = self.info.get("um_per_px")
        shape = self.crops.shape
        if len(shape) != 4 or shape[0] != len(self.table) or shape[1] != len(self.channels):
            raise DatasetError(
                f"{self.folder / CROPS} has shape {shape}, but the table has {len(self.table)} cells and "
                f"{HEADER} {len(self.channels)} channels. Make it again with 'pci cells'."
            )
        self.starts = image_starts(self.table["image"], str(self.folder))
        self._offset = int(self.crops.offset)
        self._stamp = _stamp(os.stat(self.folder / CROPS))

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        n, c, h, w = self.crops.shape
        of = f"{n} cells of {len(self.starts) - 1} images"
        return f"<CellDataset {self.info.get('recipe', '')}: {of}, {c} channels, {h}x{w} px, {self.crops.dtype}>"

    @property
    def n_protein(self) -> int:
        """Number of protein channels; they come first."""
        return sum(c.role == "protein" for c in self.channels)

    @property
    def n_structural(self) -> int:
        """Number of structural channels."""
        return len(self.channels) - self.n_protein

    @property
    def sha256(self) -> str:
        """Hash of the crops and the table, as written by `CellWriter`; it is the identity of this dataset."""
        return str(self.info["sha256"])

    def require(self, *columns: str) -> None:
        """Raise `CellTableError` unless the table has these columns, each with at least one value."""
        for column in columns:
            if column not in self.table or (self.table[column].astype(str) == "").all():
                raise CellTableError(
                    f"{self.folder / TABLE} has no values in column '{column}', which this needs (it has: {', '.join(self.table)}). "
                    "Add the column to your field table, or name another one in the recipe."
                )

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Read crops by row without mapping the file, so that memory stays flat however large it is.

        Parameters
        ----------
        rows : ndarray of int
            Rows in any order.

        Returns
        -------
        ndarray
            (len(rows), C, H, W), the stored dtype.

        Raises
        ------
        DatasetError
            The file ends early or changed after this dataset was opened.
        """
        out = np.empty((len(rows), *self.crops.shape[1:]), self.crops.dtype)
        self.read_into(rows, out)
        return out

    def read_into(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Read crops by row into an array that is there already, e.g. page-locked memory; see `read`.

        Parameters
        ----------
        rows : ndarray of int
            (n,) rows in any order; a run of neighbours is one read.
        out : ndarray
            (n, C, H, W), the stored dtype, contiguous.

        Raises
        ------
        DatasetError
            The file ends early or changed after this dataset was opened.
        """
        if not len(rows):
            return
        ends = np.concatenate([np.flatnonzero(np.diff(rows) != 1) + 1, [len(rows)]])
        with self.opened() as file:
            begin = 0
            for first, end in zip(rows[np.concatenate([[0], ends[:-1]])].tolist(), ends.tolist(), strict=True):
                file.read(first, out[begin:end])
                begin = end

    @contextlib.contextmanager
    def opened(self) -> Iterator[CropsFile]:
        """Open the crops to read blocks of rows, without a mapping."""
        with open(self.folder / CROPS, "rb", buffering=0) as handle:
            file = CropsFile(handle, self.folder / CROPS, self._offset, self._stamp)
            yield file
            file.check()

    def verify(self) -> None:
        """Read all bytes and compare with the stored hash.

        Raises
        ------
        DatasetError
            The crops or the table are not the ones that were written.
        """
        found = {name: file_sha256(self.folder / name) for name in (CROPS, TABLE)}
        for name, digest in found.items():
            if digest != self.info["files"][name]:
                raise DatasetError(
                    f"{self.folder / name} changed after it was written (sha256 {digest[:12]}…). Make it again with 'pci cells'."
                )


class CellWriter:
    """Write a CellDataset block by block, in constant memory, whole or not at all.

    Use as a context manager; the folder appears under its name only if the block ends well.

    Parameters
    ----------
    folder : path-like
        Where the dataset shall be; an older one there is replaced at the end.
    channels : sequence of Channel
        Protein channel(s) first, then structural.
    um_per_px : float or None
        Size of a crop's pixel in µm.
    rule : Rule
        What becomes of flagged cells, see `pci_core.flags`; by default they stay, with the column ``flag``.
    **info
        More entries for ``dataset.json``: recipe, source, versions, counts of what was left out.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        channels: Sequence[Channel],
        um_per_px: float | None,
        *,
        rule: Rule = Rule(),  # noqa: B008  (frozen)
        **info: Any,
    ) -> None:
        roles = [c.role for c in channels]
        if "protein" not in roles or roles != sorted(roles) or set(roles) - {"protein", "structural"}:
            raise DatasetError(f"channels must be protein first, then structural; found {[(c.name, c.role) for c in channels]}.")
        self.folder, self.channels, self.um_per_px, self.info = Path(folder), tuple(channels), um_per_px, info
        self.n = 0
        self._gate = Gate(rule, roles.count("protein"))
        self._tables: list[pd.DataFrame] = []
        self._shape: tuple[int, ...] | None = None
        self._dtype: np.dtype[Any] | None = None

    def __enter__(self) -> CellWriter:
        self._context = atomic_path(self.folder, folder=True)
        self._temporary = self._context.__enter__()
        try:
            self._handle = open(self._temporary / CROPS, "wb")
            self._handle.write(b"\0" * _NPY_HEADER)
        except BaseException as error:  # nobody calls __exit__ after this
            self._context.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def add(self, crops: np.ndarray, table: pd.DataFrame) -> None:
        """Append cells; give the cells of one image one after another.

        Parameters
        ----------
        crops : ndarray
            (n, C, H, W), uint8, uint16 or float32, finite.
        table : DataFrame
            n rows with at least ``cell_id`` and ``image``.

        Raises
        ------
        DatasetError
            Shape or dtype differ from the first block's, or floats are not finite.
        """
        if crops.dtype.name not in DTYPES:
            raise DatasetError(f"crops of dtype {crops.dtype} cannot be stored; use one of {', '.join(DTYPES)}.")
        if self._shape is None:
            self._shape, self._dtype = crops.shape[1:], crops.dtype
            if len(self._shape) != 3 or self._shape[0] != len(self.channels):
                raise DatasetError(f"crops have shape {crops.shape}, expected (cells, {len(self.channels)} channels, height, width).")
        name = str(table["cell_id"].iloc[0]) if len(table) and "cell_id" in table else "?"
        if crops.shape[1:] != self._shape or crops.dtype != self._dtype:
            raise DatasetError(
                f"crop of cell {name} is {crops.dtype} {crops.shape[1:]}, the ones before it are {self._dtype} {self._shape}: "
                "all crops of a dataset have one shape and type. Crop them again with one size."
            )
        if len(crops) != len(table):
            raise DatasetError(f"{len(crops)} crops but {len(table)} table rows, at cell {name}.")
        if crops.dtype.kind == "f" and not np.isfinite(crops).all():
            raise DatasetError(f"crops at cell {name} hold NaN or infinite pixels; repair or leave out that image.")
        for kept, rows in self._gate.pass_through(crops, table):
            with as_storage_error(self.folder):
                self._handle.write(np.ascontiguousarray(kept).data)
            self._tables.append(rows)
            self.n += len(kept)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        except BaseException as error:
            self._abandon()
            self._context.__exit__(type(error), error, error.__traceback__)
            raise
        self._abandon()
        self._context.__exit__(kind, value, trace)

    def _abandon(self) -> None:
        """Close the crops; what a full disk keeps from being written was told already, or `_finish` has flushed it."""
        with contextlib.suppress(OSError):
            self._handle.close()

    def _finish(self) -> None:
        flagged = self._gate.summary()
        if not self.n and flagged["left_out"]:
            raise DatasetError(
                f"{self.folder}: {flagged['left_out']} of {flagged['cells_seen']} cells are flagged ({flagged['cells']}) and the rest are "
                f"in images below [crop] min_cells, so nothing is left. Set [crop] flagged = 'keep', or look at the images."
            )
        if not self.n or self._shape is None or self._dtype is None:
            raise DatasetError(f"{self.folder}: not a single cell to write. Check the filters of the recipe and 'pci info'.")
        header = repr({"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.n, *self._shape)})
        self._handle.seek(0)
        body = header.ljust(_NPY_HEADER - 11) + "\n"
        self._handle.write(b"\x93NUMPY\x01\x00" + (_NPY_HEADER - 10).to_bytes(2, "little") + body.encode("latin1"))
        self._handle.flush()
        table = check_table(pd.concat(self._tables, ignore_index=True), str(self.folder / TABLE))
        image_starts(table["image"], str(self.folder))
        table.to_parquet(self._temporary / TABLE, index=False)
        files = {name: file_sha256(self._temporary / name) for name in (CROPS, TABLE)}
        info = {
            "channels": [asdict(c) for c in self.channels],
            "um_per_px": self.um_per_px,
            **self.info,
            "flagged": flagged,
            "cells": self.n,
            "images": int(table["image"].nunique()),
            "files": files,
            "sha256": hashlib.sha256("".join(files.values()).encode()).hexdigest(),
        }
        made = record("cells", self.folder.name, recipe=self.info.get("recipe", ""), data=info["sha256"])
        info["provenance"] = made.plain()
        info = json.loads(json.dumps(info, default=str))  # as it will be read: the hash is of that
        info[_HEADER_HASH] = content_hash(info)
        (self._temporary / HEADER).write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
