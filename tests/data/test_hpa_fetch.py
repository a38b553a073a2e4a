"""The atlas client against a local server that misbehaves: what is kept is whole, nothing right is fetched twice."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from misbehaving import FIELDS_ONE, ONE, TWO, Atlas, all_whole, document, entry, jpeg, planned, run, session, small_atlas

from pci_core import recipe as recipes
from pci_core.data import hpa
from pci_core.data.hpa import check_jpeg, fetch, missing_rows, plan
from pci_core.data.hpa_addresses import CREDIT
from pci_core.data.manifest import Manifest
from pci_core.data.table import read_field_table
from pci_core.errors import DownloadError, ImageError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Atlas]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("PCI_MIRROR", raising=False)
    with small_atlas() as running:
        yield running


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False).set_index("file")


# --- fetch


def test_all_is_there_and_nothing_is_fetched_twice(server: Atlas, tmp_path: Path) -> None:
    first = run(server, tmp_path)
    assert (first.fields, first.fetched, first.had, first.failed, first.not_there) == (8, 8, 0, 0, 0)
    all_whole(server, tmp_path)
    assert set(server.image_gets().values()) == {1}
    server.seen.clear()
    assert run(server, tmp_path) == hpa.Outcome(8, 0, 8, 0, 0, 0)
    assert server.seen == []
    found = table(tmp_path)
    assert (found["status"] == "ok").all() and (found["sha256"].str.len() == 64).all() and len(found) == 8


def test_the_field_table_is_what_recipes_read(server: Atlas, tmp_path: Path) -> None:
    run(server, tmp_path)
    recipe = recipes.load("hpa")
    fields, root = read_field_table(tmp_path / "fields.csv", recipe)
    assert fields["field"].tolist() == [*FIELDS_ONE, "21_4_C3_1", "21_4_C3_2"] and root == tmp_path
    row = fields.iloc[0]
    assert row["image"] == "ABC1_HPA000011_U-2 OS" and row["path"] == "images/11/1_A1_1_blue_red_green.jpg"
    assert (row["protein"], row["ensembl"], row["antibody"], row["cell_line"]) == ("ABC1", ONE, "HPA000011", "U-2 OS")
    assert "ytosol" in row["location"] and "GO:0005829" in row["go"] and "ytosol" in row["variation_intensity"]
    assert (row["reliability"].lower(), row["variation_spatial"], row["plate"], row["well"]) == ("supported", "", "1", "A1")
    assert (tmp_path / "CREDIT.txt").read_text() == f"{CREDIT}\n"
    assert "CC BY-SA 3.0" in (tmp_path / "LICENCE.txt").read_text() and "/about/licence" in (tmp_path / "LICENCE.txt").read_text()


@pytest.mark.parametrize("plot", ["429:2", "503", "cut", "half", "html", "reset", "empty", "slow"])
def test_every_image_arrives_whole_after_trouble(plot: str, server: Atlas, tmp_path: Path) -> None:
    paths = [p for p in server.files if p.endswith(".jpg")]
    server.plots = {p: [plot] for p in paths[:3]}
    outcome = run(server, tmp_path, [ONE])
    assert (outcome.fields, outcome.failed) == (6, 0)
    all_whole(server, tmp_path)
    assert sorted(server.image_gets().values()) == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("plot", ["503", "cut", "half", "html"])
def test_what_fails_is_noted_and_the_others_go_on(plot: str, server: Atlas, tmp_path: Path) -> None:
    bad = "/images/11/1_A1_2_blue_red_green.jpg"
    server.plots[bad] = [plot] * 100
    server.ranges = False
    outcome = run(server, tmp_path, [ONE])
    assert (outcome.fields, outcome.failed, outcome.not_there) == (5, 1, 0)
    row = table(tmp_path).loc[bad[1:]]
    assert row["status"] == "failed" and "given up after 4 tries" in row["reason"] and row["sha256"] == ""
    assert "11_1_A1_2" not in (tmp_path / "fields.csv").read_text() and not (tmp_path / bad[1:]).exists()
    all_whole(server, tmp_path)
    server.plots.clear()
    server.seen.clear()
    assert run(server, tmp_path, [ONE]).fetched == 1  # the failed one is asked for again, the others are not
    assert server.image_gets() == {bad: 1}


def test_missing_images_are_looked_for_under_other_addresses(server: Atlas, tmp_path: Path) -> None:
    moved, gone = "/images/11/1_A1_2_blue_red_green.jpg", "/images/11/2_A1_1_blue_red_green.jpg"
    server.files[moved.removeprefix("/images")] = server.files[moved]
    kept = dict(server.files)
    del server.files[moved], server.files[gone]
    outcome = run(server, tmp_path, [ONE])
    assert (outcome.fields, outcome.not_there) == (5, 1)
    assert (tmp_path / moved[1:]).read_bytes() == kept[moved]
    found = table(tmp_path)
    assert found.loc[moved[1:], "url"] == f"{server.url}/11/1_A1_2_blue_red_green.jpg"
    assert found.loc[gone[1:], "status"] == "not there"
    assert found.loc[gone[1:], "tried"].split() == [server.url + gone, f"{server.url}/11/2_A1_1_blue_red_green.jpg"]
    server.files |= kept
    server.seen.clear()
    assert run(server, tmp_path, [ONE]).not_there == 1 and server.seen == []  # it said no: it is not asked each time
    assert run(server, tmp_path, [ONE], again=True).fields == 6


def test_the_newest_entry_tells_where_an_image_is_now(server: Atlas, tmp_path: Path) -> None:
    old, new = "/images/11/1_A1_2_blue_red_green.jpg", "/11/1_A1_2_cr5805e721b05c3_blue_red_green.jpg"
    server.files[new] = server.files.pop(old)
    newest = {("HPA000011", "U-2 OS"): [server.url + new]}
    server.files[f"/new/{ONE}.xml"] = document(entry(ONE, "ABC1", newest, "25"))
    del server.files["/images/12/3_B2_1_blue_red_green.jpg"]
    release = server.release("newest")
    newer = type(release)("newest", f"{server.url}/new", release.images)
    outcome = run(server, tmp_path, [ONE], newer=newer)
    assert (outcome.fields, outcome.not_there) == (5, 1)
    assert (tmp_path / old[1:]).is_file()  # under its name without infix
    assert server.gets()[f"/new/{ONE}.xml"] == 1  # for both


def test_a_server_that_refuses_is_left_alone(server: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hpa, "FAILED_IN_A_ROW", 3)
    prepared = planned(server, tmp_path)
    server.always = "403"
    with pytest.raises(DownloadError, match=r"3 images in a row .*403.*run the same command again"):
        fetch(prepared, session=session(server, connections=1))
    # one may wait to be looked at and one be under way when the third is looked at
    assert len(server.image_gets()) <= 5 and not (tmp_path / "fields.csv").exists()
    assert (table(tmp_path)["status"] == "failed").sum() == 3
    server.always = ""
    assert run(server, tmp_path).fields == 8


def test_none_could_be_had(server: Atlas, tmp_path: Path) -> None:
    for path in [p for p in server.files if p.endswith(".jpg")]:
        del server.files[path]
    with pytest.raises(DownloadError, match="none of the 8 images"):
        run(server, tmp_path)
    assert not (tmp_path / "fields.csv").exists() and len(table(tmp_path)) == 8


# --- cuts, crashes, damage


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_is_gone_on_with(
    interruption: type[BaseException], server: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, calls = Manifest.add, []

    def stop_at_third(self: Manifest, *args: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise interruption
        return add(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Manifest, "add", stop_at_third)
    with pytest.raises(interruption):
        run(server, tmp_path)
    assert (table(tmp_path)["status"] == "ok").sum() == 2
    all_whole(server, tmp_path)
    there = [f"/{p.relative_to(tmp_path).as_posix()}" for p in (tmp_path / "images").rglob("*.jpg")]
    assert len(there) >= 3  # with whole files that the journal does not know yet
    monkeypatch.setattr(Manifest, "add", add)
    outcome = run(server, tmp_path)
    assert (outcome.fields, outcome.fetched) == (8, 8 - len(there))
    assert {server.image_gets()[path] for path in there} == {1}
    assert not list(tmp_path.rglob("*.part*"))


def test_the_journal_survives_a_torn_line(server: Atlas, tmp_path: Path) -> None:
    run(server, tmp_path)
    journal = tmp_path / "manifest.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    for torn in (b"".join(lines)[:-1], b"".join(lines)[:-40], b"".join(lines[:-1]) + b"\x00\xff{", b"[1]\n" + b"".join(lines[:4])):
        journal.write_bytes(torn)
        server.seen.clear()
        assert run(server, tmp_path).fields == 8 and not server.image_gets()
        assert all(json.loads(line)["file"] for line in journal.read_bytes().splitlines())
    journal.unlink()
    assert run(server, tmp_path).had == 8 and not server.image_gets()  # whole images are recognised without it


def test_damaged_images_are_fetched_anew(server: Atlas, tmp_path: Path) -> None:
    run(server, tmp_path, [ONE])
    files = sorted((tmp_path / "images").rglob("*.jpg"))
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-100])
    files[2].write_bytes(files[2].read_bytes()[:-1] + b"x")  # same length, other bytes
    files[3].touch()  # same bytes
    server.seen.clear()
    assert run(server, tmp_path, [ONE]).fetched == 3
    assert len(server.image_gets()) == 3
    all_whole(server, tmp_path)


def test_a_file_of_unknown_origin_is_not_trusted(server: Atlas, tmp_path: Path) -> None:
    target = tmp_path / "images/11/1_A1_1_blue_red_green.jpg"
    target.parent.mkdir(parents=True)
    target.write_bytes(jpeg(5)[:-200])
    run(server, tmp_path, [ONE])
    all_whole(server, tmp_path)


def test_left_out_and_old_files_stand_in_the_manifest(server: Atlas, tmp_path: Path) -> None:
    run(server, tmp_path, [TWO])
    urls = [f"{server.url}/images/11/1_A1_1_blue_red_green.jpg", f"{server.url}/images/11/1_A1_2_red_green.jpg"]
    server.files[f"/{ONE}.xml"] = document(entry(ONE, "ABC1", {("HPA000011", "U-2 OS"): urls}))
    assert run(server, tmp_path, [ONE]).fields == 1
    with open(tmp_path / "manifest.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [r["status"] for r in rows] == ["ok", "ok", "ok", "left out"] and rows[-1]["reason"] == "no nucleus channel"
    assert len(pd.read_csv(tmp_path / "fields.csv")) == 1  # what this request asked for


# --- JPEGs


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no JPEG"),
        (b"<html>", "web page"),
        (b"\x89PNG\r\n", "no JPEG"),
        (jpeg(1)[:1000], "cut off"),
        (jpeg(1)[:-2], "cut off"),
        (jpeg(1)[:300] + b"\xff\xd9", "damaged"),
        (jpeg(1, mode="L"), "mode L"),
        (b"\xff\xd8\xff\xd9", "damaged"),
    ],
)
def test_check_jpeg(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=said):
        check_jpeg(path)
    path.write_bytes(jpeg(1))
    check_jpeg(path)


def test_check_jpeg_refuses_huge_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(jpeg(1))
    monkeypatch.setattr(hpa, "_LARGEST_SIDE", 40)
    with pytest.raises(ImageError, match="48x48 px"):
        check_jpeg(tmp_path / "x")


# --- the real entry


def test_the_real_entry(server: Atlas, tmp_path: Path, test_data: Path) -> None:
    real = (test_data / "mirror/v18.proteinatlas.org/ENSG00000134057.xml").read_text(encoding="utf-8")
    server.files["/ENSG00000134057.xml"] = real.replace("http://v18.proteinatlas.org/images/", f"{server.url}/images/").encode()
    for path in set(re.findall(r"<imageUrl>http://v18\.proteinatlas\.org(/images/[^<]*_blue_red_green\.jpg)<", real)):
        server.files[path] = jpeg(hash(path) % 1000)
    found = planned(server, tmp_path, ["ENSG00000134057"])
    # counted in the file: 3 antibodies in 3 human cell lines each, 2 fields of view of each; siRNA, GFP and mouse are others
    assert (found.count("antibody"), found.count("image"), len(found.rows)) == (3, 9, 18)
    server.plots = {p: ["cut", "503"] for p in list(server.files)[-10:]}
    outcome = fetch(found, session=session(server))
    assert (outcome.fields, outcome.failed) == (18, 0)
    all_whole(server, tmp_path)
    fields = pd.read_csv(tmp_path / "fields.csv")
    assert set(fields["protein"]) == {"CCNB1"} and set(fields["release"].astype(str)) == {"18"}
    assert len(missing_rows(found)) == 0


def test_the_mirror_serves_entry_and_images(tmp_path: Path, test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = test_data / "mirror/v18.proteinatlas.org/ENSG00000134057.xml"
    mirror = tmp_path / "mirror/v18.proteinatlas.org"
    (mirror / "images/115").mkdir(parents=True)
    (mirror / source.name).write_bytes(source.read_bytes())
    for name in ("672_E2_1", "672_E2_2"):
        (mirror / f"images/115/{name}_blue_red_green.jpg").write_bytes(jpeg(len(name)))
    monkeypatch.setenv("PCI_MIRROR", str(tmp_path / "mirror"))
    said: list[str] = []
    outcome = fetch(plan(["ENSG00000134057"], tmp_path / "out"), say=said.append)
    assert (outcome.fields, outcome.failed, outcome.not_there) == (2, 16, 0)  # gaps of a mirror say nothing about the server
    assert "PCI_MIRROR" in said[0]
