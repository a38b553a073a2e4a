"""DeepLoc's HDF5 files, read with h5py alone: plain numbers and texts of bounded size; nothing else is opened or run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from pci_core.errors import DatasetError
from pci_core.hdf5 import check_hdf5
from pci_core.reading import refusing
from pci_core.unpacking import check_arrays

SIDE = 64
WIDTH = 2 * SIDE * SIDE
_MAX_CELLS = 5_000_000
_MAX_COLUMNS = 10_000
_MAX_VALUES = 400_000_000  # measurements in one file: 3 GB
_MAX_CHUNK = 1 << 30  # bytes that reading one cell may unpack
_MAX_TEXT = 1000  # characters of one text
_MAX_SHRUNK = 2000  # times that stored bytes may grow when they are unpacked
_ROWS = 2048  # measurements are read so many rows at once


@dataclass
class Part:
    """One block of cells of a file: ``data1`` with ``Index1`` and ``Info1``, or the same with another number.

    Attributes
    ----------
    path : Path
    number : int
        Of the block.
    classes : list of str
        As the file names them.
    label : ndarray
        (n,) int: class of each cell, -1 none, -2 several.
    info : DataFrame or None
        (n, columns) of ``Info1``: float64, or texts.
    text : set of str
        Columns of `info` that hold texts.
    why : str
        Why there is no `info`.
    channels : str
        What the file says of its two images, empty = nothing.
    """

    path: Path
    number: int
    classes: list[str]
    label: np.ndarray
    info: pd.DataFrame | None
    text: set[str]
    why: str = ""
    channels: str = ""


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading; what h5py makes of damage becomes a `DatasetError`."""
    with refusing(path, DatasetError, "is damaged, cut short or no HDF5 file", "Download it again."), h5py.File(path, "r") as file:
        check_arrays(file)
        yield file


def read_parts(path: Path) -> list[Part]:
    """Read all of a file but the images.

    Raises
    ------
    DatasetError
        No HDF5 file, another layout, objects in place of plain values, or sizes that do not fit.
    """
    check_hdf5(path, DatasetError, "Download it again.")
    with open_file(path) as file:
        parts = []
        for number in itertools.takewhile(lambda i: f"data{i}" in file, itertools.count(1)):
            n = images(file, number, path).shape[0]
            classes, label = _labels(file, number, n, path)
            info, text, why = _info(file, number, n, path)
            parts.append(Part(path, number, classes, label, info, text, why, _channels(file, number, path)))
    if not parts:
        with open_file(path) as file:
            found = ", ".join(list(file)[:10])
        raise DatasetError(f"{path} has no 'data1': it is none of DeepLoc's files (it has: {found or 'nothing'}).")
    return parts


def images(file: h5py.File, number: int, path: Path) -> h5py.Dataset:
    """Return the images of a block, (n, 8192) numbers, checked but not read."""
    data = _plain(file, f"data{number}", path)
    if data.ndim != 2 or data.shape[1] != WIDTH or data.dtype.kind not in "uif":
        raise DatasetError(
            f"{path}: 'data{number}' is {data.dtype} {data.shape}; expected numbers (cells, {WIDTH}): two images of {SIDE}x{SIDE} px."
        )
    if not 0 < data.shape[0] <= _MAX_CELLS:
        raise DatasetError(f"{path}: 'data{number}' has {data.shape[0]:,} cells; from 1 to {_MAX_CELLS:,} can be read.")
    return data


def _channels(file: h5py.File, number: int, path: Path) -> str:
    """Return what the file says of its two images, where it says it in one text; refuse RFP before GFP."""
    key = f"data{number}_columns"
    if key not in file.attrs or file.attrs.get_id(key).shape not in ((), (1,)):
        return ""
    dtype = file.attrs.get_id(key).dtype
    if dtype.kind != "S" and h5py.check_string_dtype(dtype) is None:
        return ""
    text = _text(np.atleast_1d(file.attrs[key])[0])
    red, green = text.lower().find("rfp"), text.lower().find("gfp")
    if 0 <= red < green:
        raise DatasetError(f"{path} says of its images '{text}'; expected GFP first and RFP after it.")
    return text


