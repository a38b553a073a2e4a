"""The field table: what is checked before any image is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pci_core import recipe as recipes
from pci_core.data.table import field_name, read_field_table
from pci_core.errors import CellTableError


def make_recipe(format: str = "composite", method: str = "nuclei") -> recipes.Recipe:
    channels = [{"name": n, "role": "structural" if i else "protein"} for i, n in enumerate(("green", "blue", "red"))]
    content: dict[str, Any] = {
        "name": "made-up",
        "title": "t",
        "channels": channels,
        "source": {"kind": "table", "path": "fields.csv"},
        "fields": {"format": format},
        "segmentation": {"method": method},
    }
    return recipes.parse(content, "made-up")


def write(folder: Path, rows: list[dict[str, Any]], files: bool = True) -> Path:
    table = pd.DataFrame(rows)
    for column in table:
        if files and (column == "labels" or str(column).startswith("path")):
            for name in table[column].dropna():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
    table.to_csv(folder / "fields.csv", index=False)
    return folder / "fields.csv"


def test_texts_stay_texts_and_columns_come_in_order(tmp_path: Path) -> None:
    path = write(tmp_path, [{"path": "sub/a.jpg", "plate": "007", "image": "NA", "field": "1", "protein": ""}])
    table, root = read_field_table(path, make_recipe())
    assert table.columns.tolist() == ["field", "image", "path", "plate", "protein"]
    assert table.iloc[0].tolist() == ["1", "NA", "sub/a.jpg", "007", ""]
    assert root == tmp_path


def test_byte_order_mark_of_spreadsheets(tmp_path: Path) -> None:
    path = write(tmp_path, [{"image": "i", "path": "a.jpg"}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_field_table(path, make_recipe())[0]["image"].tolist() == ["i"]


@pytest.mark.parametrize(
    ("path", "channel", "name"),
    [
        ("x/1_A1_2_blue_red_green.jpg", "", "1_A1_2"),
        ("57_F11_1_green.png", "green", "57_F11_1"),
        ("w1_gfp.tif", "gfp", "w1"),
        ("stack.ome.tif", "", "stack"),
        ("blue.png", "", "blue"),
        ("x/w1.ome.zarr", "", "w1"),
        ("plate.zarr/A/1/0", "", "plate_A_1_0"),
        ("", "", ""),
    ],
)
def test_names_of_fields(path: str, channel: str, name: str) -> None:
    assert field_name(path, channel) == name


def test_field_is_made_from_the_file_name(tmp_path: Path) -> None:
    path = write(tmp_path, [{"image": "i", **{f"path_{c}": f"1_A1_{n}_{c}.jpg" for c in ("red", "green", "blue")}} for n in (1, 2)])
    assert read_field_table(path, make_recipe("separate"))[0]["field"].tolist() == ["1_A1_1", "1_A1_2"]


def test_missing_columns_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, [{"field": "a", "path_green": "a.png"}])
    with pytest.raises(CellTableError, match=r"missing columns image, path_blue, path_red \(found: field, path_green\)"):
        read_field_table(path, make_recipe("separate"))
    path = write(tmp_path, [{"image": "a", "path": "a.png"}])
    with pytest.raises(CellTableError, match="missing columns labels"):
        read_field_table(path, make_recipe(method="labels"))


def test_doubled_fields(tmp_path: Path) -> None:
    path = write(tmp_path, [{"image": "i", "path": f"{d}/a.png"} for d in ("x", "y")])
    with pytest.raises(CellTableError, match=r"1 values of 'field' occur more than once, e\.g\. \['a'\]"):
        read_field_table(path, make_recipe())


def test_empty_image_and_empty_path(tmp_path: Path) -> None:
    path = write(tmp_path, [{"image": "i", "path": "a.png"}, {"image": None, "path": "b.png"}])
    with pytest.raises(CellTableError, match=r"'image' is empty in rows \[3\]"):
        read_field_table(path, make_recipe())
    rows = [{"image": "i", "field": f, "path_green": f"{f}g.png", "path_blue": f"{f}b.png", "path_red": f"{f}r.png"} for f in "ab"]
    rows[1]["path_red"] = ""
    path = write(tmp_path, [{k: v or None for k, v in r.items()} for r in rows])
    with pytest.raises(CellTableError, match=r"1 of 2 fields have no file for channel 'red', e\.g\. b\. Leave these fields out"):
        read_field_table(path, make_recipe("separate"))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, [{"image": "i", "path": f"{n}.png"} for n in range(5)])
    for n in (1, 3):
        (tmp_path / f"{n}.png").unlink()
    with pytest.raises(CellTableError, match=r"2 of 5 files of column 'path' are not there, e\.g\. 1\.png, 3\.png"):
        read_field_table(path, make_recipe())


def test_what_is_missing_in_all_columns_is_listed_at_once(tmp_path: Path) -> None:
    rows = [{"image": "i", "field": f"f{n}", **{f"path_{c}": f"{n}_{c}.png" for c in ("green", "blue", "red")}} for n in range(9)]
    path = write(tmp_path, rows)
    for name in ("0_green", "1_blue", "2_blue"):
        (tmp_path / f"{name}.png").unlink()
    table = pd.read_csv(path)
    table.loc[4, "path_red"] = None
    table.to_csv(path, index=False)
    with pytest.raises(CellTableError) as raised:
        read_field_table(path, make_recipe("separate"))
    text = str(raised.value)
    for part in (
        "1 of 9 fields have no file for channel 'red', e.g. f4.", "1 of 9 files of column 'path_green' are not there, e.g. 0_green.png.",
        "2 of 9 files of column 'path_blue' are not there, e.g. 1_blue.png, 2_blue.png.", "relative ones start at",
    ):  # fmt: skip
        assert part in text, text


def test_a_folder_counts_as_a_file_only_where_zarr_made_it(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    path = write(tmp_path, [{"image": "i", "path": "a.zarr"}], files=False)
    with pytest.raises(CellTableError, match=r"1 of 1 files of column 'path' are not there, e\.g\. a\.zarr"):
        read_field_table(path, make_recipe())
    (tmp_path / "a.zarr" / "zarr.json").write_text("{}")
    assert read_field_table(path, make_recipe())[0]["field"].tolist() == ["a"]


def test_absolute_paths(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    (tmp_path / "here").mkdir()
    path = write(tmp_path / "here", [{"image": "i", "path": str(tmp_path / "elsewhere" / "a.png")}], files=False)
    assert len(read_field_table(path, make_recipe())[0]) == 1


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "fields.csv"
    with pytest.raises(CellTableError, match="is not there"):
        read_field_table(path, make_recipe())
    for content in (b"", b"image,path\n\xff\xfe,a.png\n", b'image,path\n"i,a.png\n'):
        path.write_bytes(content)
        with pytest.raises(CellTableError, match=r"fields\.csv cannot be read"):
            read_field_table(path, make_recipe())
    path.write_text("image,path\n")
    with pytest.raises(CellTableError, match="header but no row"):
        read_field_table(path, make_recipe())
