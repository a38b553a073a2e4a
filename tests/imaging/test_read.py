"""Reading fields of view: every format, and every file that cannot be used."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from pci_core import recipe as recipes
from pci_core.errors import ImageError, RecipeError
from pci_core.imaging.read import downscale, read_field

NAMES = ("protein", "nucleus", "microtubules")


def make_recipe(
    format: str = "composite", order: tuple[str, ...] = ("microtubules", "protein", "nucleus"), downscale: int = 1
) -> recipes.Recipe:
    channels = [{"name": n, "role": "structural" if i else "protein"} for i, n in enumerate(NAMES)]
    fields = {"format": format, "order": list(order), "downscale": downscale}
    source = {"kind": "table", "path": "fields.csv"}
    return recipes.parse({"name": "made-up", "title": "Made up", "channels": channels, "source": source, "fields": fields}, "made-up")


@pytest.fixture
def field() -> np.ndarray:
    """(3, 24, 32) uint8 in the order of `NAMES`."""
    return np.random.default_rng(0).integers(0, 256, (3, 24, 32), dtype=np.uint8)


def save_separate(folder: Path, field: np.ndarray, suffix: str = ".png") -> dict[str, Any]:
    row: dict[str, Any] = {"field": "f1"}
    for name, plane in zip(NAMES, field, strict=True):
        path = folder / f"f1_{name}{suffix}"
        tifffile.imwrite(path, plane) if suffix == ".tif" else Image.fromarray(plane).save(path)
        row[f"path_{name}"] = path.name
    return row


def test_composite_comes_in_the_recipes_order(tmp_path: Path, field: np.ndarray) -> None:
    Image.fromarray(np.stack([field[2], field[0], field[1]], -1)).save(tmp_path / "a.png")
    got = read_field({"field": "f1", "path": "a.png"}, make_recipe(), tmp_path)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, field)


def test_hpa_composite_jpeg(tmp_path: Path) -> None:
    planes = np.stack([np.full((16, 16), v, np.uint8) for v in (40, 120, 200)], -1)
    Image.fromarray(planes).save(tmp_path / "1_A1_1_blue_red_green.jpg", quality=95)
    got = read_field({"field": "f", "path": "1_A1_1_blue_red_green.jpg"}, make_recipe(), tmp_path)
    # JPEG stores colours rounded in another colour space: a few grey levels
    np.testing.assert_allclose(got[:, 8, 8].astype(int), [120, 200, 40], atol=4)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_stack(tmp_path: Path, field: np.ndarray, axis: int, dtype: str) -> None:
    stored = np.moveaxis(field[[1, 0, 2]].astype(dtype), 0, axis)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack")
    got = read_field({"field": "f", "path": "a.tif"}, make_recipe("stack", ("nucleus", "protein", "microtubules")), tmp_path)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, field.astype(dtype))


def test_ome_stack_with_a_plane_that_is_not_used(tmp_path: Path, field: np.ndarray) -> None:
    stored = np.concatenate([field[:1], field]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.ome.tif", stored, ome=True, metadata={"axes": "CYX"})
    got = read_field({"field": "f", "path": "a.ome.tif"}, make_recipe("stack", ("", *NAMES)), tmp_path)
    np.testing.assert_array_equal(got, field)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_separate_files(tmp_path: Path, field: np.ndarray, suffix: str) -> None:
    wide = field.astype(np.uint16) * 257
    np.testing.assert_array_equal(read_field(save_separate(tmp_path, wide, suffix), make_recipe("separate"), tmp_path), wide)


def test_separate_rgb_with_equal_channels_or_a_named_colour(tmp_path: Path, field: np.ndarray) -> None:
    row = save_separate(tmp_path, field)
    Image.fromarray(np.stack([field[0]] * 3, -1)).save(tmp_path / "grey.png")
    blue = np.zeros((*field.shape[1:], 3), np.uint8)
    blue[..., 2] = field[1]
    Image.fromarray(blue).save(tmp_path / "1_A1_1_blue.png")
    row |= {"path_protein": "grey.png", "path_nucleus": "1_A1_1_blue.png"}
    np.testing.assert_array_equal(read_field(row, make_recipe("separate"), tmp_path), field)
    Image.fromarray(blue).save(tmp_path / "unnamed.png")
    with pytest.raises(ImageError, match=r"unnamed\.png.*no colour"):
        read_field(row | {"path_nucleus": "unnamed.png"}, make_recipe("separate"), tmp_path)


def test_whole_numbers_that_fit_are_taken_as_uint16_and_others_refused(tmp_path: Path, field: np.ndarray) -> None:
    recipe = make_recipe("stack", NAMES)
    tifffile.imwrite(tmp_path / "a.tif", field.astype(np.int32) * 100, photometric="minisblack")
    got = read_field({"field": "f", "path": "a.tif"}, recipe, tmp_path)
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, field.astype(int) * 100)
    tifffile.imwrite(tmp_path / "b.tif", field.astype(np.int16) - 5, photometric="minisblack")
    with pytest.raises(ImageError, match=r"b\.tif.*int16 from -5"):
        read_field({"field": "f", "path": "b.tif"}, recipe, tmp_path)


def test_downscale_is_the_local_mean_rounded_half_to_even() -> None:
    field = np.array([[[0, 1, 5], [0, 1, 5], [9, 9, 9]]], np.uint8)  # mean 0.5 goes to 0; the odd row and column are cut off
    np.testing.assert_array_equal(downscale(field, 2), [[[0]]])
    np.testing.assert_array_equal(downscale(field + 1, 2), [[[2]]])  # 1.5 goes to 2
    assert downscale(field.astype(np.float32), 2)[0, 0, 0] == 0.5
    with pytest.raises(ImageError, match="cannot be reduced by 4"):
        downscale(field, 4)


def test_read_field_downscales(tmp_path: Path, field: np.ndarray) -> None:
    row = save_separate(tmp_path, field)
    got = read_field(row, make_recipe("separate", downscale=4), tmp_path)
    assert got.shape == (3, 6, 8)
    np.testing.assert_array_equal(got[0, 0, 0], np.rint(field[0, :4, :4].mean()))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("keep", [0.0, 0.4, 0.9])
def test_empty_and_truncated_files_are_named(tmp_path: Path, suffix: str, keep: float) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut{suffix}"
    tifffile.imwrite(path, np.moveaxis(pixels, -1, 0), photometric="minisblack") if suffix == ".tif" else Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    recipe = make_recipe("stack", NAMES) if suffix == ".tif" else make_recipe()
    with pytest.raises(ImageError, match=rf"cut\{suffix}.*{'empty' if not keep else 'cut short'}"):
        read_field({"field": "f", "path": path.name}, recipe, tmp_path)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_truncated_ome_tiff_is_never_filled_up(tmp_path: Path, compression: str | None) -> None:
    pixels = np.random.default_rng(1).integers(1, 60000, (3, 64, 64), dtype=np.uint16)
    path = tmp_path / "cut.ome.tif"
    tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "CYX"}, compression=compression)
    content = path.read_bytes()
    for keep in (0.3, 0.7, 0.85):
        path.write_bytes(content[: int(keep * len(content))])
        with pytest.raises(ImageError, match=r"cut\.ome\.tif"):
            read_field({"field": "f", "path": path.name}, make_recipe("stack", NAMES), tmp_path)
    path.write_bytes(content[:-700])  # only the description at the end is lost: the pixels are whole or it is refused
    try:
        got = read_field({"field": "f", "path": path.name}, make_recipe("stack", NAMES), tmp_path)
    except ImageError:
        return
    np.testing.assert_array_equal(got, pixels)


def test_a_text_file_is_no_image(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.tif"):
        (tmp_path / name).write_text("not an image")
        with pytest.raises(ImageError, match=rf"{name} cannot be read as an image"):
            read_field({"field": "f", "path": name}, make_recipe("stack" if name == "a.tif" else "composite", NAMES), tmp_path)


def test_channels_of_different_sizes_or_types(tmp_path: Path, field: np.ndarray) -> None:
    row = save_separate(tmp_path, field)
    Image.fromarray(field[1, :, :20]).save(tmp_path / "small.png")
    with pytest.raises(ImageError, match=r"different sizes.*nucleus 24x20 px \(small\.png\)"):
        read_field(row | {"path_nucleus": "small.png"}, make_recipe("separate"), tmp_path)
    Image.fromarray(field[1].astype(np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ImageError, match=r"different types.*nucleus uint16 \(deep\.png\)"):
        read_field(row | {"path_nucleus": "deep.png"}, make_recipe("separate"), tmp_path)


def test_missing_channel_names_field_channel_and_remedy(tmp_path: Path, field: np.ndarray) -> None:
    row = save_separate(tmp_path, field)
    for value in ("", None, float("nan")):
        with pytest.raises(ImageError, match=r"field 'f1' has no file for channel 'microtubules'.*Leave the field out"):
            read_field(row | {"path_microtubules": value}, make_recipe("separate"), tmp_path)
    with pytest.raises(ImageError, match=r"gone\.png for channel 'microtubules' is not there"):
        read_field(row | {"path_microtubules": "gone.png"}, make_recipe("separate"), tmp_path)
    tifffile.imwrite(tmp_path / "two.tif", field[:2], photometric="minisblack")
    with pytest.raises(ImageError, match=r"two\.tif: expected 3 channel planes"):
        read_field({"field": "f1", "path": "two.tif"}, make_recipe("stack", NAMES), tmp_path)
    Image.fromarray(field[0]).save(tmp_path / "grey.png")
    with pytest.raises(ImageError, match=r"grey\.png is no colour composite"):
        read_field({"field": "f1", "path": "grey.png"}, make_recipe(), tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinite_pixels(tmp_path: Path, field: np.ndarray, bad: float) -> None:
    pixels = field.astype(np.float32)
    pixels[1, 3, 4] = bad
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    with pytest.raises(ImageError, match=r"a\.tif: channel 'nucleus' has 1 NaN or infinite"):
        read_field({"field": "f", "path": "a.tif"}, make_recipe("stack", NAMES), tmp_path)


def test_order_must_name_every_channel(tmp_path: Path, field: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", field, photometric="minisblack")
    with pytest.raises(RecipeError, match="must name each channel"):
        read_field({"field": "f", "path": "a.tif"}, make_recipe("stack", ("protein", "nucleus")), tmp_path)


def hpa_recipe() -> recipes.Recipe:
    channels = [{"name": n, "role": "structural" if i else "protein"} for i, n in enumerate(("green", "blue", "red"))]
    content = {
        "name": "hpa",
        "title": "HPA",
        "channels": channels,
        "source": {"kind": "table", "path": "fields.csv"},
        "fields": {"format": "separate", "downscale": 4},
    }
    return recipes.parse(content, "hpa")


def test_real_hpa_field(test_data: Path) -> None:
    row = {"field": "57_F11_1", **{f"path_{c}": f"hpa-fields/57_F11_1_{c}.png" for c in ("green", "blue", "red")}}
    got = read_field(row, hpa_recipe(), test_data)
    assert got.shape == (3, 432, 432) and got.dtype == np.uint8 and (got.max(axis=(1, 2)) > 200).all()


def test_real_hpa_field_without_microtubules(test_data: Path) -> None:
    row = {"field": "383_D2_1", **{f"path_{c}": f"hpa-fields/383_D2_1_{c}.png" for c in ("green", "blue", "red")}}
    with pytest.raises(ImageError, match=r"383_D2_1.*channel 'red'.*Leave the field out"):
        read_field(row, hpa_recipe(), test_data)


def test_real_hpa_composites_all_read(test_data: Path) -> None:
    files = sorted((test_data / "hpa-dictionary" / "images").glob("*.jpg"))
    fields = [read_field({"field": f.stem, "path": str(f)}, make_recipe(), "")[:, ::8] for f in files]
    assert len(files) == 82 and {(f.dtype.name, f.shape[0]) for f in fields} == {("uint8", 3)}
    assert all(f[0].max() > 50 for f in fields)  # each shows a protein


def test_real_yeast_fields_of_16_bits(test_data: Path) -> None:
    row = {"field": "r01c01f01", **{f"path_{n}": f"yeast-fields/r01c01f01p01-ch{i}sk1fk1fl1.tiff" for i, n in enumerate(NAMES, 1)}}
    got = read_field(row, make_recipe("separate"), test_data)
    assert got.shape == (3, 1080, 1080) and got.dtype == np.uint16 and got.max() > 255
    np.testing.assert_array_equal(got[2], tifffile.imread(test_data / row["path_microtubules"]))


def test_12_bits_in_16_and_big_endian_keep_their_values(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (3, 24, 32), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels.astype(">u2"), byteorder=">", photometric="minisblack")
    got = read_field({"field": "f", "path": "a.tif"}, make_recipe("stack", NAMES), tmp_path)
    assert got.dtype == np.uint16 and got.dtype.isnative
    np.testing.assert_array_equal(got, pixels)


def test_colour_tiff_as_a_composite(tmp_path: Path, field: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([field[2], field[0], field[1]], -1), photometric="rgb")
    np.testing.assert_array_equal(read_field({"field": "f", "path": "a.tif"}, make_recipe(), tmp_path), field)


def test_a_compression_that_needs_a_package_names_it(tmp_path: Path, field: np.ndarray) -> None:
    Image.fromarray(field[0]).save(tmp_path / "a.tif", compression="tiff_lzw")
    row = {"field": "f", **{f"path_{n}": "a.tif" for n in NAMES}}
    if find_spec("imagecodecs"):
        np.testing.assert_array_equal(read_field(row, make_recipe("separate"), tmp_path)[0], field[0])
    else:
        with pytest.raises(ImageError, match=r"a\.tif.*pip install imagecodecs"):
            read_field(row, make_recipe("separate"), tmp_path)


def test_imagej_stack_of_channels_that_it_calls_slices(tmp_path: Path, field: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", field, imagej=True, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read_field({"field": "f", "path": "a.tif"}, make_recipe("stack", NAMES), tmp_path), field)
