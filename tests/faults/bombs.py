"""Small files that ask for gigabytes, and a child process that opens them and tells how much memory that took.

    python bombs.py FOLDER [all]

writes the bombs one after another, opens each, and prints a line of JSON a bomb: its name, what came of it, the memory (bytes)
that this process had taken at most by then beyond what the bare libraries need.
"""

from __future__ import annotations

import io
import json
import resource
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
import torch

from pci_core.analysis.join import read_table
from pci_core.baselines import vgg16
from pci_core.cells import CROPS, HEADER, TABLE, CellDataset
from pci_core.checkpoint import load_checkpoint
from pci_core.data import deeploc_file, duloc, h5sc
from pci_core.data.hpa import check_jpeg
from pci_core.data.hpa_tables import read_locations
from pci_core.errors import PCIError
from pci_core.features import read_features
from pci_core.imaging.labels import label_shape, read_labels
from pci_core.imaging.pixels import read_layout, read_pixels
from pci_core.keras_h5 import read_keras_h5
from pci_core.weights import load_safetensors

BILLIONS = 3 << 30  # bytes that the bombs of compressed zeros hold: above the 2 GB that a reader may take
Bomb = tuple[str, Callable[[Path], None], Callable[[Path], object]]


def zeros(n: int = BILLIONS, ends: bool = True) -> bytes:
    """Return a zlib stream of `n` zeros without ever having them all."""
    packer = zlib.compressobj(9)
    head = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    tail = packer.flush()[:-4]
    a, b = 1, 0
    b = (b + n * a) % 65521  # adler32 of zeros
    return head + block * (n // (1 << 20) - 1) + tail + struct.pack(">I", (b << 16) | a) if ends else head + block * (n // (1 << 20) - 1)


def png(path: Path, width: int, height: int, depth: int = 8, colour: int = 0, data: bytes = b"") -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data or zlib.compress(bytes(1000))) + chunk(b"IEND", b""))


def png_text(path: Path) -> None:
    png(path, 8, 8, data=zlib.compress(bytes(72)))
    content = b"a\0\0" + zeros()
    text = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    whole = path.read_bytes()
    path.write_bytes(whole[:33] + text + whole[33:])


def jpeg(path: Path) -> None:
    stream = io.BytesIO()
    from PIL import Image

    Image.new("RGB", (16, 16)).save(stream, "JPEG")
    content = bytearray(stream.getvalue())
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
    path.write_bytes(bytes(content))


