"""HPA's tables of locations in their two forms, location names between releases, tables of images; made up and real."""

from __future__ import annotations

import gzip
import logging
import os
import zipfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from pci_core.data import hpa_locations, hpa_tables
from pci_core.data.hpa_locations import canonical, current, go_id, same_location, unknown_locations
from pci_core.data.hpa_tables import join_locations, read_image_table, read_locations
from pci_core.errors import DatasetError, DownloadError

OLD = """Gene\tGene name\tReliability\tValidated\tSupported\tApproved\tUncertain\tSingle-cell variation intensity\tSingle-cell variation spatial\tCell cycle dependency\tGO id
ENSG00000000001\tAAA1\tValidated\tNucleus\tNuclear speckles;Rods & Rings\t\t\tNucleus\t\t\tNuclear speckles (GO:0016607);Nucleus (GO:0005634);Rods & Rings ()
ENSG00000000002\tNA\tUncertain\t\t\t\tCytosol\t\tCytosol\tN/A (custom data)\tCytosol (GO:0005829)
"""  # noqa: E501 a table's lines are as long as they are
NEW = """Gene\tGene name\tReliability\tMain location\tAdditional location\tExtracellular location\tEnhanced\tSupported\tApproved\tUncertain\tSingle-cell variation intensity\tSingle-cell variation spatial\tCell cycle dependency\tGO id
ENSG00000000001\tAAA1\tEnhanced\tNucleoplasm\tNuclear speckles\tPredicted to be secreted\tNucleoplasm\t\tNuclear speckles\t\tNucleoplasm\t\t\tNuclear speckles (GO:0016607);Nucleoplasm (GO:0005654)
ENSG00000000003\tCCC1\tApproved\tPrimary cilium;nucleoli Rim\t\t\t\t\tPrimary cilium;Nucleoli rim\t\t\t\t\tNucleoli rim (GO:0005730);Primary cilium (GO:0005929)
"""  # noqa: E501


def write(folder: Path, text: str, name: str = "subcellular_location.tsv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_old_columns(tmp_path: Path) -> None:
    table = read_locations(write(tmp_path, OLD))
    first, second = table.to_dict("records")
    assert first == {
        "ensembl": "ENSG00000000001",
        "protein": "AAA1",
        "reliability": "Enhanced",
        "main": "",
        "additional": "",
        "extracellular": "",
        "enhanced": "Nucleus",
        "supported": "Nuclear speckles;Rods & Rings",
        "approved": "",
        "uncertain": "",
        "variation_intensity": "Nucleus",
        "variation_spatial": "",
        "cell_cycle": "",
        "location": "Nucleus;Nuclear speckles;Rods & Rings",
        "go": "GO:0005634;GO:0016607;",  # in the order of the terms, not of the file's GO column
    }
    assert (second["protein"], second["location"], second["variation_spatial"]) == ("NA", "Cytosol", "Cytosol")  # NA is text


def test_new_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        first, second = read_locations(write(tmp_path, NEW)).to_dict("records")
    assert (first["main"], first["additional"], first["extracellular"]) == ("Nucleoplasm", "Nuclear speckles", "Predicted to be secreted")
    assert (first["location"], first["go"]) == ("Nucleoplasm;Nuclear speckles", "GO:0005654;GO:0016607")
    assert (second["location"], second["go"]) == ("Primary cilium;Nucleoli rim", "GO:0005929;GO:0005730")
    assert "1 location names are not known" in caplog.text and "Primary cilium" in caplog.text


def test_packed_the_same(tmp_path: Path) -> None:
    plain = read_locations(write(tmp_path, NEW))
    (tmp_path / "t.tsv.gz").write_bytes(gzip.compress(NEW.encode()))
    with zipfile.ZipFile(tmp_path / "t.tsv.zip", "w") as archive:
        archive.writestr("subcellular_location.tsv", NEW)
    for name in ("t.tsv.gz", "t.tsv.zip"):
        pd.testing.assert_frame_equal(read_locations(tmp_path / name), plain)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Gene\tEnsembl\tReliability (IF)\nA\tENSG00000000001\tx\n",
            "no column 'gene name', 'reliability', 'main location'; found Gene, Ensembl",
        ),
        ("Gene\tGene name\tReliability\nENSG00000000001\tA\tApproved\n", "no column 'main location'"),
        (NEW.replace("ENSG00000000003", "CCC1"), r"1 rows without an Ensembl gene id in column 'Gene', e.g. 'CCC1' in line 3"),
        (NEW.replace("ENSG00000000003", "ENSG00000000001"), "1 genes occur more than once, e.g. ENSG00000000001 in line 3"),
        (NEW[:-90], "1 rows do not have the 14 columns of the header, the first in line 3 with 5"),
        (NEW.replace("CCC1\t", "CCC1\t\t\t"), "the first in line 3 with 16"),
        (NEW.replace("CCC1", '"CCC1'), "cannot be read as a table"),
        (NEW.replace("Enhanced\t", "Reliability\t", 1), "has a column twice"),
        (NEW.splitlines()[0] + "\n\n", "no rows below its header"),
        ("", "no rows below its header"),
        ("<html>\n<body>404</body></html>\n", "no column"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DatasetError, match=message) as caught:
        read_locations(path)
    assert str(path) in str(caught.value)


