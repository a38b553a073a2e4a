from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from matplotlib.figure import Figure
from PIL import Image
from skimage.draw import disk
from typer.testing import CliRunner

from pci_core import init as init_module
from pci_core import recipe as recipes
from pci_core.cli import app
from pci_core.data.propose import Proposal
from pci_core.data.survey import Survey, survey_folder
from pci_core.data.table import read_field_table
from pci_core.errors import ImageError, PCIError, StorageError, UnknownNameError
from pci_core.imaging.build import build_cells
from pci_core.init import Written, init_folder

SIDE, RADIUS = 160, 9


def cells(seed: int, protein: str = "dots") -> dict[str, np.ndarray]:
    """A field of round cells: a cytosolic marker, a protein within, and the labels."""
    rng = np.random.default_rng(seed)
    marker, gfp = rng.normal(100, 6, (2, SIDE, SIDE))
    labels = np.zeros((SIDE, SIDE), np.uint16)
    n = 0
    for y in range(22, SIDE - 20, 32):
        for x in range(22, SIDE - 20, 32):
            at = (y + rng.uniform(-3, 3), x + rng.uniform(-3, 3))
            n += 1
            where = disk(at, RADIUS, shape=labels.shape)
            labels[where] = n
            marker[where] += 800
            gfp[where] += 120 if protein == "dots" else 400
            if protein == "dots":
                gfp[disk((at[0], at[1] + 3), 2.5, shape=labels.shape)] += 900
    return {"rfp": marker.clip(0).astype(np.uint16), "gfp": gfp.clip(0).astype(np.uint16), "labels": labels}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of 2 wells x 2 fields, one file a channel."""

    def make(name: str = "plate", channels: tuple[str, str] = ("gfp", "rfp"), masks: bool = False, stem: str = "{w}_f{f}_{c}") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for k, (w, f) in enumerate([("A01", 1), ("A01", 2), ("B02", 1), ("B02", 2)]):
            got = cells(k, "dots" if w == "A01" else "even")
            for c, kind in zip(channels, ("gfp", "rfp"), strict=True):
                tifffile.imwrite(folder / f"{stem.format(w=w, f=f, c=c)}.tif", got[kind])
            if masks:
                tifffile.imwrite(folder / f"{w}_f{f}_mask.tif", got["labels"])
        return folder

    return make


@pytest.fixture(scope="module")
def proposals() -> dict[str, Proposal]:
    return {}


@pytest.fixture
def proposed_once(monkeypatch: pytest.MonkeyPatch, proposals: dict[str, Proposal]) -> None:
    """Propose for the plate of `write` once, and draw a blank sheet: nearly all of the time, and not what these tests look at."""
    real = init_module.propose

    def kept(survey: Survey, name: str, **options: str | None) -> Proposal:
        key = repr((name, list(survey.fields), options))
        if key not in proposals:
            proposals[key] = real(survey, name, **options)
        return replace(proposals[key], survey=survey)

    monkeypatch.setattr(init_module, "propose", kept)
    monkeypatch.setattr(init_module, "contact_sheet", lambda *_: Figure())


def init(folder: Path, **options: object) -> Written:
    return init_folder(folder, folder.parent / "out", progress=False, **options)  # type: ignore[arg-type]


def test_a_folder_becomes_a_recipe_that_makes_cells(write: Callable[..., Path], tmp_path: Path) -> None:
    written = init(write())
    spec = recipes.load(written.recipe)
    assert [(c.name, c.role) for c in spec.channels] == [("gfp", "protein"), ("rfp", "structural")]
    assert (spec.fields.format, spec.segmentation.method, spec.segmentation.channel) == ("separate", "yeast", "rfp")
    # 1.6 times the diameter of 18 px = 29 px, in steps of 4, and a pixel of the outline
    assert 24 <= spec.crop.size <= 36 and spec.crop.resize == 64 and spec.fields.downscale == 1
    table, root = read_field_table(tmp_path / "out" / "fields.csv", spec)
    assert list(table["image"]) == ["A01", "A01", "B02", "B02"] and list(table["well"]) == list(table["image"])
    assert not any(Path(p).is_absolute() for p in table["path_gfp"])
    made = build_cells(table, root, spec, tmp_path / "cells", jobs=1, progress=False)
    assert len(made) >= 4 * 14 and set(made.table["image"]) == {"A01", "B02"}
    assert {f.name for f in written.files} == {"fields.csv", "plate.toml", "contact_sheet.png"}
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert min(sheet.size) > 300
    for said in ("4 fields of view, 2 images", "gfp (protein), rfp (structural)", f"pci info {written.recipe}", "check", "µm"):
        assert said in written.summary
    text = written.recipe.read_text()
    assert text.count("# CHECK:") >= 4 and 'pretrained = "simulated-yeast"' in text


def test_channels_without_a_telling_name_are_decided_by_the_picture_and_marked(write: Callable[..., Path]) -> None:
    written = init(write(channels=("ch1", "ch2")))
    spec = recipes.load(written.recipe)
    assert [c.name for c in spec.channels] == ["ch1", "ch2"] and spec.segmentation.channel == "ch2"
    assert "NOT SURE: no name says which channel is the protein" in written.summary
    assert "# CHECK: NOT SURE" in written.recipe.read_text()


def test_options_go_before_guesses(write: Callable[..., Path]) -> None:
    folder = write(channels=("ch1", "ch2"))
    spec = recipes.load(init(folder, protein="ch2", segment="ch1", group="field", method="nuclei", name="mine").recipe)
    assert [c.name for c in spec.channels] == ["ch2", "ch1"]
    assert (spec.name, spec.segmentation.method, spec.segmentation.channel) == ("mine", "nuclei", "ch1")
    assert pd.read_csv(folder.parent / "out" / "fields.csv")["image"].nunique() == 4
    for wrong in ({"protein": "ch9"}, {"segment": "x"}, {"group": "plate"}, {"method": "magic"}):
        with pytest.raises(UnknownNameError, match="Known: "):
            init(folder, force=True, **wrong)


def test_masks_are_used_and_measured(write: Callable[..., Path]) -> None:
    written = init(write(masks=True))
    spec = recipes.load(written.recipe)
    assert spec.segmentation.method == "labels"
    assert "cells 18 px" in written.summary and "method 'labels' on label masks" in written.summary
    table, _ = read_field_table(written.files[0], spec)
    assert list(table["labels"].map(lambda p: Path(p).name))[:2] == ["A01_f1_mask.tif", "A01_f2_mask.tif"]


@pytest.mark.usefixtures("proposed_once")
def test_nothing_is_overwritten(write: Callable[..., Path]) -> None:
    folder = write()
    out = init(folder).recipe.parent
    (out / "plate.toml").write_text("mine")
    before = sorted(p.name for p in out.iterdir())
    with pytest.raises(StorageError, match="--force"):
        init(folder)
    assert sorted(p.name for p in out.iterdir()) == before and (out / "plate.toml").read_text() == "mine"
    init(folder, force=True)
    init(folder, force=True)
    assert (out / "plate.toml.bak").read_text() == "mine" and (out / "plate.toml.bak2").exists() and (out / "fields.csv.bak").exists()
    recipes.load(out / "plate.toml")


def test_a_killed_run_is_gone_on_with_and_a_users_own_file_is_not_in_its_place(
    write: Callable[..., Path], request: pytest.FixtureRequest
) -> None:
    folder = write()
    first = init(folder)
    first.recipe.unlink()  # written last: so a killed run leaves the others
    assert init(folder).files == first.files
    request.getfixturevalue("proposed_once")  # the second time, all of it was made again, byte for byte
    first.recipe.unlink()
    first.files[0].write_text("mine")
    with pytest.raises(StorageError, match="fields.csv.*--force"):
        init(folder)
    assert first.files[0].read_text() == "mine" and not first.recipe.exists()


def test_what_does_not_fit_is_left_out_with_its_reason(write: Callable[..., Path]) -> None:
    folder = write()
    got = cells(9)
    tifffile.imwrite(folder / "C03_f1_gfp.tif", got["gfp"])  # no rfp
    tifffile.imwrite(folder / "C04_f1_gfp.tif", (got["gfp"] // 256).astype(np.uint8))  # another bit depth
    tifffile.imwrite(folder / "C04_f1_rfp.tif", (got["rfp"] // 256).astype(np.uint8))
    tifffile.imwrite(folder / "C05_f1_gfp.tif", got["gfp"][:100])  # another size
    tifffile.imwrite(folder / "C05_f1_rfp.tif", got["rfp"])
    (folder / "C06_f1_gfp.tif").write_bytes(b"no image")
    for c in ("gfp", "rfp"):
        tifffile.imwrite(folder / f"C07_f1_{c}.tif", np.stack([got[c]] * 3), imagej=True, metadata={"axes": "ZYX"})
    (folder / "A01_f1_gfp_thumb.png").write_bytes(b"x")
    (folder / ".hidden.tif").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    written = init(folder)
    left = pd.read_csv(folder.parent / "out" / "left_out.csv")
    reasons = dict(zip(left["file"], left["reason"], strict=True))
    assert len(left) == 8
    for file, reason in {
        "C03_f1_gfp.tif": "no channel rfp", "C04_f1_gfp.tif": "one bit depth", "C05_f1_rfp.tif": "different sizes",
        "C06_f1_gfp.tif": "unreadable", "C07_f1_gfp.tif": "z planes",
    }.items():  # fmt: skip
        assert reason in reasons[file]
    assert len(pd.read_csv(folder.parent / "out" / "fields.csv")) == 4
    assert "left out: 8 files" in written.summary and "1 .txt" in written.summary and "1 thumbnails; 1 hidden" in written.summary


def test_planes_in_files_of_their_own_are_told(write: Callable[..., Path]) -> None:
    folder = write()
    for z in (1, 2):
        for c in ("gfp", "rfp"):
            shutil.copy(folder / f"A01_f1_{c}.tif", folder / f"A09_f1_z{z}_{c}.tif")
    survey = survey_folder(folder, progress=False)
    assert len(survey.fields) == 4 and {r for _, r in survey.left_out} == {"2 z planes in files of their own: project them first"}


def test_colour_images_drop_an_empty_channel_and_fields_without_a_marker(tmp_path: Path) -> None:
    folder = tmp_path / "rgb"
    folder.mkdir()
    for k in range(5):
        got = cells(k)
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        picture[..., 1] = got["gfp"] / 6
        picture[..., 2] = 0 if k == 4 else got["rfp"] / 5
        Image.fromarray(picture).save(folder / f"{k}-a.png")
    written = init(folder)
    spec = recipes.load(written.recipe)
    assert spec.fields.format == "composite" and spec.fields.order == ("", "green", "blue")
    assert [c.name for c in spec.channels] == ["green", "blue"] and spec.segmentation.method == "nuclei-split"
    assert len(pd.read_csv(written.files[0])) == 4 and "channel blue is empty" in written.summary and "'red' is empty" in written.summary


def test_stacks_and_named_files(tmp_path: Path) -> None:
    for name, meta in (("stack", {"photometric": "minisblack"}), ("named", {"ome": True, "metadata": {
        "axes": "CYX", "Channel": {"Name": ["GFP", "mCherry"]}, "PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.2, "PhysicalSizeYUnit": "µm"}, "photometric": "minisblack"})):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        for k, stem in enumerate(("AAC1_1", "AAC1_2", "TUB1_1", "TUB1_2")):
            got = cells(k)
            tifffile.imwrite(folder / f"{stem}.{'ome.' if meta.get('ome') else ''}tif", np.stack([got["gfp"], got["rfp"]]), **meta)
        written = init_folder(folder, tmp_path / f"{name}-out", progress=False)
        spec = recipes.load(written.recipe)
        assert spec.fields.format == name and len(spec.channels) == 2
        table = pd.read_csv(written.files[0])
        assert set(table["image"]) == {"AAC1", "TUB1"}
        if name == "named":
            assert spec.fields.file_channels == ("GFP", "mCherry") and abs(spec.fields.um_per_px - 0.2) < 1e-6
            assert "µm) across" in written.summary


@pytest.mark.parametrize(
    "case", ["not there", "a file", "empty", "no images", "one channel", "only masks", "unreadable", "grey colour images"]
)
def test_folders_that_cannot_be_used(case: str, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    wanted = {"not there": "is not there", "a file": "is a file", "empty": "nothing at all", "no images": "only 2 .txt",
              "one channel": "at least two", "only masks": "label masks only", "unreadable": "none of 1 images can be read",
              "grey colour images": "at least two"}[case]  # fmt: skip
    if case == "a file":
        folder.write_text("x")
    elif case != "not there":
        folder.mkdir()
    got = cells(0)
    if case == "no images":
        for n in "ab":
            (folder / f"{n}.txt").write_text("x")
    elif case == "one channel":
        for w in ("A01", "B01"):
            tifffile.imwrite(folder / f"{w}_gfp.tif", got["gfp"])
    elif case == "only masks":
        tifffile.imwrite(folder / "A01_mask.tif", got["labels"])
    elif case == "unreadable":
        (folder / "a.tif").write_bytes(b"")
    elif case == "grey colour images":
        Image.fromarray(np.repeat((got["gfp"] // 8).astype(np.uint8)[..., None], 3, axis=2)).save(folder / "a.png")
    with pytest.raises(ImageError, match=wanted):
        init_folder(folder, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("proposed_once")
def test_the_default_folder_is_never_among_the_images(write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write()
    monkeypatch.chdir(folder)
    written = init_folder(folder, progress=False)
    assert written.recipe.resolve() == tmp_path / "plate-pci" / "plate.toml"


@pytest.mark.usefixtures("proposed_once")
def test_command_line(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write()
    result = CliRunner().invoke(app, ["init", str(folder), "--out", str(tmp_path / "o"), "--quiet"])
    assert result.exit_code == 0 and "contact_sheet.png" in result.output and (tmp_path / "o" / "plate.toml").is_file()
    result = CliRunner().invoke(app, ["init", str(tmp_path / "nowhere")])
    assert isinstance(result.exception, PCIError)


@pytest.mark.slow
def test_real_yeast_fields(test_data: Path, tmp_path: Path) -> None:
    written = init_folder(test_data / "yeast-fields", tmp_path / "out", progress=False)
    spec = recipes.load(written.recipe)
    assert [c.name for c in spec.channels] == ["ch1", "ch2", "ch3"] and spec.segmentation.method == "labels"
    assert list(pd.read_csv(written.files[0])["image"]) == ["r01c01", "r01c01", "r02c01"]


@pytest.mark.slow
def test_real_colour_images(test_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("0-1-a", "4-1-a", "12-1-a", "20-1-a"):
        shutil.copy(test_data / "hpa-dictionary" / "images" / f"{name}.jpg", folder)
    written = init_folder(folder, tmp_path / "out", progress=False)
    spec = recipes.load(written.recipe)
    assert [c.name for c in spec.channels] == ["green", "blue", "red"] and spec.segmentation.channel == "blue"
    left = pd.read_csv(tmp_path / "out" / "left_out.csv")
    assert list(left["file"]) == ["0-1-a.jpg"], "its nucleus channel holds only what shines through"


def test_a_list_of_ready_crops_gets_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    rows = ["r_image,y_image,b_image,g_image,output_prefix"]
    for i in range(4):
        for c in ("nuc", "prot"):
            Image.fromarray(np.random.default_rng(i).integers(0, 255, (16, 16), dtype=np.uint8)).save(tmp_path / "sub" / f"{i}_{c}.png")
        rows.append(f",,{i}_nuc.png,{i}_prot.png,cell{i}_")
    (tmp_path / "sub" / "path_list.csv").write_text("\n".join(rows) + "\n")
    beside = init_folder(tmp_path / "sub" / "path_list.csv")
    assert beside.recipe == tmp_path / "sub" / "sub.toml"
    elsewhere = init_folder(tmp_path / "sub" / "path_list.csv", tmp_path / "out", "mine")
    for written in (beside, elsewhere):
        spec = recipes.load(written.recipe)
        assert spec.source.kind == "subcell" and spec.source_path.resolve() == tmp_path / "sub" / "path_list.csv"
    assert recipes.load(elsewhere.recipe).name == "mine"
    with pytest.raises(StorageError, match="--force"):
        init_folder(tmp_path / "sub" / "path_list.csv")