def _plain(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """Return an array that lies in this file, as plain numbers or texts, and is no larger than its bytes allow."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise DatasetError(f"{path}: '{name}' is missing or a link to somewhere else. Only arrays within the file are read.")
    data = file[name]
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        raise DatasetError(f"{path}: '{name}' is no array within the file. Only such are read.")
    if data.dtype.kind not in "uifbS" and h5py.check_string_dtype(data.dtype) is None:
        raise DatasetError(
            f"{path}: '{name}' holds {data.dtype}, not plain numbers or texts. Objects are refused: reading them could run code."
        )
    if data.dtype.kind == "S" and data.dtype.itemsize > _MAX_TEXT:
        raise DatasetError(f"{path}: '{name}' holds texts of {data.dtype.itemsize} characters; {_MAX_TEXT} is the limit.")
    stored = data.id.get_storage_size()
    shrunk = bool(data.compression) or data.chunks is not None
    if data.nbytes > stored * (_MAX_SHRUNK if shrunk else 1):
        raise DatasetError(f"{path}: '{name}' claims {data.nbytes:,} bytes but {stored:,} are stored. The file is cut short or damaged.")
    if data.chunks and int(np.prod(data.chunks)) * data.dtype.itemsize > _MAX_CHUNK:
        raise DatasetError(f"{path}: '{name}' is stored in pieces of more than {_MAX_CHUNK >> 20} MB. Write it again in smaller ones.")
    return data


def _names(file: h5py.File, name: str, path: Path) -> list[str] | None:
    """Read names of columns, an array or an attribute of the file; None where there are none."""
    key = f"{name}_columns"
    if key in file:
        data = _plain(file, key, path)
        shape, dtype = data.shape, data.dtype
    elif key in file.attrs:
        data = None
        attribute = file.attrs.get_id(key)
        shape, dtype = attribute.shape, attribute.dtype
    else:
        return None
    if dtype.kind != "S" and h5py.check_string_dtype(dtype) is None:
        raise DatasetError(f"{path}: '{key}' holds {dtype}, not texts. Objects are refused: reading them could run code.")
    if len(shape) != 1 or shape[0] > _MAX_COLUMNS:
        raise DatasetError(f"{path}: '{key}' has shape {shape}; expected one name a column, at most {_MAX_COLUMNS:,}.")
    values = data[()] if data is not None else file.attrs[key]
    return [_text(v) for v in np.atleast_1d(values)]


def _text(value: Any) -> str:
    text = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
    return text[:_MAX_TEXT].strip("\0 \t\r\n")


def _labels(file: h5py.File, number: int, n: int, path: Path) -> tuple[list[str], np.ndarray]:
    index = _plain(file, f"Index{number}", path)
    classes = _names(file, f"Index{number}", path) or _names(file, "Index1", path)
    if classes is None:
        raise DatasetError(f"{path}: no array or attribute 'Index{number}_columns', which names the classes.")
    if index.shape != (n, len(classes)) or index.dtype.kind not in "uifb":
        raise DatasetError(
            f"{path}: 'Index{number}' is {index.dtype} {index.shape}; expected numbers ({n} cells, {len(classes)} classes), as there are "
            f"{n} images and {len(classes)} names of classes."
        )
    values = np.nan_to_num(index[()].astype(np.float64), nan=0.0)
    if not np.isin(values, (0, 1)).all():
        raise DatasetError(f"{path}: 'Index{number}' holds other values than 0 and 1, so no class can be told.")
    hits = values.sum(1)
    return classes, np.where(hits == 1, values.argmax(1), np.where(hits == 0, -1, -2))


def _info(file: h5py.File, number: int, n: int, path: Path) -> tuple[pd.DataFrame | None, set[str], str]:
    key = f"Info{number}"
    if key not in file:
        return None, set(), f"{path.name} has no '{key}'"
    data = _plain(file, key, path)
    names = _names(file, key, path) or _names(file, "Info1", path)
    if names is None or data.shape != (n, len(names)):
        named = "no names of columns" if names is None else f"{len(names)} names of columns"
        return None, set(), f"{path.name}: '{key}' has shape {data.shape}, there are {n} cells and {named}"
    if data.size > _MAX_VALUES:
        return None, set(), f"{path.name}: '{key}' holds {data.size:,} values, more than {_MAX_VALUES:,}"
    names = _unique(names)
    if data.dtype.kind in "uifb":
        return pd.DataFrame(data[()].astype(np.float64), columns=names), set(), ""
    values, text = np.full(data.shape, np.nan), set()
    for start in range(0, n, _ROWS):
        for j, column in enumerate(np.ascontiguousarray(data[start : start + _ROWS].T)):
            if j in text:
                continue
            try:
                values[start : start + _ROWS, j] = column.astype(np.float64)  # fast, but an empty text is an error
                continue
            except ValueError:
                pass  # a gap or a text
            told = pd.Series([_text(v) for v in column], dtype=object)
            numeric = pd.to_numeric(told, errors="coerce")
            values[start : start + _ROWS, j] = numeric
            if (numeric.isna() & ~told.str.lower().isin(("", "nan", "na", "none", "null"))).any():
                text.add(j)
    table = pd.DataFrame(values, columns=names)
    for j in sorted(text):
        table[names[j]] = pd.Series([_text(v) for v in data[:, j]], dtype=object)
    return table, {names[j] for j in text}, ""


def _unique(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}.{seen[name]}")
    return out
