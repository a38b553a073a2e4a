"""HPA entries: a small one in the form of release 18, one in the form that is described of release 25, the real one, and bad files.

The later form is put together from public descriptions (a published listing of the values of a version 25
entry, the names in its schema, a study's note on ``subtype``), not from a real file.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from pci_core.data import hpa_events, hpa_xml
from pci_core.data.hpa_tables import read_locations
from pci_core.data.hpa_xml import Entry, Tally, entry_rows, read_entries
from pci_core.errors import DatasetError

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<proteinAtlas schemaVersion="2.5">\n'
TAIL = "\t<copyright>made up</copyright>\n</proteinAtlas>\n"


def image(url: str, kind: str = "sampleImage", more: str = "") -> str:
    channels = '<channel color="blue">nucleus</channel><channel color="red">microtubules</channel><channel color="green">antibody</channel>'
    return f'<image imageType="{kind}"{more}>{channels}<imageUrl>{url}</imageUrl></image>'


def entry_v18(gene: str = "AAA1", ensembl: str = "ENSG00000000001", antibody: str = "HPA000001", synonym: str = "OLD1") -> str:
    host = "http://v18.proteinatlas.org/images/1"
    return f"""<entry version="18" url="http://v18.proteinatlas.org/{ensembl}">
  <name>{gene}</name>
  <synonym>{synonym}</synonym>
  <identifier id="{ensembl}" db="Ensembl" version="88.38"><xref id="P00001" db="Uniprot/SWISSPROT"/></identifier>
  <tissueExpression source="HPA" technology="IHC" assayType="tissue">
    <verification type="reliability">uncertain</verification>
    <image imageType="selected"><tissue>liver</tissue><imageUrl>{host}/tissue_selected.jpg</imageUrl></image>
    <data><tissue>liver</tissue><location>nuclear</location></data>
  </tissueExpression>
  <cellExpression source="HPA" technology="ICC/IF">
    <summary><![CDATA[Localized to the <nuclear speckles>.]]></summary>
    <verification type="reliability">approved</verification>
    <image imageType="selected"><imageUrl>{host}/5_A1_1_selected.jpg</imageUrl></image>
    <data>
      <location status="additional" GOId="GO:0005829">cytosol</location>
      <location status="main" GOId="GO:0016607">nuclear
        speckles</location>
    </data>
  </cellExpression>
  <rnaExpression source="HPA" technology="RNAseq"><data><cellLine>A549</cellLine><level tpm="1">Low</level></data></rnaExpression>
  <antibody id="{antibody}" releaseVersion="12">
    <tissueExpression source="HPA" technology="IHC" assayType="tissue">
      <verification type="validation">enhanced</verification>
      <data><tissue>liver</tissue><patient><sample><assayImage>{image(f"{host}/9_A_4_5.jpg")}</assayImage></sample></patient></data>
    </tissueExpression>
    <cellExpression source="HPA" technology="ICC/IF">
      <subAssay type="mouse">
        <verification type="validation">uncertain</verification>
        <data><cellLine>NIH 3T3</cellLine><assayImage>{image(f"{host}/3_F1_1_blue_red_green.jpg")}</assayImage></data>
      </subAssay>
      <subAssay type="human">
        <verification type="validation">supported</verification>
        <image imageType="selected"><imageUrl>{host}/if_selected.jpg</imageUrl></image>
        <data>
          <cellLine>U-2 OS</cellLine>
          <location GOId="GO:0016607" singleCellVariationIntensity="true">nuclear speckles</location>
          <location GOId="GO:0005829" singleCellVariationSpatial="true">cytosol</location>
          <location>rods &amp; rings</location>
          <assayImage>{image(f"{host}/1_A1_1_blue_red_green.jpg")}{image(f"{host}/1_A1_2_blue_red_green.jpg")}</assayImage>
        </data>
        <data>
          <cellLine>A-431</cellLine>
          <location GOId="GO:0016607">nuclear speckles</location>
          <assayImage>{image(f"{host}/2_A1_1_blue_red_green.jpg")}{image(f"{host}/2_A1_1_blue_red_green.jpg")}{image("")}</assayImage>
        </data>
      </subAssay>
      <subAssay type="sirna"><data><cellLine>U-2 OS</cellLine><sirna sirna="2"/>
        <assayImage>{image(f"{host}/si1_H2_2_blue_red_green.jpg", more=' magnification="10"')}</assayImage></data></subAssay>
      <customAssay><cellLine>U-2 OS</cellLine><cellcycledependent cellcycle="true"/>
        <imageGroup><channels><channel color="blue">DAPI</channel><channel color="yellow">Antibody</channel></channels>
          <image imageType="sampleImage"><imageUrl>{host}/200_1_1_blue_yellow.jpg</imageUrl></image></imageGroup>
        <imageGroup><channels><channel color="green">Geminin</channel></channels>
          <image imageType="sampleImage"><imageUrl>{host}/200_2_1_green.jpg</imageUrl></image></imageGroup></customAssay>
    </cellExpression>
  </antibody>
