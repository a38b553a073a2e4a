"""How much a file may grow when it is opened: small files that ask for gigabytes are refused before the memory is taken.

What is written compressed may be much larger than its file, and a stranger's file may say any size. The rule for everything that is
opened whole: up to `FREE` bytes whatever the file; beyond it `MOST` times the file's own size, which images of a microscope, with
their noise, and tables of numbers never reach.
"""

from __future__ import annotations

import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import anndata

FREE = 512 << 20
MOST = 200
DEFLATE = 1040  # deflate makes at most 1,032 bytes of one
_CHUNK = 256 << 20  # bytes of a piece that is unpacked at once


class GrowsError(ValueError):
    """A file that would grow too much; each reader turns it into its own error with the file's name."""


def check_growth(needed: int, stored: int, what: str = "it") -> None:
    """Refuse what would grow too much.

    Parameters
    ----------
    needed, stored : int
        Bytes once unpacked, as far as the file says, and bytes in the file.
    what : str
        For the message.

    Raises
    ------
    GrowsError
    """
    if needed > max(FREE, MOST * stored):
        raise GrowsError(
            f"{what} would take {needed / 1e9:,.1f} GB of memory, {needed // max(stored, 1):,} times what is stored of it; beyond "
            f"{FREE >> 20} MB no more than {MOST} times is opened"
        )


def check_stream(packed: bytes, size: int, what: str = "it") -> None:
    """Refuse a deflate stream that holds more than `size` bytes, before a library unpacks all of it.

    Only streams that could exceed `FREE` are looked at; they are unpacked once here, piece by piece.

    Raises
    ------
    GrowsError
    """
    if len(packed) * DEFLATE <= FREE:
        return
    unpacker, total = zlib.decompressobj(47), 0  # zlib or gzip, told by its head
    try:
        while packed and not unpacker.eof:
            total += len(unpacker.decompress(packed, 1 << 20))
            packed = unpacker.unconsumed_tail
            if total > size:
                raise GrowsError(f"{what} unpacks to more than the {size:,} bytes that it should have")
    except zlib.error:
        return  # damaged: the reader itself will say so


def check_arrays(file: h5py.Group) -> None:
    """Refuse an HDF5 file whose arrays, or single pieces of them, would grow too much.

    Raises
    ------
    GrowsError
    """
    found: list[GrowsError] = []

    def look(name: str, item: Any) -> bool | None:  # h5py wants no error raised inside
        try:
            if isinstance(item, h5py.Dataset) and not (item.is_virtual or item.external):
                _check_array(item, name)
        except GrowsError as error:
            found.append(error)
            return True
        return None

    file.visititems(look)
    if found:
        raise found[0]


def _check_array(data: h5py.Dataset, name: str) -> None:
    stored = int(data.id.get_storage_size())
    check_growth(data.size * data.dtype.itemsize if data.size else 0, stored, f"'{name}'")
    if data.chunks is None:
        return
    piece = int(np.prod(data.chunks, dtype=np.int64)) * data.dtype.itemsize
    if piece > _CHUNK and stored:
        raise GrowsError(
            f"'{name}' is stored in pieces of {piece / 1e6:,.0f} MB, more than the {_CHUNK >> 20} MB that are unpacked at once"
        )
    properties = data.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if filters.count(h5py.h5z.FILTER_DEFLATE) > 1:
        raise GrowsError(f"'{name}' is compressed twice")
    if h5py.h5z.FILTER_DEFLATE in filters and stored * DEFLATE > FREE:
        for place, size in _pieces(data):
            if size * DEFLATE > FREE:
                check_stream(data.id.read_direct_chunk(place)[1], piece, f"a piece of '{name}'")


def _pieces(data: h5py.Dataset) -> list[tuple[tuple[int, ...], int]]:
    out: list[tuple[tuple[int, ...], int]] = []
    data.id.chunk_iter(lambda info: out.append((info.chunk_offset, info.size)))
    return out


class _Bounded(io.RawIOBase):
    """The bytes behind a gzip file, an error where they grow too much."""

    def __init__(self, path: Path) -> None:
        self._handle = gzip.open(path, "rb")  # noqa: SIM115 closed with this stream
        self._stored, self._seen = path.stat().st_size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._handle.read1(len(buffer))
        self._seen += len(block)
        check_growth(self._seen, self._stored)
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._handle.close()
        super().close()


def open_gzip(path: Path) -> io.BufferedReader:
    """Open a gzip file for reading; `GrowsError` where it unpacks to too much."""
    return io.BufferedReader(_Bounded(path), 1 << 20)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(f.stat().st_size for f in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    yield from (f for f in folder.rglob("*") if f.is_file())


def read_h5ad(path: str | os.PathLike[str]) -> anndata.AnnData:
    """Read an AnnData file after a look at how much it would grow.

    Raises
    ------
    ValueError
        It would grow too much (`GrowsError`), or holds what AnnData cannot read.
    OSError
        No HDF5 file, or a damaged one.
    """
    import anndata  # here: a second, and most of what needs this module needs no AnnData

    with h5py.File(path, "r") as file:
        check_arrays(file)
    try:
        return anndata.read_h5ad(path)
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:  # of many kinds, its own among them, depending on what the file holds
        told = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise ValueError(f"it holds what AnnData cannot read: {told}") from error


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a table, with its index, after a look at how much it would grow: a column of one value takes nearly no room in the file.

    Raises
    ------
    GrowsError
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        facts = file.metadata
        check_growth(8 * facts.num_rows * facts.num_columns, path.stat().st_size)
        return pq.read_table(path, page_checksum_verification=True).to_pandas()


def check_torch(path: str | os.PathLike[str]) -> None:
    """Refuse a file of PyTorch with compressed parts: PyTorch stores them as they are, and unpacks those of a stranger whole.

    Raises
    ------
    GrowsError
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            packed = [i.filename for i in archive.infolist() if i.compress_type != zipfile.ZIP_STORED or i.file_size != i.compress_size]
        if packed:
            raise GrowsError(f"its part '{packed[0][:80]}' is compressed, which PyTorch never does")
