"""XML that grows or reaches out: entities, DTDs and external references, plain and gzipped, in the atlas' entries and in OME metadata."""

from __future__ import annotations

import gzip
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pci_core.data.hpa_xml import read_entries
from pci_core.errors import PCIError
from pci_core.imaging.pixels import read_layout, read_pixels

ENTRY = (
    '<proteinAtlas><entry version="18" url="http://v18.proteinatlas.org/ENSG00000000001"><name>{}</name>'
    '<identifier id="ENSG00000000001" db="Ensembl"/></entry></proteinAtlas>'
)
OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
    'Type="uint8" SizeX="8" SizeY="8" SizeC="1" SizeZ="1" SizeT="1"><Channel ID="Channel:0:0" Name="{}" SamplesPerPixel="1"/>'
    "<TiffData/></Pixels></Image></OME>"
)


def laughs(levels: int = 9, times: int = 10) -> str:
    lines = ['<!ENTITY l0 "ha">'] + [f'<!ENTITY l{i} "{f"&l{i - 1};" * times}">' for i in range(1, levels + 1)]
    return f"<!DOCTYPE x [{''.join(lines)}]>"


def dtds(secret: Path) -> dict[str, tuple[str, str]]:
    """Return DTD and what stands in a name, by what they attempt."""
    return {
        "billion laughs": (laughs(), "&l9;"),
        "quadratic": (f'<!DOCTYPE x [<!ENTITY a "{"a" * 100_000}">]>', "&a;" * 3000),
        "external file": (f'<!DOCTYPE x [<!ENTITY a SYSTEM "{secret.as_uri()}">]>', "&a;"),
        "external address": ('<!DOCTYPE x [<!ENTITY a SYSTEM "http://127.0.0.1:9/a">]>', "&a;"),
        "external DTD": ('<!DOCTYPE x SYSTEM "http://127.0.0.1:9/a.dtd">', "a"),
        "external DTD as a file": (f'<!DOCTYPE x SYSTEM "{secret.as_uri()}">', "a"),
        "parameter entity": (f'<!DOCTYPE x [<!ENTITY % a SYSTEM "{secret.as_uri()}"> %a;]>', "a"),
        "entity in itself": ('<!DOCTYPE x [<!ENTITY a "&b;"><!ENTITY b "&a;">]>', "&a;"),
        "DTD alone": ("<!DOCTYPE x>", "a"),
        "entity without a DTD": ("", "&nbsp;"),
        "late DTD": (f"<!--{' ' * 6000}-->{laughs()}", "&l9;"),  # behind what is_ome_tiff looks at
    }


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def refuse(*more: object, **named: object) -> None:
        raise AssertionError("an address was asked for")

    monkeypatch.setattr(socket, "create_connection", refuse)
    (tmp_path / "secret.txt").write_text("secretsecret")
    return tmp_path / "secret.txt"


def refused(path: Path, read: Callable[[Path], object], why: str) -> None:
    """The file is refused by name, at once, without memory, and nothing of the secret is shown."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PCIError) as error:
        read(path)
    assert path.name in str(error.value) and "secretsecret" not in str(error.value), why
    assert time.process_time() - began < 5, why
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, why  # kB


@pytest.mark.parametrize("wrap", ["plain", "gzip", "utf-16"])
def test_entries_of_the_atlas(wrap: str, secret: Path, tmp_path: Path) -> None:
    for why, (dtd, name) in dtds(secret).items():
        text = f'<?xml version="1.0" encoding="{"UTF-16" if wrap == "utf-16" else "UTF-8"}"?>{dtd}{ENTRY.format(name)}'
        content = text.encode("utf-16" if wrap == "utf-16" else "utf-8")
        path = tmp_path / "ENSG00000000001.xml"
        path.write_bytes(gzip.compress(content) if wrap == "gzip" else content)
        refused(path, lambda p: list(read_entries(p)), why)


def write_ome(path: Path, description: str) -> None:
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), description=description, metadata=None)


@pytest.mark.parametrize("name", ["a.ome.tif", "a.tif"])
def test_ome_metadata(name: str, secret: Path, tmp_path: Path) -> None:
    for why, (dtd, channel) in dtds(secret).items():
        write_ome(tmp_path / name, f'<?xml version="1.0" encoding="UTF-8"?>{dtd}{OME.format(channel)}')
        for read in (read_layout, read_pixels):
            refused(tmp_path / name, read, why)


def test_an_ome_companion(secret: Path, tmp_path: Path) -> None:
    pointer = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><BinaryOnly MetadataFile="{}" UUID="urn:uuid:1"/></OME>'
    for why, (dtd, channel) in dtds(secret).items():
        (tmp_path / "a.companion.ome").write_text(f"{dtd}{OME.format(channel)}")
        write_ome(tmp_path / "a.ome.tif", pointer.format("a.companion.ome"))
        refused(tmp_path / "a.ome.tif", read_layout, why)
    for outside in ("../secret.txt", str(secret), "/etc/passwd", "..\\secret.txt", "C:secret.txt", secret.as_uri()):
        (tmp_path / "deep").mkdir(exist_ok=True)
        write_ome(tmp_path / "deep" / "a.ome.tif", pointer.format(outside))
        refused(tmp_path / "deep" / "a.ome.tif", read_layout, outside)


def test_a_set_of_files_does_not_leave_its_folder(secret: Path, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    tifffile.imwrite(tmp_path / "other.tif", np.ones((8, 8), np.uint8))
    for outside in ("../other.tif", str(tmp_path / "other.tif"), "..\\other.tif"):
        planes = f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="{outside}">urn:uuid:2</UUID></TiffData>'
        write_ome(tmp_path / "deep" / "a.ome.tif", OME.format("x").replace("<TiffData/>", planes))
        refused(tmp_path / "deep" / "a.ome.tif", read_pixels, outside)


def test_vendors_metadata_that_tifffile_parses_itself(secret: Path, tmp_path: Path) -> None:
    """Formats that tifffile tells by a tag or by the description's beginning and reads as XML on its own."""
    for software, begin in (("Philips DP v1", "<DataObject>"), ("", "<scn>")):
        dtd, _ = dtds(secret)["billion laughs"]
        end = begin.replace("<", "</")
        path = tmp_path / "vendor.tif"
        description = f'<?xml version="1.0"?>{dtd}{begin}&l9;{end}'
        tifffile.imwrite(
            path, np.arange(64, dtype=np.uint8).reshape(8, 8), description=description, metadata=None, software=software or None
        )
        began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            assert (read_pixels(path) == np.arange(64).reshape(8, 8)).all()
        except PCIError as error:
            assert path.name in str(error)
        assert time.process_time() - began < 5 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_a_gzip_that_grows_without_end_is_left_early(tmp_path: Path) -> None:
    """Blanks by the hundred megabytes in a few kB: one tag or text of that size is no atlas, and its end is not waited for."""
    block = gzip.compress(b" " * (8 << 20), 1)
    for head in (
        b"<proteinAtlas><entry a='",
        b"<proteinAtlas><!--",
        b"<proteinAtlas><entry><name>",
        b"<proteinAtlas><entry><name>a</name>",
    ):
        path = tmp_path / "proteinatlas.xml.gz"
        path.write_bytes(gzip.compress(head) + block * 8)
        with pytest.raises(PCIError, match="proteinatlas.xml.gz, line 1: (a single tag|the text of <name> is longer)"):
            list(read_entries(path))