</entry>
"""


V25 = """<entry version="25" url="https://v25.proteinatlas.org/ENSG00000000025">
  <name>BBB1</name><synonym>B1</synonym><synonym>B2</synonym>
  <identifier id="ENSG00000000025" db="Ensembl" version="109" assembly="GRCh38.p13" gencodeVersion="43">
    <xref id="1" db="NCBI GeneID"/></identifier>
  <predictedLocation>Intracellular</predictedLocation>
  <cellExpression source="HPA" technology="ICC/IF">
    <summary>Mainly localized to the nucleoplasm.</summary>
    <verification type="reliability">supported</verification>
    <data><location status="main" GOId="GO:0005654">nucleoplasm</location><location status="additional">primary cilium</location></data>
  </cellExpression>
  <proteinstructure><structure name="ENSP1"><antibody name="HPA000025" start_position="65"/></structure></proteinstructure>
  <antibody id="HPA000025">
    <cellExpression source="HPA" technology="ICC/IF">
      <subAssay type="human" subtype="human cell lines">
        <verification type="validation">supported</verification>
        <data>
          <cellLine organ="Bone" ontologyTerms="CVCL_0042">U2OS</cellLine>
          <location GOId="GO:0005654" singleCellVariationIntensity="true">nucleoplasm</location>
          <assayImage><image imageType="sampleImage" scale="0.08 um/px">
            <channel color="blue">Nucleus</channel><channel color="red">Microtubules</channel>
            <channel color="green">Target protein</channel><channel color="yellow">ER</channel>
            <imageUrl>https://images.proteinatlas.org/25/1736_F10_19_cr5805e721b05c3_blue_red_green.jpg</imageUrl>
            <imageUrlTif>https://images.proteinatlas.org/25/1736_F10_19.tif</imageUrlTif></image></assayImage>
        </data>
      </subAssay>
      <subAssay type="human" subtype="ciliated cell lines">
        <data><cellLine>RPTEC</cellLine><location>primary cilium</location>
          <assayImage><image><imageUrl>https://images.proteinatlas.org/25/2146_D7_42_blue_red_green.jpg</imageUrl></image></assayImage></data>
      </subAssay>
    </cellExpression>
  </antibody>
