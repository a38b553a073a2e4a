from __future__ import annotations

from collections import Counter

import pytest

from pci_core.data.guess import choose_grouping, group_fields, image_of, kind_of, parse_names

WELLS = [f"{row}{column:02d}" for row in "ABC" for column in (1, 2)]
GUID = "3F2504E0-4F89-11D3-9A0C-0305E82C3301"


def read(paths: list[str]) -> tuple[dict[str, set[str]], dict[str, str], list[str], str, Counter[str]]:
    """Fields with their channels, masks, lone masks, grouping, and the number of fields of each image."""
    names = parse_names(paths)
    groups = group_fields([n for n in names if not n.labels], [n for n in names if n.labels])
    first = {k: next(iter(v.values()))[0] for k, v in groups.fields.items()}
    grouping, _ = choose_grouping(first)
    images = Counter(image_of(n, k, grouping) for k, n in first.items())
    return {k: set(v) for k, v in groups.fields.items()}, groups.labels, groups.lone_labels, grouping, images


CASES = {
    # how the names look: paths, channels, fields, grouping, images
    "harmony": ([f"r0{r}c01f0{f}p01-ch{c}sk1fk1fl1.tiff" for r in (1, 2) for f in (1, 2) for c in (1, 2)], {"ch1", "ch2"}, 4, "well", 2),
    "metaxpress": (
        [f"exp_{w}_s{s}_w{c}{GUID}.tif" for w in WELLS for s in (1, 2) for c in (1, 2, 3)],
        {"w1", "w2", "w3"}, 12, "well", 6,
    ),
    "metamorph": ([f"exp_w{c}_s{s}_t1.TIF" for s in (1, 2) for c in ("1DAPI", "2GFP")], {"w1DAPI", "w2GFP"}, 2, "field", 2),
    "cellvoyager": (
        [f"Assay_{w}_T0001F00{f}L01A01Z01C0{c}.tif" for w in WELLS for f in (1, 2) for c in (1, 2)],
        {"C01", "C02"}, 12, "well", 6,
    ),
    "incell": (
        [f"{w[0]} - {w[1:]}(fld {f} wv {c} - {c}).tif" for w in WELLS for f in (1, 2) for c in ("DAPI", "FITC")],
        {"DAPI", "FITC"}, 12, "well", 6,
    ),
    "C as channel": ([f"img{i}_C0{c}.tif" for i in range(3) for c in (0, 1)], {"C00", "C01"}, 3, "field", 3),
    "C as well": ([f"C0{i}_{c}.tif" for i in (1, 2, 3) for c in ("dapi", "gfp")], {"dapi", "gfp"}, 3, "well", 3),
    "F11 is a well, no field": ([f"57_{w}_1_{c}.png" for w in ("D2", "F11") for c in ("blue", "green")], {"blue", "green"}, 2, "well", 2),
    "channel folders": ([f"{c}/AAC{i}.tif" for c in ("DAPI", "GFP") for i in range(3)], {"DAPI", "GFP"}, 3, "field", 3),
    "channel folders, one word in all names": (
        [f"{c}/dna-{i}.png" for c in ("dna", "protein") for i in range(3)], {"dna", "protein"}, 3, "field", 3,
    ),
    "protein folders": (
        [f"{p}/{i}_{c}.tif" for p in ("AAC1", "AAC3") for i in range(4) for c in ("gfp", "rfp")], {"gfp", "rfp"}, 8, "folder", 2,
    ),
    "plate folders": (
        [f"P{p}/{w}_{i}_{c}.tif" for p in (1, 2) for w in WELLS for i in (1, 2) for c in ("GFP", "mCherry")],
        {"GFP", "mCherry"}, 24, "well", 12,
    ),
    "plates before the well": (
        [f"{p}_A01_{i}_{c}.tif" for p in ("x", "y") for i in (1, 2) for c in ("gfp", "rfp")], {"gfp", "rfp"}, 4, "well", 2,
    ),
    "unknown words": ([f"cell{i}_{c}.tif" for i in range(4) for c in ("x", "y")], {"x", "y"}, 4, "field", 4),
    "field numbers": ([f"KAR2_f0{i}.tif" for i in (1, 2)] + [f"TUB1_f0{i}.tif" for i in (1, 2)], {""}, 4, "name", 2),
    "numbers at the end": ([f"{p}_{i}.tif" for p in ("AAC", "TUB") for i in (1, 2)], {""}, 4, "name", 2),
    "hpa composites": ([f"4109_{w}_{i}_blue_red_green.jpg" for w in WELLS for i in (1, 2)], {""}, 12, "well", 6),
    "hpa dictionary": (["0-1-a.jpg", "0-2-a.jpg", "1-1-a.jpg", "10-1-a.jpg"], {""}, 4, "field", 4),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_names_of_usual_microscopes(case: str) -> None:
    paths, channels, n_fields, grouping, n_images = CASES[case]
    fields, _, _, found, images = read(paths)
    assert set.union(*fields.values()) == channels
    assert all(c == channels for c in fields.values()), "every field has every channel"
    assert (len(fields), found, len(images)) == (n_fields, grouping, n_images)


def test_well_site_plane_and_plate() -> None:
    n = parse_names(["p9/r02c11f03p01-ch1sk2fk1fl1.tiff", "p8/r01c11f03p01-ch1sk2fk1fl1.tiff"])[0]
    assert (n.well, n.site, n.plane, n.channel, n.plate, n.field) == ("r02c11", "03", "01", "ch1", "p9", "r02c11f03")


def test_a_folder_that_holds_everything_is_no_plate() -> None:
    assert {n.plate for n in parse_names([f"images/{w}_{c}.tif" for w in WELLS for c in ("gfp", "rfp")])} == {""}


def test_planes_share_a_field() -> None:
    names = parse_names([f"A01_f1_z{z}_ch{c}.tif" for z in range(3) for c in (1, 2)])
    (field,) = group_fields(names, []).fields.values()
    assert {c: sorted(n.plane for n in files) for c, files in field.items()} == {"ch1": ["0", "1", "2"], "ch2": ["0", "1", "2"]}


def test_masks_find_their_fields() -> None:
    paths = [f"input_images/r01c01f0{f}p01-ch{c}sk1fk1fl1.tiff" for f in (1, 2) for c in (1, 2)]
    _, labels, lone, _, _ = read([*paths, *(f"labeled_images/r01c01f0{f}p01_labeled.tiff" for f in (1, 2, 3))])
    assert labels == {f"r01c01f0{f}": f"labeled_images/r01c01f0{f}p01_labeled.tiff" for f in (1, 2)}
    assert lone == ["labeled_images/r01c01f03p01_labeled.tiff"]
    _, labels, _, _, _ = read(["a.tif", "b.tif", "a_cp_masks.png", "b_mask.png"])
    assert labels == {"a": "a_cp_masks.png", "b": "b_mask.png"}


def test_a_mask_that_fits_two_fields_is_taken_for_none() -> None:
    _, labels, lone, _, _ = read(["x/1.tif", "y/1.tif", "masks/1.png"])
    assert not labels and lone == ["masks/1.png"]


def test_a_mask_beside_its_field_is_taken_for_that_one() -> None:
    _, labels, _, _, _ = read(["x/1.tif", "y/1.tif", "x/1_mask.png", "y/1_mask.png"])
    assert labels == {"x_1": "x/1_mask.png", "y_1": "y/1_mask.png"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("w1DAPI", "nucleus"), ("Hoechst33342", "nucleus"), ("mNeonGreen", "protein"), ("GFP", "protein"), ("BF", "brightfield"),
     ("DIC", "brightfield"), ("mCherry", "marker"), ("ch1", ""), ("x", "")],
)  # fmt: skip
def test_kinds_of_channels(name: str, kind: str) -> None:
    assert kind_of(name) == kind
