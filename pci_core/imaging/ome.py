"""OME-TIFF: what its OME-XML says of the pixels, held against the pages that are really there.

tifffile reads such files too, but puts zeros where a page or a file of the set is missing; here that is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import tifffile
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from pci_core.errors import ImageError
from pci_core.imaging.layout import REPAIR, Layout, check_size, in_um, square
from pci_core.reading import refusing

_TYPES = {"float": "float32", "double": "float64", "bit": "bool", "complex": "complex64", "double-complex": "complex128"}
_REWRITE = "Export it again, or save it as a plain TIFF and give the channels by [fields] order."
_MOST_PLANES = 1_000_000


@dataclass(frozen=True)
class _Block:
    """One TiffData element: planes that follow each other in one file."""

    file: str
    ifd: int
    count: int | None
    first: dict[str, int]


def is_ome_tiff(tiff: tifffile.TiffFile) -> bool:
    """Tell whether a TIFF carries OME-XML, whole or not."""
    return "<OME" in _description(tiff)


def ome_tiff_layout(tiff: tifffile.TiffFile, path: Path) -> Layout:
    """Read the layout of an OME-TIFF and check it against the file.

    Parameters
    ----------
    tiff : TiffFile
        Open.
    path : Path
        Its path; files of the same set are looked for beside it.

    Returns
    -------
    Layout
        Axes T, Z, C, Y, X or T, Z, C, Y, X, S; the pixel size of any unit in µm.

    Raises
    ------
    ImageError
        The XML cannot be parsed, describes several images of this file, or says other sizes, types, planes or files than there are.
    """
    root = _xml(tiff, path)
    pixels = _pixels_of_this_file(root, path)
    uuid = root.get("UUID", "")
    sizes = {a: _whole(pixels, f"Size{a}", path) for a in "XYZCT"}
    channels = _children(pixels, "Channel")
    samples = _samples(channels, sizes["C"], path)
    n = {"C": sizes["C"] // samples, "Z": sizes["Z"], "T": sizes["T"]}
    pages = _pages(pixels, n, uuid, tiff, path)
    dtype = _check_pages(pages, (pixels.get("Type") or pixels.get("PixelType") or "").lower(), sizes, samples, tiff, path)
    names = tuple((c.get("Name") or "").strip() for c in channels) if samples == 1 and len(channels) == n["C"] else ()
    y, x = (in_um(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit", "µm")) for a in "YX")
    axes, shape = "TZCYXS", (n["T"], n["Z"], n["C"], sizes["Y"], sizes["X"], samples)
    layout = Layout(axes[: 5 + (samples > 1)], shape[: 5 + (samples > 1)], dtype, names if any(names) else (), square(y, x, path), True)
    return check_size(dataclasses.replace(layout, pages=pages), path)


def _description(tiff: tifffile.TiffFile) -> str:
    return str(tiff.pages.first.description or "") if len(tiff.pages) else ""


def _xml(tiff: tifffile.TiffFile, path: Path) -> Element:
    root = _parse(_description(tiff), path, path)
    binary = _children(root, "BinaryOnly")
    if not binary:
        return root
    companion = _beside(path, binary[0].get("MetadataFile", ""))
    if not companion.is_file():
        raise ImageError(f"{path}: its OME metadata lie in {companion.name}, which is not beside it. Put both into one folder. {_REWRITE}")
    if companion.suffix.lower() in (".tif", ".tiff"):
        with tifffile.TiffFile(companion) as other:
            return _parse(_description(other), companion, path)
    with refusing(companion, ImageError, "is no text in UTF-8", _REWRITE):
        text = companion.read_text(encoding="utf-8")
    return _parse(text, companion, path)


def _parse(text: str, where: Path, path: Path) -> Element:
    try:
        root = fromstring(text.strip().rstrip("\0").strip(), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise ImageError(f"{path}: the OME-XML of {where.name} cannot be read ({error}). {_REWRITE}") from error
    if _tag(root) != "OME":
        raise ImageError(f"{path}: the OME-XML of {where.name} begins with <{_tag(root)}>, not <OME>. {_REWRITE}")
    out: Element = root
    return out


def _tag(element: Element) -> str:
    return element.tag.rsplit("}", 1)[-1]


def _children(element: Element, tag: str) -> list[Element]:
    return [c for c in element if _tag(c) == tag]


def _beside(path: Path, name: str) -> Path:
    """Return a file of the same set; a name may not lead out of the folder."""
    if not name or name in (".", "..") or any(mark in name for mark in "/\\:\0"):
        raise ImageError(f"{path}: its OME metadata name the file '{name}', which is no plain file name. {_REWRITE}")
    return path.parent / name


def _pixels_of_this_file(root: Element, path: Path) -> Element:
    """Return the one <Pixels> that has planes in this file: sets of one file a position list all positions in each of them."""
    every = [pixels for image in _children(root, "Image") for pixels in _children(image, "Pixels")]
    found = [p for p in every if not (blocks := _children(p, "TiffData")) or any(_is_this_file(b, root, path) for b in blocks)]
    if not found and len(every) == 1:
        found = every  # a file that was renamed and gave itself no UUID
    if len(found) != 1:
        raise ImageError(
            f"{path}: its OME metadata describe {len(found)} images (positions) in this file; exactly one can be read. "
            + ("Save each position as a file of its own." if found else _REWRITE)
        )
    return found[0]


def _is_this_file(block: Element, root: Element, path: Path) -> bool:
    marks = _children(block, "UUID")
    if not marks:
        return True
    name = marks[0].get("FileName")
    if name is not None and name.lower() == path.name.lower():
        return True
    return root.get("UUID") is not None and (marks[0].text or "").strip() == root.get("UUID")  # the file was renamed


def _whole(element: Element, key: str, path: Path, default: int | None = None) -> int:
    text = element.get(key)
    if text is None and default is not None:
        return default
    try:
        value = int(text or "")
    except ValueError:
        value = -1
    if value < 0:
        raise ImageError(f"{path}: its OME metadata say {key} = {text!r}, needed: a whole number. {_REWRITE}")
    return value


def _samples(channels: list[Element], size_c: int, path: Path) -> int:
    found = {_whole(c, "SamplesPerPixel", path, 1) for c in channels} or {1}
    samples = found.pop()
    if found or not samples or not size_c or size_c % samples:
        raise ImageError(f"{path}: its OME metadata say SizeC = {size_c} with channels of {sorted({samples, *found})} samples. {_REWRITE}")
    if channels and len(channels) * samples != size_c:
        raise ImageError(f"{path}: its OME metadata say SizeC = {size_c}, but describe {len(channels)} channels. {_REWRITE}")
    return samples


def _blocks(pixels: Element, uuid: str, path: Path) -> Iterator[_Block]:
    elements = _children(pixels, "TiffData")
    if not elements:
        yield _Block("", 0, None, {a: 0 for a in "CZT"})
    for e in elements:
        marks = _children(e, "UUID")
        if marks and not marks[0].get("FileName") and (marks[0].text or "").strip() != uuid:
            raise ImageError(f"{path}: its OME metadata place planes in another file ({marks[0].text}) without its name. {_REWRITE}")
        count = e.get("PlaneCount") or e.get("NumPlanes") or ("1" if e.get("IFD") is not None else None)
        yield _Block(
            (marks[0].get("FileName") or "") if marks else "",
            _whole(e, "IFD", path, 0),
            None if count is None else int(count) if count.isdigit() else -1,
            {a: _whole(e, f"First{a}", path, 0) for a in "CZT"},
        )


def _pages(pixels: Element, n: dict[str, int], uuid: str, tiff: tifffile.TiffFile, path: Path) -> tuple[tuple[Path, int], ...]:
    """Return file and page of each plane, channels fastest, then z, then t; refuse planes that are not there."""
    order = [a for a in pixels.get("DimensionOrder", "") if a in "CZT"]
    if sorted(order) != ["C", "T", "Z"]:
        raise ImageError(f"{path}: its OME metadata say DimensionOrder = {pixels.get('DimensionOrder')!r}. {_REWRITE}")
    total = n["C"] * n["Z"] * n["T"]
    if not 0 < total <= _MOST_PLANES:
        raise ImageError(f"{path}: its OME metadata speak of {n['C']} channels, {n['Z']} z planes and {n['T']} time points. {_REWRITE}")
    where: dict[int, tuple[Path, int]] = {}
    gone: set[str] = set()
    for block in _blocks(pixels, uuid, path):
        file = path if not block.file or block.file.lower() == path.name.lower() else _beside(path, block.file)
        if not file.is_file():
            only_here = {m.get("FileName") for e in _children(pixels, "TiffData") for m in _children(e, "UUID")} == {block.file}
            if not only_here:
                gone.add(block.file)
                continue
            file = path  # one file for all planes, renamed since
        start = _at(block.first, order, n)
        count = block.count if block.count is not None else (len(tiff.pages) - block.ifd if file == path else total - start)
        if start + count > total or count < 0 or any(block.first[a] >= n[a] for a in "CZT"):
            raise ImageError(
                f"{path}: its OME metadata place {count} planes from plane {start} on, "
                f"but SizeC, SizeZ and SizeT give {total} in all. {_REWRITE}"
            )
        where.update({start + i: (file, block.ifd + i) for i in range(count)})
    if gone:
        raise ImageError(
            f"{path}: {len(gone)} files of this OME-TIFF are missing, e.g. {', '.join(sorted(gone)[:3])}. Put all files of the set into "
            "one folder under their first names, or export it as one file."
        )
    if len(where) < total:
        raise ImageError(
            f"{path}: its OME metadata say {n['C']} channels, {n['Z']} z planes and {n['T']} time points = {total} planes, but point to "
            f"{len(where)} of them. {_REWRITE}"
        )
    inverse = [
        _at({"C": c, "Z": z, "T": t}, order, n) for t in range(n["T"]) for z in range(n["Z"]) for c in range(n["C"])
    ]  # fmt: skip
    return tuple(where[i] for i in inverse)


def _at(first: dict[str, int], order: list[str], n: dict[str, int]) -> int:
    a, b, c = order  # the first of DimensionOrder runs fastest
    return first[a] + n[a] * (first[b] + n[b] * first[c])


def _check_pages(
    pages: tuple[tuple[Path, int], ...], type_: str, sizes: dict[str, int], samples: int, tiff: tifffile.TiffFile, path: Path
) -> str:
    dtype = _TYPES.get(type_, type_)
    for file in dict.fromkeys(f for f, _ in pages):
        numbers = [i for f, i in pages if f == file]
        if file == path:
            _check_file(tiff, file, numbers, dtype, sizes, samples, path)
        else:
            with tifffile.TiffFile(file) as other:
                _check_file(other, file, numbers, dtype, sizes, samples, path)
    return dtype


def _check_file(
    tiff: tifffile.TiffFile, file: Path, numbers: list[int], dtype: str, sizes: dict[str, int], samples: int, path: Path
) -> None:
    there = len(tiff.pages)
    if max(numbers) >= there:
        raise ImageError(f"{path}: its OME metadata need page {max(numbers) + 1} of {file.name}, which has {there} pages. {REPAIR}")
    for number in numbers:
        page: Any = tiff.pages[number]
        found = (page.imagelength, page.imagewidth, page.dtype.name if page.dtype is not None else "?", page.samplesperpixel)
        said = (sizes["Y"], sizes["X"], dtype, samples)
        if found != said:
            raise ImageError(
                f"{path}: its OME metadata contradict the file: SizeY x SizeX, Type and samples say {said[0]}x{said[1]} {said[2]} x "
                f"{said[3]}, page {number + 1} of {file.name} is {found[0]}x{found[1]} {found[2]} x {found[3]}. {_REWRITE}"
            )