</entry>
"""


def write(folder: Path, *entries: str, name: str = "atlas.xml") -> Path:
    path = folder / name
    path.write_text(HEAD + "".join(entries) + TAIL, encoding="utf-8")
    return path


def one(path: Path) -> Entry:
    [entry] = read_entries(path)
    return entry


def test_release_18(tmp_path: Path) -> None:
    tally = Tally()
    [entry] = read_entries(write(tmp_path, entry_v18()), tally=tally)
    assert (entry.protein, entry.ensembl, entry.synonyms, entry.release) == ("AAA1", "ENSG00000000001", ("OLD1",), "18")
    assert entry.reliability == "Approved"
    assert [(x.term, x.go, x.status) for x in entry.locations] == [
        ("Cytosol", "GO:0005829", "additional"),
        ("Nuclear speckles", "GO:0016607", "main"),
    ]
    assert entry.variation_intensity == ("Nuclear speckles",)
    assert entry.variation_spatial == ("Cytosol",)
    assert entry.cell_cycle
    [antibody] = entry.antibodies
    assert (antibody.id, antibody.reliability) == ("HPA000001", "Supported")
    assert [x.term for x in antibody.locations] == ["Nuclear speckles", "Cytosol", "Rods & Rings"]
    assert tally.images == {"human": 3, "mouse": 1, "sirna": 1, "custom": 2}
    assert (tally.images_twice, tally.images_without_address) == (1, 1)
    assert not tally.unknown_locations


def test_image_level(tmp_path: Path) -> None:
    """Each image has the cell line, locations and channels of its own place; no tissue and no selected image comes in."""
    images = one(write(tmp_path, entry_v18())).antibodies[0].images
    assert not [i.url for i in images if "selected" in i.url or "_A_4_5" in i.url]
    by_name = {i.url.rsplit("/", 1)[1].partition("_blue")[0]: i for i in images}
    assert by_name["1_A1_2"].cell_line == "U-2 OS"
    assert [(x.term, x.go, x.intensity, x.spatial) for x in by_name["1_A1_2"].locations] == [
        ("Nuclear speckles", "GO:0016607", True, False),
        ("Cytosol", "GO:0005829", False, True),
        ("Rods & Rings", "", False, False),
    ]
    assert by_name["1_A1_2"].channels == (("blue", "nucleus"), ("red", "microtubules"), ("green", "antibody"))
    assert (by_name["2_A1_1"].cell_line, [x.term for x in by_name["2_A1_1"].locations]) == ("A-431", ["Nuclear speckles"])
    assert by_name["si1_H2_2"].magnification == "10"
    assert by_name["200_1_1"].channels == (("blue", "DAPI"), ("yellow", "Antibody"))
    assert by_name["200_2_1_green.jpg"].channels == (("green", "Geminin"),)


def test_rows(tmp_path: Path) -> None:
    entry = one(write(tmp_path, entry_v18()))
    rows = entry_rows(entry)
    assert rows[0] == {
        "ensembl": "ENSG00000000001",
        "protein": "AAA1",
        "antibody": "HPA000001",
        "cell_line": "U-2 OS",
        "url": "http://v18.proteinatlas.org/images/1/1_A1_1_blue_red_green.jpg",
        "location": "Nuclear speckles;Cytosol;Rods & Rings",
        "go": "GO:0016607;GO:0005829;",
        "reliability": "Supported",
        "variation_intensity": "Nuclear speckles",
        "variation_spatial": "Cytosol",
        "release": "18",
    }
    assert [r["cell_line"] for r in rows] == ["U-2 OS", "U-2 OS", "A-431"]
    assert [r["cell_line"] for r in entry_rows(entry, assays=("mouse",))] == ["NIH 3T3"]


def test_later_form(tmp_path: Path) -> None:
    """The form described of release 25: subtypes of assays apart, four channels, the JPEG's address, unknown terms kept."""
    tally = Tally()
    [entry] = read_entries(write(tmp_path, V25), tally=tally)
    assert (entry.release, entry.reliability, entry.synonyms) == ("25", "Supported", ("B1", "B2"))
    assert [x.term for x in entry.locations] == ["Nucleoplasm", "primary cilium"]
    assert tally.unknown_locations == {"primary cilium": 1}
    assert [a.id for a in entry.antibodies] == ["HPA000025"]  # not the one under <structure>
    assert tally.images == {"human": 1, "human (ciliated cell lines)": 1}
    [row] = entry_rows(entry)
    assert row["url"] == "https://images.proteinatlas.org/25/1736_F10_19_cr5805e721b05c3_blue_red_green.jpg"
    assert (row["cell_line"], row["variation_intensity"], row["variation_spatial"]) == ("U2OS", "Nucleoplasm", "")
    assert [c for c, _ in entry.antibodies[0].images[0].channels] == ["blue", "red", "green", "yellow"]


def test_images_without_sub_assay(tmp_path: Path) -> None:
    """Images that stand directly under an antibody's cellExpression count as human, with its reliability."""
    text = (
        entry_v18().replace('<subAssay type="human">', "").replace('</subAssay>\n      <subAssay type="sirna">', '<subAssay type="sirna">')
    )
    entry = one(write(tmp_path, text))
    assert (entry.antibodies[0].reliability, len(entry_rows(entry))) == ("Supported", 3)


def test_genes_by_symbol_id_and_synonym(tmp_path: Path) -> None:
    path = write(tmp_path, entry_v18(), entry_v18("CCC1", "ENSG00000000003", synonym="AAA1"), entry_v18("DDD1", "ENSG00000000004"), V25)
    tally = Tally()
    found = list(read_entries(path, ["aaa1", "ENSG00000000004.12", "B2", "NOPE"], tally))
    assert [e.protein for e in found] == ["AAA1", "CCC1", "DDD1", "BBB1"]
    assert (tally.entries, tally.given) == (4, 4)
    assert tally.found == {"aaa1": ["ENSG00000000001"], "ENSG00000000004.12": ["ENSG00000000004"]}
    assert tally.by_synonym == {"aaa1": ["ENSG00000000003"], "B2": ["ENSG00000000025"]}
    assert tally.missing == ["NOPE"]
    assert list(read_entries(path, [])) == []