def tiff(path: Path, width: int, height: int, data: bytes, compression: int = 8, dtype_bits: int = 16) -> None:
    """Write a TIFF of one strip, whatever its bytes are."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, dtype_bits), (259, 3, compression), (262, 3, 1), (273, 4, 8), (277, 3, 1),
            (278, 4, height), (279, 4, len(data)), (339, 3, 1)]  # fmt: skip
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags) + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + ifd)


def tiff_in_a_circle(path: Path) -> None:
    """The second page leads back to the first."""
    tifffile.imwrite(path, np.zeros((2, 8, 8), np.uint8), photometric="minisblack", contiguous=False)
    with tifffile.TiffFile(path) as file:
        first, second = (p.offset for p in file.pages)
    content = bytearray(path.read_bytes())
    n = struct.unpack_from("<H", content, second)[0]
    struct.pack_into("<I", content, second + 2 + 12 * n, first)
    path.write_bytes(bytes(content))


def npy(path: Path, shape: tuple[int, ...], dtype: str = "<u2") -> None:
    with open(path, "wb") as handle:
        np.lib.format.write_array_header_2_0(handle, {"descr": dtype, "fortran_order": False, "shape": shape})
        handle.write(bytes(64))


def npy_long_header(path: Path) -> None:
    path.write_bytes(b"\x93NUMPY\x02\0" + struct.pack("<I", 0xFFFFFFF0) + b"{" * 1000)


def dataset_with(path: Path, shape: tuple[int, ...]) -> None:
    path.mkdir()
    npy(path / CROPS, shape)
    pd.DataFrame({"cell_id": ["a"], "image": ["i"]}).to_parquet(path / TABLE)
    (path / HEADER).write_text('{"channels": [{"name": "a", "role": "protein"}, {"name": "b", "role": "structural"}], "sha256": ""}')


def npz(path: Path, honest: bool) -> None:
    path.mkdir()
    stream = io.BytesIO()
    np.lib.format.write_array_header_2_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (BILLIONS,)})
    with (
        zipfile.ZipFile(path / "tiles_64.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("crops.npy", "w", force_zip64=True) as member,
    ):
        member.write(stream.getvalue())
        for _ in range((BILLIONS >> 24) if honest else 1):
            member.write(bytes(1 << 24))
    pd.DataFrame(columns=list(duloc._COLUMNS)).to_csv(path / "tiles.csv", index=False)


def hdf5_chunk(file: h5py.File, name: str, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...], data: bytes) -> h5py.Dataset:
    """Make an array whose only chunk holds `data` instead of what its shape says."""
    made = file.create_dataset(name, shape=shape, dtype=dtype, chunks=chunks, maxshape=(None,) * len(shape), compression="gzip")
    made.id.write_direct_chunk((0,) * len(shape), data)
    return made


def keras(path: Path, liar: bool) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1_1"]
        group = file.create_group("conv1_1")
        group.attrs["weight_names"] = [b"kernel"]
        if liar:
            hdf5_chunk(group, "kernel", (16, 16), "f4", (16, 16), zeros())
        else:
            group.create_dataset("kernel", shape=(1 << 30,), dtype="f4", chunks=(1 << 20,), compression="gzip")


def h5sc_file(path: Path, liar: bool) -> None:
    with h5py.File(path, "w") as file:
        shape = (4, 3, 8, 8)
        images = hdf5_chunk(file, h5sc.IMAGES, shape, "f4", shape, zeros() if liar else zlib.compress(bytes(4 * 3 * 64 * 4)))
        images.attrs["channel_names"], images.attrs["channel_mapping"] = ["a", "b", "c"], ["mask", "image_channel", "image_channel"]
        obs = file.create_group("obs")
        obs.attrs["column-order"] = ["scportrait_cell_id", "image"]
        obs.create_dataset("image", data=np.zeros(4))
        obs.create_dataset(
            "scportrait_cell_id", shape=(4,), maxshape=(None,), chunks=(1 << 28,), dtype="f8", compression="gzip", fillvalue=1.0
        )
        if not liar:
            obs["scportrait_cell_id"].id.write_direct_chunk((0,), zeros((1 << 28) * 8))


def read_h5sc(path: Path) -> object:
    with h5sc._open(path) as cells:
        return h5sc._read(cells, np.arange(4), [1, 2])


def deeploc(path: Path, liar: bool) -> None:
    with h5py.File(path, "w") as file:
        width = deeploc_file.WIDTH
        file.create_dataset("Index1", data=np.eye(2, 3))
        file.attrs["Index1_columns"] = np.array([b"a", b"b", b"c"])
        if liar:
            hdf5_chunk(file, "data1", (2, width), "f4", (2, width), zeros())
        else:
            file.create_dataset("data1", shape=(1_000_000, width), dtype="f4", chunks=(1, width), compression="gzip")


def read_deeploc(path: Path) -> object:
    deeploc_file.read_parts(path)
    with deeploc_file.open_file(path) as file:
        return deeploc_file.images(file, 1, path)[:2]


def h5ad(path: Path, liar: bool) -> None:
    import anndata

    obs = pd.DataFrame({"cell_id": ["a", "b"], "image": "i"}, index=["a", "b"])
    anndata.AnnData(np.ones((2, 2), np.float32), obs=obs, uns={"pci": {"dataset": "x"}}).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        kept = dict(file["X"].attrs)
        del file["X"]
        if liar:
            made = hdf5_chunk(file, "X", (2, 2), "f4", (2, 2), zeros())
        else:
            made = file.create_dataset("X", shape=(2, 1 << 29), dtype="f4", chunks=(1, 1 << 20), compression="gzip")
        made.attrs.update(kept)


def parquet(path: Path) -> None:
    """Two columns of nothing, 600 million rows long."""
    part = pa.table({"cell_id": pa.nulls(20_000_000, pa.string()), "f": pa.nulls(20_000_000, pa.float64())})
    with pq.ParquetWriter(path, part.schema, use_dictionary=False) as writer:
        for _ in range(30):
            writer.write_table(part, row_group_size=20_000_000)


def zarr_image(path: Path, liar: bool) -> None:
    import zarr

    shape, chunks = ((64, 64), (64, 64)) if liar else ((60_000, 60_000), (60_000, 1_000))
    zarr.create_array(store=str(path), shape=shape, chunks=chunks, dtype="uint16", zarr_format=2, compressors=_zlib())
    (path / "0.0").write_bytes(zeros() if liar else zeros(60_000 * 1_000 * 2 >> 20 << 20))


def _zlib() -> object:
    from numcodecs import Zlib

    return Zlib(level=1)


def torch_zip(path: Path) -> None:
    """A file of PyTorch with one of its parts deflated, which PyTorch itself never does."""
    stream = io.BytesIO()
    torch.save({"config": "{}", "a": torch.zeros(4)}, stream)
    with zipfile.ZipFile(stream) as good, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bad:
        for name in good.namelist():
            with bad.open(name, "w", force_zip64=True) as member:
                member.write(good.read(name))
                if name.endswith("data.pkl"):
                    for _ in range(BILLIONS >> 24):
                        member.write(bytes(1 << 24))


def csv_gz(path: Path) -> None:
    import gzip

    block = gzip.compress(b"0.0,0.0,0.0\n" * (1 << 20), 9)
    path.write_bytes(gzip.compress(b"cell_id,a,b\n") + block * (BILLIONS // (12 << 20)))


def zip_table(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("subcellular_location.tsv", "w", force_zip64=True) as member,
    ):
        for _ in range(BILLIONS >> 24):
            member.write(bytes(1 << 24))


def safetensors_header(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def tiles(path: Path) -> object:
    return duloc._ready(path, ["protein"], 64)


def bombs(everything: bool) -> Iterator[Bomb]:
    """Yield name, writer and reader; those that take seconds to make or to open only if all are asked for."""
    yield "gigapixel.png", lambda p: png(p, 60_000, 60_000), read_pixels
    yield "text.png", png_text, read_pixels
    yield "gigapixel.jpg", jpeg, read_pixels
    yield "atlas.jpg", jpeg, check_jpeg
    yield "gigapixel.tif", lambda p: tiff(p, 60_000, 60_000, zeros(60_000 * 60_000 * 2 >> 20 << 20)), read_pixels
    yield "cut gigapixel.tif", lambda p: tiff(p, 60_000, 60_000, zeros(1 << 20)), read_layout
    yield "liar.tif", lambda p: tiff(p, 16, 16, zeros()), read_pixels
    yield "circle.tif", tiff_in_a_circle, read_pixels
    yield "labels.npy", lambda p: npy(p, (60_000, 60_000)), lambda p: read_labels(p, (60_000, 60_000))
    yield "huge.npy", lambda p: npy(p, (1 << 40,)), lambda p: read_labels(p, (4, 4))
    yield "huge shape.npy", lambda p: npy(p, (1 << 40, 1 << 40)), label_shape
    yield "header.npy", npy_long_header, lambda p: read_labels(p, (4, 4))
    yield "cells", lambda p: dataset_with(p, (1, 2, 1 << 20, 1 << 20)), CellDataset
    yield "liar npz", lambda p: npz(p, False), tiles
    yield "liar keras.h5", lambda p: keras(p, True), read_keras_h5
    yield "keras.h5", lambda p: keras(p, False), read_keras_h5
    yield "liar.h5sc", lambda p: h5sc_file(p, True), read_h5sc
    yield "chunk.h5sc", lambda p: h5sc_file(p, False), read_h5sc
    yield "liar deeploc.hdf5", lambda p: deeploc(p, True), read_deeploc
    yield "deeploc.hdf5", lambda p: deeploc(p, False), read_deeploc
    yield "liar.h5ad", lambda p: h5ad(p, True), read_features
    yield "features.h5ad", lambda p: h5ad(p, False), read_features
    yield "liar own.h5ad", lambda p: h5ad(p, True), read_table
    yield "own.h5ad", lambda p: h5ad(p, False), read_table
    yield "liar.zarr", lambda p: zarr_image(p, True), read_pixels
    yield "gigapixel.zarr", lambda p: zarr_image(p, False), read_pixels
    yield "header.safetensors", safetensors_header, load_safetensors
    if everything:
        yield "zip.tsv.zip", zip_table, read_locations
        yield "tiles npz", lambda p: npz(p, True), tiles
        yield "checkpoint.pt", torch_zip, lambda p: load_checkpoint(p, {})
        yield "vgg16.pth", torch_zip, vgg16.load_weights
        yield "own.csv.gz", csv_gz, read_table
        yield "own.parquet", parquet, read_table
        yield "data.png", lambda p: png(p, 13_000, 13_000, colour=2, data=zeros(13_000 * 39_001 >> 20 << 20)), read_pixels


def peak(forget: bool = False) -> int:
    """Return the most memory (bytes) that this process has had; `forget` begins anew with what it has now."""
    if forget:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def opened(folder: Path, everything: bool) -> Iterator[dict[str, Any]]:
    """Write each bomb, open it, and yield what came of it: ``name, fate, said, grew`` (bytes), ``seconds`` (of the processor)."""
    for name, make, read in bombs(everything):
        make(folder / name)
        before = peak(forget=True)
        began, said = time.process_time(), ""
        try:
            read(folder / name)
            fate = "read"
        except PCIError as error:
            fate, said = "refused", str(error)
        except Exception as error:
            fate, said = type(error).__name__, str(error)
        yield {"name": name, "fate": fate, "said": said[:300], "grew": peak() - before, "seconds": time.process_time() - began}


def main(folder: Path, everything: bool) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))  # so that what goes wrong here does not take the machine with it
    for line in opened(folder, everything):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), "all" in sys.argv[2:])