def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetError, match="is not there"):
        read_locations(tmp_path / "none.tsv")
    (tmp_path / "bytes.tsv").write_bytes(b"Gene\t\xff\xfe\n")
    with pytest.raises(DatasetError, match="no UTF-8"):
        read_locations(tmp_path / "bytes.tsv")
    packed = gzip.compress(NEW.encode())
    (tmp_path / "cut.gz").write_bytes(packed[:-20])
    with pytest.raises(DatasetError, match="cut off or damaged"):
        read_locations(tmp_path / "cut.gz")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.tsv", NEW)
        archive.writestr("b.tsv", NEW)
    with pytest.raises(DatasetError, match="holds 2 tables"):
        read_locations(tmp_path / "two.zip")
    with zipfile.ZipFile(tmp_path / "climbs.zip", "w") as archive:
        archive.writestr("../a.tsv", NEW)
    with pytest.raises(DownloadError, match="could leave the folder"):
        read_locations(tmp_path / "climbs.zip")
    monkeypatch.setattr(hpa_tables, "_MOST_BYTES", 100)
    with pytest.raises(DatasetError, match="MB of text"):
        read_locations(write(tmp_path, NEW))


def test_join(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    locations = read_locations(write(tmp_path, NEW))
    cells = pd.DataFrame(
        {"ensembl": ["ENSG00000000003.4", "ENSG00000000009", "ENSG00000000001", "ENSG00000000009"], "location": ["a", "b", "c", "d"]},
        index=["w", "x", "y", "z"],
    )
    with caplog.at_level(logging.WARNING):
        joined, missing = join_locations(cells, locations)
    assert missing == ["ENSG00000000009"]
    assert "1 of 3 genes (2 rows)" in caplog.text
    assert list(joined.index) == ["w", "x", "y", "z"]
    assert joined["location"].tolist() == ["a", "b", "c", "d"]
    assert joined["gene_main"].tolist() == ["Primary cilium;Nucleoli rim", "", "Nucleoplasm", ""]
    inner, missing = join_locations(cells, locations, how="inner", prefix="hpa_")
    assert (list(inner.index), missing) == (["w", "y"], ["ENSG00000000009"])
    assert inner["hpa_protein"].tolist() == ["CCC1", "AAA1"]


def test_join_bad_input(tmp_path: Path) -> None:
    locations = read_locations(write(tmp_path, NEW))
    cells = pd.DataFrame({"ensembl": ["ENSG00000000001"]})
    with pytest.raises(DatasetError, match="no column 'ensembl'"):
        join_locations(pd.DataFrame({"gene": ["x"]}), locations)
    with pytest.raises(DatasetError, match="how = 'outer'"):
        join_locations(cells, locations, how="outer")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="already has gene_main"):
        join_locations(cells.assign(gene_main=""), locations)
    with pytest.raises(DatasetError, match="each gene once"):
        join_locations(cells, pd.concat([locations, locations]))