def test_same_gene_twice_is_counted(tmp_path: Path) -> None:
    tally = Tally()
    path = write(tmp_path, entry_v18(), entry_v18("CCC1", "ENSG00000000003"), entry_v18("AGAIN", "ENSG00000000001"))
    assert [e.protein for e in read_entries(path, tally=tally)] == ["AAA1", "CCC1"]
    assert (tally.entries, tally.given, tally.duplicates) == (3, 2, ["ENSG00000000001"])


def test_no_subcellular_part(tmp_path: Path) -> None:
    """A gene without immunofluorescence is no error: it gives no rows and is counted."""
    tally = Tally()
    text = '<entry version="18"><name>EEE1</name><identifier id="ENSG00000000009" db="Ensembl"/><antibody id="CAB000001"/></entry>'
    [entry] = read_entries(write(tmp_path, text), tally=tally)
    assert entry_rows(entry) == [] and entry.locations == () and entry.reliability == ""
    assert tally.without_images == 1


def test_gzip_is_the_same(tmp_path: Path) -> None:
    plain = write(tmp_path, entry_v18(), V25)
    packed = tmp_path / "atlas_without_suffix"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(read_entries(packed)) == list(read_entries(plain))


@pytest.mark.parametrize("packed", [False, True])
def test_cut_off(tmp_path: Path, packed: bool) -> None:
    """Entries before the cut are given, then the error says how many."""
    whole = (HEAD + entry_v18() + entry_v18("CCC1", "ENSG00000000003") + TAIL).encode()
    path = tmp_path / "cut.xml"
    cut = gzip.compress(whole, mtime=0)[:-30] if packed else whole[: whole.index(b"CCC1") + 400]
    path.write_bytes(cut)
    got = []
    with pytest.raises(DatasetError, match=r"cut off.*which were read: 1" if not packed else "gzip file that is cut off"):
        for entry in read_entries(path):
            got.append(entry.protein)
    assert got[:1] == ["AAA1"]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD.replace("\n<", f"\n{BOMB}<", 1) + entry_v18("&b;") + TAIL, "DTD or entities"),
        (HEAD.replace("\n<", '\n<!DOCTYPE x SYSTEM "file:///etc/passwd"><', 1) + TAIL, "DTD or entities"),
        ("<!DOCTYPE html><html><body>404</body></html>", "HTML page"),
        ("<html><body>404</body></html>", r"root element is <html>, expected <proteinAtlas>"),
        ("Not found", r"is not XML \(line 1"),
        ("", "is empty"),
        (HEAD + entry_v18().replace("</name>", "</nam>") + TAIL, r"damaged in line 4 \(mismatched tag\)"),
        (HEAD + entry_v18() + entry_v18(ensembl="") + TAIL, r"entry that begins in line 59 has no Ensembl id.*which were read: 1"),
        (HEAD + entry_v18(ensembl="../../etc") + TAIL, r"no Ensembl id \(found '../../etc'\)"),
        (HEAD + entry_v18(gene="") + TAIL, "has no name"),
        (HEAD + entry_v18(antibody="") + TAIL, "antibody without a usable id"),
        (HEAD + entry_v18(antibody="../x") + TAIL, r"antibody without a usable id \(found '../x'\)"),
        (HEAD + entry_v18(gene="x" * 10_001) + TAIL, "longer than 10000 characters"),
        (
            HEAD + entry_v18(synonym='</synonym><identifier id="' + "x" * 10_001 + '"/><synonym>') + TAIL,
            "attribute of <identifier> is longer",
        ),
        (HEAD + "<entry>" + "".join(f"<n{i}/>" for i in range(2001)), "more than 2000 names"),
        (HEAD + "<entry>" + "".join(f'<x n{i}="1"/>' for i in range(2001)), "more than 2000 names"),
        (HEAD + "<entry>" + "<deep>" * 300, "nested more than 200 deep"),
        (HEAD + "<entry><name>&undefined;</name></entry>" + TAIL, "damaged in line 3|DTD or entities"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.xml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=message) as caught:
        list(read_entries(path))
    assert str(path) in str(caught.value)


def test_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not there"):
        list(read_entries(tmp_path / "none.xml"))


