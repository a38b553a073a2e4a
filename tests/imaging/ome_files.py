"""Small OME-TIFF and OME-Zarr files for tests, and recipes that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from pci_core import recipe as recipes

NAMES = ("protein", "nucleus", "tubules")
UNITS = {"c": None, "t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}


def planes(n: int = 3, dtype: str = "uint16") -> np.ndarray:
    """(n, 20, 30), each plane other than the rest, no value 0."""
    return np.random.default_rng(5).integers(1, 200, (n, 20, 30)).astype(dtype)


def make_recipe(format: str = "named", um_per_px: float = 0.0, names: tuple[str, ...] = NAMES, **fields: Any) -> recipes.Recipe:
    content = {
        "name": "made-up",
        "title": "t",
        "channels": [{"name": n, "role": "structural" if i else "protein"} for i, n in enumerate(names)],
        "source": {"kind": "table", "path": "fields.csv"},
        "fields": {"format": format, "um_per_px": um_per_px, **fields},
    }
    return recipes.parse(content, "made-up")


def write_ome_tiff(path: Path, pixels: np.ndarray, axes: str = "CYX", names: tuple[str, ...] = NAMES, **more: Any) -> Path:
    metadata = {"axes": axes, "Channel": {"Name": list(names)}, **more.pop("metadata", {})}
    tifffile.imwrite(path, pixels, ome=True, metadata=metadata, **{"photometric": "minisblack", **more})
    return path


def change_xml(path: Path, *changes: tuple[str, str]) -> Path:
    """Replace parts of the OME-XML in place; each must be there."""
    xml = tifffile.tiffcomment(path)
    for old, new in changes:
        assert old in xml, f"{old} is not in {xml}"
        xml = xml.replace(old, new)
    tifffile.tiffcomment(path, xml.encode())
    return path


def write_pages(path: Path, pixels: np.ndarray, xml: str) -> Path:
    """Write plain pages with the given OME-XML."""
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata=None, description=xml.encode())
    return path


def ome_xml(images: str, uuid: str = "") -> str:
    mark = f' UUID="{uuid}"' if uuid else ""
    return f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"{mark}>{images}</OME>'


def image_xml(data: str, c: int = 2, order: str = "XYCZT", type_: str = "uint16", more: str = "") -> str:
    channels = "".join(f'<Channel ID="Channel:0:{i}" Name="{NAMES[i]}" SamplesPerPixel="1"/>' for i in range(c))
    return (
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="{order}" Type="{type_}" SizeX="30" SizeY="20" SizeZ="1" '
        f'SizeC="{c}" SizeT="1" {more}>{channels}{data}</Pixels></Image>'
    )


def ngff(axes: str, scale: list[float], names: tuple[str, ...] | None, version: str = "0.4") -> dict[str, Any]:
    kinds = {"c": "channel", "t": "time"}
    listed = [{"name": a, "type": kinds.get(a, "space"), **({"unit": UNITS[a]} if UNITS[a] else {})} for a in axes]
    transform = [{"type": "scale", "scale": scale}]
    datasets = [{"path": "0", "coordinateTransformations": transform}]
    multiscales: list[dict[str, Any]] = [{"version": version, "axes": listed, "datasets": datasets}]
    omero = {"omero": {"channels": [{"label": n} for n in names]}} if names else {}
    return {"multiscales": multiscales, **omero}


def write_zarr(
    path: Path, pixels: np.ndarray, axes: str = "cyx", zarr_format: int = 3, names: tuple[str, ...] | None = NAMES,
    um: float = 0.25, change: Any = None, **array: Any,
) -> Path:  # fmt: skip
    """Write an OME-Zarr as NGFF 0.4 (Zarr 2) or 0.5 (Zarr 3); `change` edits its attributes before they are stored."""
    attributes = ngff(axes, [um if a in "yx" else 1.0 for a in axes], names)
    if change is not None:
        change(attributes)
    group = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)  # type: ignore[arg-type]
    group.create_array("0", data=pixels, **{"chunks": tuple(8 if n > 8 else n for n in pixels.shape), **array})
    group.attrs.update(attributes if zarr_format == 2 else {"ome": {"version": "0.5", **attributes}})
    return path


def write_zarr_by_hand(path: Path, pixels: np.ndarray) -> Path:
    """Write NGFF 0.4 without any library: one uncompressed big-endian chunk a plane, nested folders."""
    folder = path / "0"
    for i, plane in enumerate(pixels):
        (folder / str(i) / "0").mkdir(parents=True)
        (folder / str(i) / "0" / "0").write_bytes(plane.astype(plane.dtype.newbyteorder(">")).tobytes())
    array = {
        "zarr_format": 2, "shape": list(pixels.shape), "chunks": [1, *pixels.shape[1:]], "dtype": pixels.dtype.newbyteorder(">").str,
        "compressor": None, "filters": None, "fill_value": 0, "order": "C", "dimension_separator": "/",
    }  # fmt: skip
    (folder / ".zarray").write_text(json.dumps(array))
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text(json.dumps(ngff("cyx", [1, 0.25, 0.25], NAMES)))
    return path