def test_names() -> None:
    assert canonical("nuclear speckles") == "Nuclear speckles"
    assert canonical(" Cell junctions ") == canonical("cell  Junctions") == "Cell Junctions"
    assert canonical("rods and rings") == canonical("Rods & Rings") == "Rods & Rings"
    assert canonical("Mitotic Spindle") == "Mitotic spindle"
    assert canonical("Primary cilium") == "Primary cilium"  # unknown: kept
    assert unknown_locations(["Primary cilium", "cytosol", "", "No staining", "No staining"]) == ["No staining", "Primary cilium"]
    assert (go_id("cytosol"), go_id("Rods & Rings"), go_id("Primary cilium")) == ("GO:0005829", "", "")


def test_names_by_go_id() -> None:
    """An unknown name takes a known one only where that alone has its GO id."""
    assert canonical("Focal adhesions", "GO:0005925") == "Focal adhesion sites"
    assert canonical("Nucleolar something", "GO:0005730") == "Nucleolar something"  # nucleoli and their rim share this id
    assert canonical("Cytosol", "GO:0005925") == "Cytosol"  # a known name stands


def test_names_between_releases() -> None:
    assert current("nucleus") == "Nucleoplasm"
    assert current("microtubule organizing center") == "Centriolar satellite"
    assert current("cytosol") == "Cytosol"
    assert same_location("nucleus", "Nucleoplasm")
    assert not same_location("nucleus", "Nucleoplasm", across_releases=False)
    assert not same_location("Nucleoli", "Nucleoli rim")  # one GO id, two places
    assert not same_location("Centrosome", "Microtubule organizing center")
    assert same_location("cell junctions", "Cell Junctions", across_releases=False)


IMAGES = """ID,Gene,Gene name,Antibody id,Cell line,Location,Single-cell variation
921_H5_1,ENSG00000001084,GCLC,CAB009569,A-431,nucleoplasm;cytosol,True
1736_F10_19,ENSG00000000001,AAA1,HPA000001,U-2 OS,No staining,False
"""


def test_image_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        table = read_image_table(write(tmp_path, IMAGES, "images.csv"))
    assert table.iloc[0].to_dict() == {
        "id": "921_H5_1",
        "plate": "921",
        "well": "H5",
        "field": "1",
        "cell_line": "A-431",
        "location": "Nucleoplasm;Cytosol",
        "ensembl": "ENSG00000001084",
        "protein": "GCLC",
        "antibody": "CAB009569",
        "variation": "true",
    }
    assert table.iloc[1][["plate", "well", "field", "variation"]].tolist() == ["1736", "F10", "19", "false"]
    assert "No staining" in caplog.text
    other = read_image_table(write(tmp_path, 'ID,Label_idx,Cellline\n56_F11_1,"Plasma membrane,Cytosol",U-2 OS\n', "other.csv"))
    assert other.iloc[0][["location", "cell_line", "ensembl"]].tolist() == ["Plasma membrane;Cytosol", "U-2 OS", ""]
    with pytest.raises(DatasetError, match=r"1 ids are not <plate>_<well>_<field>, e.g. '56_F11_1_green' \(line 2\)"):
        read_image_table(write(tmp_path, "ID\n56_F11_1_green\n", "bad.csv"))
    with pytest.raises(DatasetError, match="no column 'ID'; found name"):
        read_image_table(write(tmp_path, "name\nx\n", "bad.csv"))


