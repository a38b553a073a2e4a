"""OME-TIFF, and what it shares with OME-Zarr: channels by name and place, pixel sizes, and metadata that contradict the file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from ome_files import (
    change_xml,
    image_xml,
    make_recipe,
    ome_xml,
    planes,
    write_ome_tiff,
    write_pages,
    write_zarr,
)  # fmt: skip

from pci_core.errors import ImageError
from pci_core.imaging.inspect import describe_image
from pci_core.imaging.read import read_field


def read(path: Path, recipe: Any = None) -> np.ndarray:
    return read_field({"field": "f", "path": path.name}, recipe or make_recipe(), path.parent)


@pytest.mark.parametrize(
    "more",
    [{}, {"byteorder": ">"}, {"compression": "zlib"}, {"bigtiff": True}, {"tile": (16, 16)}],
    ids=["plain", "big-endian", "zlib", "bigtiff", "tiled"],
)
def test_ome_tiff_is_read_by_its_names_in_the_recipes_order(tmp_path: Path, more: dict[str, Any]) -> None:
    pixels = planes()
    path = write_ome_tiff(tmp_path / "a.ome.tif", pixels[[2, 0, 1]], names=("Tubules", "PROTEIN", "nucleus"), **more)
    got = read(path)
    assert got.dtype == np.uint16 and got.dtype.isnative
    np.testing.assert_array_equal(got, pixels)
    facts = describe_image(path)
    assert (facts.kind, facts.channels, facts.names, facts.ome) == ("named", 3, ("Tubules", "PROTEIN", "nucleus"), True)
    assert (facts.height, facts.width, facts.dtype, facts.z, facts.t) == (20, 30, "uint16", 1, 1)
    # the same file by place
    np.testing.assert_array_equal(read(path, make_recipe("stack", order=["tubules", "protein", "nucleus"])), pixels)


def test_pyramid_is_read_at_full_size(tmp_path: Path) -> None:
    pixels = planes()
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(pixels, subifds=1, metadata={"axes": "CYX", "Channel": {"Name": ["protein", "nucleus", "tubules"]}})
        tiff.write(pixels[:, ::2, ::2], subfiletype=1)
    np.testing.assert_array_equal(read(path), pixels)


def test_names_of_the_file_that_the_recipe_gives(tmp_path: Path) -> None:
    pixels = planes(4)
    path = write_ome_tiff(tmp_path / "a.ome.tif", pixels, names=("DAPI", "GFP", "Cy5", "BF"))
    np.testing.assert_array_equal(read(path, make_recipe(file_channels=["gfp", "DAPI", "cy5"])), pixels[[1, 0, 2]])
    with pytest.raises(ImageError, match=r"channel 'protein', 'nucleus', 'tubules' is not in the file.*'DAPI', 'GFP', 'Cy5', 'BF'"):
        read(path)
    twice = write_ome_tiff(tmp_path / "b.ome.tif", pixels, names=("protein", "nucleus", "tubules", "Nucleus"))
    with pytest.raises(ImageError, match="'nucleus' is there more than once"):
        read(twice)
    tifffile.imwrite(tmp_path / "plain.tif", pixels, photometric="minisblack")
    with pytest.raises(ImageError, match=r"not in the file; its channels are none"):
        read(tmp_path / "plain.tif")


def test_imagej_labels_are_channel_names(tmp_path: Path) -> None:
    pixels = planes()
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata={"axes": "CYX", "Labels": ["nucleus", "protein", "tubules"]})
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), pixels[[1, 0, 2]])


@pytest.mark.parametrize(("axes", "shape"), [("ZCYX", (4, 3, 20, 30)), ("TCYX", (2, 3, 20, 30)), ("TZCYX", (2, 2, 3, 20, 30))])
@pytest.mark.parametrize("kind", ["ome.tif", "tif", "zarr"])
def test_z_planes_and_time_points_are_refused_with_their_numbers(tmp_path: Path, axes: str, shape: tuple[int, ...], kind: str) -> None:
    pixels, path = np.ones(shape, np.uint16), tmp_path / f"a.{kind}"
    if kind == "ome.tif":
        write_ome_tiff(path, pixels, axes)
    elif kind == "tif":
        tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": axes})
    else:
        write_zarr(path, pixels, axes.lower())
    z, t = (dict(zip(axes, shape, strict=True)).get(a, 1) for a in "ZT")
    for recipe in (make_recipe(), make_recipe("stack", order=["protein", "nucleus", "tubules"])):
        with pytest.raises(ImageError, match=f"{z} z planes and {t} time points of 3 channels.*Project z first"):
            read(path, recipe)
    facts = describe_image(path)
    assert (facts.channels, facts.z, facts.t) == (3, z, t)


@pytest.mark.parametrize(
    ("value", "unit"), [(0.325, "µm"), (325, "nm"), (3.25e-4, "mm"), (3250, "Å"), (0.325, "\u03bcm"), (3.25e-5, "cm")]
)  # fmt: skip
def test_pixel_size_in_every_unit(tmp_path: Path, value: float, unit: str) -> None:
    size = {"PhysicalSizeX": value, "PhysicalSizeXUnit": unit, "PhysicalSizeY": value, "PhysicalSizeYUnit": unit}
    path = write_ome_tiff(tmp_path / "a.ome.tif", planes(), metadata=size)
    assert describe_image(path).um_per_px == pytest.approx(0.325)


def test_pixel_size_that_is_none_or_not_square(tmp_path: Path) -> None:
    for unit, value in (("pixel", 1.0), ("reference frame", 2.0), ("µm", 0.0)):
        size = {"PhysicalSizeX": value, "PhysicalSizeXUnit": unit, "PhysicalSizeY": value, "PhysicalSizeYUnit": unit}
        assert describe_image(write_ome_tiff(tmp_path / "a.ome.tif", planes(), metadata=size)).um_per_px == 0.0
    path = write_ome_tiff(tmp_path / "b.ome.tif", planes(), metadata={"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.31})
    with pytest.raises(ImageError, match=r"0\.31 µm high and 0\.3 µm wide"):
        describe_image(path)
    near = write_ome_tiff(tmp_path / "c.ome.tif", planes(), metadata={"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.3001})
    assert describe_image(near).um_per_px == 0.3


@pytest.mark.parametrize("kind", ["ome.tif", "tif", "zarr"])
def test_pixel_size_of_file_and_recipe_must_agree_at_full_scale(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "ome.tif":
        write_ome_tiff(path, planes(), metadata={"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25})
    elif kind == "tif":
        metadata = {"axes": "CYX", "unit": "micron", "Labels": ["protein", "nucleus", "tubules"]}
        tifffile.imwrite(path, planes(), imagej=True, resolution=(4, 4), metadata=metadata)
    else:
        write_zarr(path, planes(), um=0.25)
    assert describe_image(path).um_per_px == pytest.approx(0.25)
    for right in (0.0, 0.25, 0.2515):  # 1 % may differ: rounded sizes in recipes
        assert read(path, make_recipe(um_per_px=right, downscale=2)).shape == (3, 10, 15)
    with pytest.raises(ImageError, match=r"metadata say 0\.25 µm per px, .* of the recipe says 0\.5"):
        read(path, make_recipe(um_per_px=0.5, downscale=2))


def test_resolution_tags_of_printers_and_cameras_say_nothing(tmp_path: Path, test_data: Path) -> None:
    for unit, resolution, um in ((2, 72, 0.0), (3, 1550.3, 0.0), (1, 4, 0.0), (3, 40000, 0.25), (2, 50800, 0.5)):
        tifffile.imwrite(tmp_path / "a.tif", planes(1)[0], resolution=(resolution, resolution), resolutionunit=unit)
        assert describe_image(tmp_path / "a.tif").um_per_px == pytest.approx(um), (unit, resolution)
    # a real screening microscope wrote its camera's 6.45 µm
    assert describe_image(test_data / "yeast-fields" / "r01c01f01p01-ch1sk1fk1fl1.tiff").um_per_px == 0.0


# --- OME-XML that contradicts the file


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('SizeX="30"', 'SizeX="31"', "contradict the file.*20x31 uint16.*page 1 of a.ome.tif is 20x30 uint16"),
        ('SizeY="20"', 'SizeY="10"', "contradict the file"),
        ('Type="uint16"', 'Type="uint8"', "contradict the file.*20x30 uint8"),
        ('SizeC="3"', 'SizeC="4"', "SizeC = 4, but describe 3 channels"),
        ('SizeZ="1"', 'SizeZ="2"', "3 channels, 2 z planes and 1 time points = 6 planes, but point to 3"),
        ('PlaneCount="3"', 'PlaneCount="2"', "= 3 planes, but point to 2"),
        ('PlaneCount="3"', 'PlaneCount="4"', "place 4 planes from plane 0 on"),
        ('IFD="0" PlaneCount="3"', 'IFD="1" PlaneCount="3"', "need page 4 of a.ome.tif, which has 3"),
        ('DimensionOrder="XYCZT"', 'DimensionOrder="XYC"', "DimensionOrder = 'XYC'"),
        ('SizeX="30"', 'SizeX="many"', "say SizeX = 'many'"),
        ("</Pixels>", "</Pixel>", "OME-XML of a.ome.tif cannot be read"),
        ("<?xml", '<!DOCTYPE b [<!ENTITY a "aa"><!ENTITY c "&a;&a;">]><?xml', "cannot be read"),
        ('SizeT="1"', 'SizeT="99999999"', "99999999 time points"),
    ],
)  # fmt: skip
def test_ome_xml_that_contradicts_the_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write_ome_tiff(tmp_path / "a.ome.tif", planes())
    change_xml(path, (old, new))
    with pytest.raises(ImageError, match=message):
        describe_image(path)
    with pytest.raises(ImageError, match=message):
        read(path)


def test_entity_bomb_is_not_expanded(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "x" * 50}">' for i in range(12))
    xml = f'<!DOCTYPE OME [{entities}]><OME xmlns="o"><Image Name="&e11;"/></OME>'
    with pytest.raises(ImageError, match="OME-XML of bomb.ome.tif cannot be read"):
        describe_image(write_pages(tmp_path / "bomb.ome.tif", planes(), xml))


def test_planes_go_where_tiffdata_puts_them(tmp_path: Path) -> None:
    data = '<TiffData FirstC="1" IFD="0"/><TiffData FirstC="0" IFD="1"/>'
    for order in ("XYCZT", "XYTZC", "XYZCT"):
        path = write_pages(tmp_path / "a.ome.tif", planes(2), ome_xml(image_xml(data, order=order)))
        np.testing.assert_array_equal(read(path, make_recipe(names=("protein", "nucleus"))), planes(2)[::-1])


def one_file_each(folder: Path) -> list[Path]:
    """Write an OME-TIFF of two channels, each in a file of its own; both files carry the same XML."""
    names = ("set_w1.ome.tif", "set_w2.ome.tif")
    data = "".join(
        f'<TiffData FirstC="{i}" IFD="0" PlaneCount="1"><UUID FileName="{n}">urn:uuid:{i}</UUID></TiffData>' for i, n in enumerate(names)
    )
    return [write_pages(folder / n, planes(2)[i], ome_xml(image_xml(data), f"urn:uuid:{i}")) for i, n in enumerate(names)]


def test_multi_file_ome_tiff_is_read_whole_or_refused(tmp_path: Path) -> None:
    files = one_file_each(tmp_path)
    recipe = make_recipe(names=("protein", "nucleus"))
    for file in files:
        np.testing.assert_array_equal(read(file, recipe), planes(2))
    files[1].unlink()
    assert (tifffile.imread(files[0])[1] == 0).all()  # what tifffile would have given: zeros
    with pytest.raises(ImageError, match=r"1 files of this OME-TIFF are missing, e\.g\. set_w2\.ome\.tif"):
        read(files[0], recipe)


def test_planes_in_a_file_that_is_not_named(tmp_path: Path) -> None:
    data = '<TiffData FirstC="0" IFD="0"/><TiffData FirstC="1" IFD="0"><UUID>urn:uuid:other</UUID></TiffData>'
    path = write_pages(tmp_path / "a.ome.tif", planes(2), ome_xml(image_xml(data), "urn:uuid:this"))
    with pytest.raises(ImageError, match=r"another file \(urn:uuid:other\) without its name"):
        read(path, make_recipe(names=("protein", "nucleus")))


def test_file_names_of_a_set_may_not_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    one_file_each(tmp_path)
    path = shutil.copy(tmp_path / "set_w1.ome.tif", tmp_path / "in" / "set_w1.ome.tif")
    change_xml(Path(path), ("set_w2.ome.tif", "../set_w2.ome.tif"))
    with pytest.raises(ImageError, match=r"'\.\./set_w2\.ome\.tif', which is no plain file name"):
        read(Path(path), make_recipe(names=("protein", "nucleus")))


def test_one_file_a_position_is_read_by_its_own_part_of_the_metadata(tmp_path: Path) -> None:
    images = ""
    for i in range(2):
        data = f'<TiffData IFD="0" PlaneCount="2"><UUID FileName="p{i}.ome.tif">urn:uuid:{i}</UUID></TiffData>'
        images += image_xml(data)
    for i in range(2):
        write_pages(tmp_path / f"p{i}.ome.tif", planes(2) + np.uint16(i), ome_xml(images, f"urn:uuid:{i}"))
    recipe = make_recipe(names=("protein", "nucleus"))
    np.testing.assert_array_equal(read(tmp_path / "p1.ome.tif", recipe), planes(2) + 1)
    (tmp_path / "p0.ome.tif").unlink()  # another position is no part of this one
    np.testing.assert_array_equal(read(tmp_path / "p1.ome.tif", recipe), planes(2) + 1)
    both = write_pages(tmp_path / "both.ome.tif", planes(4), ome_xml(image_xml("") + image_xml("")))
    with pytest.raises(ImageError, match=r"describe 2 images \(positions\) in this file.*Save each position"):
        read(both, recipe)


def test_renamed_file_and_metadata_in_a_companion(tmp_path: Path) -> None:
    data = '<TiffData IFD="0" PlaneCount="2"><UUID FileName="first.ome.tif">urn:uuid:7</UUID></TiffData>'
    recipe = make_recipe(names=("protein", "nucleus"))
    for uuid in ("urn:uuid:7", ""):
        path = write_pages(tmp_path / "renamed.ome.tif", planes(2), ome_xml(image_xml(data), uuid))
        np.testing.assert_array_equal(read(path, recipe), planes(2))
    binary = write_pages(tmp_path / "first.ome.tif", planes(2), ome_xml('<BinaryOnly MetadataFile="set.companion.ome" UUID="u"/>'))
    with pytest.raises(ImageError, match=r"lie in set\.companion\.ome, which is not beside it"):
        read(binary, recipe)
    (tmp_path / "set.companion.ome").write_text(ome_xml(image_xml(data)))
    np.testing.assert_array_equal(read(binary, recipe), planes(2))


def test_colour_ome_tiff(tmp_path: Path) -> None:
    pixels = np.moveaxis(planes(3, "uint8"), 0, -1)
    path = tmp_path / "a.ome.tif"
    for planar in ("contig", "separate"):
        stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
        axes = "YXS" if planar == "contig" else "SYX"
        tifffile.imwrite(path, stored, ome=True, photometric="rgb", planarconfig=planar, metadata={"axes": axes})
        assert describe_image(path).kind == "rgb"
        got = read(path, make_recipe("composite", order=["protein", "nucleus", "tubules"]))
        np.testing.assert_array_equal(got, np.moveaxis(pixels, -1, 0))
