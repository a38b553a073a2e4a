"""The atlas client against a local server: which images are wanted, what that costs, and the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from misbehaving import EMPTY, FIELDS_ONE, ONE, THREE, TWO, Atlas, document, entry, planned, session, small_atlas

from pci_core.cli_hpa import hpa as command
from pci_core.cli_hpa import wanted_genes
from pci_core.data import hpa_cost, hpa_entries
from pci_core.data.hpa import Selection, cost, describe, fetch, plan
from pci_core.data.hpa_addresses import CREDIT
from pci_core.errors import DatasetError, DownloadError, StorageError, UnknownNameError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Atlas]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("PCI_MIRROR", raising=False)
    with small_atlas() as running:
        yield running


# --- plan


def test_plan_by_id_and_by_name(server: Atlas, tmp_path: Path) -> None:
    by_id = planned(server, tmp_path / "a", [ONE])
    assert [r["field"] for r in by_id.rows] == FIELDS_ONE
    assert (by_id.count("image"), by_id.count("antibody"), by_id.count("cell_line")) == (3, 2, 2)
    assert by_id.rows[0]["image"] == "ABC1_HPA000011_U-2 OS" and by_id.rows[0]["file"] == "images/11/1_A1_1_blue_red_green.jpg"
    assert "/download/subcellular_location.tsv.zip" not in server.gets()
    by_name = planned(server, tmp_path / "b", ["abc1", "ABC1 ", f"{ONE}.7"])
    assert by_name.rows == by_id.rows
    assert server.gets()["/download/subcellular_location.tsv.zip"] == 1


def test_unknown_genes_are_all_listed_before_anything_is_fetched(server: Atlas, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"2 of 3 genes.*ABC2 \(near: .*ABC1.*QQQ.*--skip-unknown"):
        planned(server, tmp_path, ["ABC1", "ABC2", "QQQ"])
    assert set(server.gets()) == {"/download/subcellular_location.tsv.zip"}
    found = planned(server, tmp_path, ["ABC1", "ABC2", "QQQ"], skip_unknown=True)
    assert found.unknown == ["ABC2", "QQQ"] and len(found.rows) == 6


def test_an_unknown_id_is_found_at_its_entry(server: Atlas, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="1 of 2 genes.*ENSG00000000099"):
        planned(server, tmp_path, [ONE, "ENSG00000000099"])
    found = planned(server, tmp_path, [ONE, "ENSG00000000099", EMPTY], skip_unknown=True)
    assert found.unknown == ["ENSG00000000099"] and found.empty == [EMPTY]
    assert not server.image_gets()
    with pytest.raises(UnknownNameError, match="no gene was named"):
        planned(server, tmp_path, [" "])


@pytest.mark.parametrize(
    ("selection", "fields", "skipped"),
    [
        (Selection(cell_lines=("u2os",)), [FIELDS_ONE[0], FIELDS_ONE[1], *FIELDS_ONE[4:], "21_4_C3_1", "21_4_C3_2"], {"cell line": 2}),
        (Selection(antibodies=("cab000012",)), FIELDS_ONE[4:], {"antibody": 6}),
        (Selection(images_per_gene=1), [*FIELDS_ONE[:2], "21_4_C3_1", "21_4_C3_2"], {"images per gene": 4}),
        (Selection(fields_per_image=1), [*FIELDS_ONE[::2], "21_4_C3_1"], {"fields per image": 4}),
        (Selection(reliability=("Supported",)), [*FIELDS_ONE, "21_4_C3_1", "21_4_C3_2"], {}),
    ],
)
def test_selection(selection: Selection, fields: list[str], skipped: dict[str, int], server: Atlas, tmp_path: Path) -> None:
    found = planned(server, tmp_path, selection=selection)
    assert [r["field"] for r in found.rows] == fields and dict(found.skipped) == skipped


def test_nothing_left_says_what_there_is(server: Atlas, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"8 not asked for \(cell line\)\. Values of cell line there: A-431, U-2 OS, U2OS"):
        planned(server, tmp_path, selection=Selection(cell_lines=("HeLa",)))


def test_images_that_cannot_be_used_are_left_out_with_the_reason(server: Atlas, tmp_path: Path) -> None:
    base = f"{server.url}/images"
    good = f"{base}/11/1_A1_1_blue_red_green.jpg"
    urls = [good, f"{base}/11/1_A1_2_red_green.jpg", f"{base}/11/1_A1_3_blue_green.jpg", f"{base}/11/if_selected.jpg",
            f"{base}/11/1_A1_1_cr12_blue_red_green.jpg",
            "http://example.org/images/11/1_A1_4_blue_red_green.jpg", f"{base}/11/1_A1_5_blue_red_green_yellow.jpg"]  # fmt: skip
    server.files[f"/{ONE}.xml"] = document(entry(ONE, "ABC1", {("HPA000011", "U-2 OS"): urls}))
    server.files[f"/{TWO}.xml"] = document(entry(TWO, "ABD2", {("HPA000011", "U-2 OS"): [good]}))
    found = planned(server, tmp_path)
    assert [r["field"] for r in found.rows] == ["11_1_A1_1", "11_1_A1_5"]
    assert [r["reason"] for r in found.left_out] == [
        "no nucleus channel", "no microtubules channel", "an address of unknown form", "the address is not one of the atlas",
    ]  # fmt: skip
    assert dict(found.skipped) == {"named twice": 1, "already taken for another gene of the same antibody": 1}
    lines = "\n".join(describe(found, cost(found.rows, found.release, tmp_path, session(server), measure=False)))
    assert "left out: 1 fields, no nucleus channel" in lines and CREDIT in lines and "CC BY-SA 3.0" in lines


def test_a_damaged_entry_is_fetched_again_and_not_kept(server: Atlas, tmp_path: Path) -> None:
    whole = server.files[f"/{ONE}.xml"]
    server.plots[f"/{ONE}.xml"] = ["half", "html", "cut"]
    assert len(planned(server, tmp_path, [ONE]).rows) == 6
    server.files[f"/{TWO}.xml"] = whole  # the entry of another gene
    with pytest.raises(DownloadError, match=f"expected the entry of {TWO}, found {ONE}"):
        planned(server, tmp_path, [TWO])
    assert not (tmp_path / f"entries/18/{TWO}.xml").exists()


def test_entries_and_table_are_fetched_once(server: Atlas, tmp_path: Path) -> None:
    planned(server, tmp_path, ["ABC1", "ABD2"])
    server.seen.clear()
    planned(server, tmp_path, ["ABC1", "ABD2"])
    assert server.seen == []


def test_the_whole_atlas(server: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/download/proteinatlas.xml.gz"
    server.plots[path] = ["cut"]
    found = plan(None, tmp_path / "all", release=server.release(), session=session(server))
    assert [r["protein"] for r in found.rows] == ["ABC1"] * 6 + ["ABD2"] * 2 + ["XYZ9"] and server.gets()[path] == 2
    assert not [p for p in server.gets() if p.endswith(".xml")]
    server.seen.clear()
    assert plan(None, tmp_path / "all", release=server.release(), session=session(server)).rows == found.rows and not server.seen
    monkeypatch.setattr(hpa_entries, "WHOLE_ATLAS_FROM", 1)  # many genes: from the whole file, too
    some = planned(server, tmp_path / "many", ["ABD2", THREE, "ENSG00000000077"], skip_unknown=True)
    assert [r["protein"] for r in some.rows] == ["ABD2"] * 2 + ["XYZ9"] and some.unknown == ["ENSG00000000077"]


def test_a_whole_atlas_that_is_cut_off_leaves_no_table(server: Atlas, tmp_path: Path) -> None:
    path = "/download/proteinatlas.xml.gz"
    server.files[path] = server.files[path][:-50]
    with pytest.raises(DatasetError, match=r"proteinatlas\.xml\.gz"):
        plan(None, tmp_path, release=server.release(), session=session(server))
    assert not (tmp_path / "entries/18/all_images.csv").exists()


# --- cost


def test_cost_is_measured_where_the_server_tells(server: Atlas, tmp_path: Path) -> None:
    found = planned(server, tmp_path)
    each = cost(found.rows, found.release, tmp_path, session(server, interval=900.0))
    sizes = [len(server.files[f"/images/{r['file'].removeprefix('images/')}"]) for r in found.rows]
    assert each.measured == 5 and min(sizes) <= each.bytes_each <= max(sizes)
    assert each.hours == 8 * 900 / 3600 and each.total == 8 * each.bytes_each
    server.lengths = False
    assert cost(found.rows, found.release, tmp_path, session(server)).bytes_each == hpa_cost.BYTES_AN_IMAGE
    assert not server.image_gets() or max(server.image_gets().values()) <= 1


def test_a_full_disk_is_refused_before_the_first_image(server: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = planned(server, tmp_path)
    monkeypatch.setattr(hpa_cost, "_free", lambda folder: 1_000_000)
    with pytest.raises(StorageError, match=r"8 images need about 0\.0 GB, but .* has 0\.0 GB free"):
        fetch(found, session=session(server))
    assert not server.image_gets()


# --- command line


def call(server: Atlas, monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    monkeypatch.setattr("pci_core.data.hpa_addresses.release", server.release)
    command(**{"interval": 0.0, "newer": False, "quiet": True, "release": "18", **options})  # type: ignore[arg-type]


def test_command(server: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(server, monkeypatch, genes="ABC1,ABD2", out=tmp_path, dry_run=True)
    said = capsys.readouterr().out
    assert "2 genes, 3 antibodies, 4 images (protein x cell line x antibody), 8 fields of view" in said
    assert "measured on 5" in said and "free on the disk" in said and "CC BY-SA" in said and CREDIT in said
    assert not server.image_gets()
    call(server, monkeypatch, genes="ABC1,ABD2", out=tmp_path, images_per_gene=1)
    said = capsys.readouterr().out
    assert f"{server.url}: 2 connections, at least 0 s between two requests" in said
    assert "4 fields of view in" in said and f"pci cells hpa --data {tmp_path}" in said
    assert "not asked for: 4 fields (images per gene)" in said


def test_dry_run_of_all_fetches_no_atlas(
    server: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(server, monkeypatch, genes="all", out=tmp_path, dry_run=True)
    said = capsys.readouterr().out
    assert "12,068 proteins" in said and "at least 11.5 h" not in said.split("licence")[1]
    assert {m for m, _, _ in server.seen} == {"HEAD"} and not list(tmp_path.iterdir())
    call(server, monkeypatch, genes="all", out=tmp_path)
    assert "9 fields of view in" in capsys.readouterr().out
    call(server, monkeypatch, genes="all", out=tmp_path, dry_run=True)
    assert "3 genes" in capsys.readouterr().out  # now it is known


def test_wanted_genes(tmp_path: Path) -> None:
    assert wanted_genes("A, B,", None) == ["A", "B"] and wanted_genes("ALL", None) is None
    path = tmp_path / "genes.txt"
    path.write_text("\ufeffCCNB1  # cyclin\n\n# none\nMKI67\tENSG00000148773\nB\n", encoding="utf-8")
    assert wanted_genes("", path) == ["CCNB1", "MKI67", "ENSG00000148773", "B"]
    path.write_bytes(b"# nothing\n")
    for genes, file in (("", None), ("A", path), ("", path), ("", tmp_path / "none.txt")):
        with pytest.raises(typer.BadParameter):
            wanted_genes(genes, file)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(typer.BadParameter, match="UTF-8"):
        wanted_genes("", path)