@pytest.fixture(scope="module")
def tables(request: pytest.FixtureRequest) -> tuple[pd.DataFrame, pd.DataFrame]:
    if not os.environ.get("PCI_TEST_DATA"):
        pytest.skip("PCI_TEST_DATA is not set: it names a folder of real data that is no part of the repository")
    folder = Path(os.environ["PCI_TEST_DATA"]) / "hpa-annotations"
    return read_locations(folder / "subcellular_location.v18.tsv"), read_locations(folder / "subcellular_location.v21plus.tsv")


def test_real_tables(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    old, new = tables
    assert (len(old), len(new)) == (12_003, 13_041)
    assert old["reliability"].value_counts().to_dict() == {"Approved": 6076, "Supported": 3600, "Enhanced": 1548, "Uncertain": 779}
    for table in (old, new):
        assert (table["location"] != "").all()
        pairs = zip(table["location"], table["go"], strict=True)
        assert all(len(t.split(";")) == len(g.split(";")) for t, g in pairs)
        without = {
            t
            for terms, ids in zip(table["location"], table["go"], strict=True)
            for t, g in zip(terms.split(";"), ids.split(";"), strict=True)
            if not g
        }
        assert without == {"Rods & Rings"}
        assert unknown_locations(t for cell in table["location"] for t in cell.split(";")) == []
    o, n = old.set_index("protein"), new.set_index("protein")
    assert o.loc["NCL", "location"] == "Nucleoli;Nucleus"
    assert n.loc["NCL", "location"] == "Nucleoli;Nucleoli rim;Nucleoplasm;Mitotic chromosome"
    assert o.loc["MKI67", "variation_spatial"] == "Nuclear bodies;Nucleoli;Nucleus"
    assert n.loc["MKI67", "main"] == "Nucleoli rim;Nucleoplasm"
    assert o.loc["CCNB1", ["ensembl", "enhanced", "variation_intensity"]].tolist() == ["ENSG00000134057", "Cytosol", "Cytosol"]
    joined, missing = join_locations(old, new)
    assert (len(missing), len(joined)) == (12_003 - 11_519, 12_003)


def test_location_map_is_recounted(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Every number of hpa_locations.tsv comes from the two tables; a name's successor is what its genes newly carry most."""
    old, new = (
        t.assign(all=(t["location"] + ";" + t["extracellular"]).str.strip(";").str.split(";").map(set)).set_index("ensembl") for t in tables
    )
    counts = [Counter(term for terms in t["all"] for term in terms) for t in (old, new)]
    go = {
        t: g
        for table in (old, new)
        for row in table[["location", "go"]].to_numpy()
        for t, g in zip(*(c.split(";") for c in row), strict=True)
    }
    both = old.index.intersection(new.index)
    known = {n.name: n for n in hpa_locations.names()}
    assert set(known) == set(counts[0]) | set(counts[1])
    for term, name in known.items():
        assert (name.genes_v18, name.genes_v21, name.go) == (counts[0][term], counts[1][term], go.get(term, "")), term
        if counts[1][term]:
            assert not name.now
            continue
        genes = [g for g in both if term in old.at[g, "all"]]
        newly = Counter(t for g in genes for t in new.at[g, "all"] - old.at[g, "all"])
        assert name.now == newly.most_common(1)[0][0]
        assert (name.now_genes, name.of_genes) == (sum(name.now in new.at[g, "all"] for g in genes), len(genes))
    assert {n.name: (n.now_genes, n.of_genes) for n in known.values() if n.now} == {
        "Microtubule organizing center": (105, 126),
        "Nucleus": (1760, 1839),
    }


def test_real_image_tables(test_data: Path) -> None:
    folder = test_data / "hpa-annotations"
    varying = read_image_table(folder / "prb_SCV_notest_meta.csv")
    assert (len(varying), set(varying["variation"])) == (7341, {"true"})
    assert varying["ensembl"].str.startswith("ENSG").all() and varying["antibody"].ne("").all()
    many = read_image_table(folder / "prb_hpa_multi_bbox_meta.csv")
    assert len(many) == 26_886 and many["location"].ne("").all()
    assert unknown_locations(t for cell in many["location"] for t in cell.split(";")) == []