def test_damaged_gzip(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(write(tmp_path, *(entry_v18(f"G{i}", f"ENSG{i:011d}") for i in range(200))).read_bytes()))
    packed[len(packed) // 2] ^= 0xFF
    (tmp_path / "bad.xml.gz").write_bytes(packed)
    with pytest.raises(DatasetError, match="damaged"):
        list(read_entries(tmp_path / "bad.xml.gz"))


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One endless comment, and an entry of endless images, stop the reading instead of filling memory."""
    monkeypatch.setattr(hpa_xml, "_LONGEST_TOKEN", 1 << 20)
    monkeypatch.setattr(hpa_events, "_MOST_PARTS", 1000)
    (tmp_path / "comment.xml").write_text(HEAD + "<!--" + "x" * (3 << 20) + "-->" + entry_v18() + TAIL)
    with pytest.raises(DatasetError, match="a single tag, text or comment of more than 1 MB"):
        list(read_entries(tmp_path / "comment.xml"))
    many = entry_v18().replace("<synonym>OLD1</synonym>", "<synonym>s</synonym>" * 1001)
    with pytest.raises(DatasetError, match="more than 1000 values"):
        list(read_entries(write(tmp_path, many)))


def test_memory_stays_flat(tmp_path: Path) -> None:
    """A gzip file of 0.2 MB with 27 MB of tissue text in it is read within 12 MB above a small one."""
    junk = "<tissueExpression>" + "<data><tissue>liver</tissue></data>" * 50 + "</tissueExpression>\n"
    with gzip.open(tmp_path / "big.xml.gz", "wt") as handle:
        handle.write(HEAD)
        for i in range(30):
            handle.write(entry_v18(f"G{i}", f"ENSG{i:011d}").replace("</entry>", junk * 500 + "</entry>"))
        handle.write(TAIL)
    write(tmp_path, entry_v18())
    code = (
        "import re, sys\nfrom pathlib import Path\nfrom pci_core.data.hpa_xml import read_entries\n"
        "n = sum(1 for _ in read_entries(sys.argv[1]))\n"
        "print(n, re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    if not Path("/proc/self/status").is_file():
        pytest.skip("peak memory is read from Linux's /proc")

    def peak(name: str) -> tuple[int, int]:
        n, kb = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, text=True, check=True
        ).stdout.split()
        return int(n), int(kb)

    (n_small, small), (n_big, big) = peak("atlas.xml"), peak("big.xml.gz")
    assert (n_small, n_big) == (1, 30)
    assert big - small < 12 * 1024  # blocks and the parser's own buffers; the text itself would be 27 MB and its tree many times that


def test_real_entry(test_data: Path) -> None:
    """CCNB1 in release 18: counted by hand in the file, and held against HPA's own table of the same release."""
    tally = Tally()
    [entry] = read_entries(test_data / "mirror/v18.proteinatlas.org/ENSG00000134057.xml", ["CCNB1"], tally)
    assert (entry.ensembl, entry.release, entry.synonyms, entry.cell_cycle) == ("ENSG00000134057", "18", ("CCNB",), True)
    assert [a.id for a in entry.antibodies] == ["CAB000115", "CAB003804", "HPA030741", "HPA061448"]
    assert [a.reliability for a in entry.antibodies] == ["Supported", "", "Enhanced", "Enhanced"]  # the second is for tissue only
    assert tally.images == {"human": 18, "sirna": 6, "gfp": 4, "mouse": 2, "custom": 2}
    assert (tally.images_twice, tally.images_without_address, tally.unknown_locations) == (0, 0, {})
    rows = entry_rows(entry)
    assert len({r["url"] for r in rows}) == 18 and all(r["url"].endswith("_blue_red_green.jpg") for r in rows)
    assert {r["cell_line"] for r in rows} == {"A-431", "U-2 OS", "U-251 MG", "A549", "MCF7"}
    table = read_locations(test_data / "hpa-annotations/subcellular_location.v18.tsv").set_index("ensembl").loc[entry.ensembl]
    assert entry.reliability == table["reliability"] == "Enhanced"  # the table says "Validated"
    assert ";".join(x.term for x in entry.locations) == table["location"] == "Cytosol"
    assert ";".join(x.go for x in entry.locations) == table["go"] == "GO:0005829"
    assert ";".join(entry.variation_intensity) == table["variation_intensity"] == "Cytosol"
    assert ";".join(entry.variation_spatial) == table["variation_spatial"] == ""
