"""Names and terms of clusters, in the form of the paper's table 3."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from pci_core.analysis import cluster_terms, clusters
from pci_core.errors import EnrichmentError

PLACES = ("Mitochondria", "Nucleoli", "Vesicles")


def found_clusters(with_location: bool = True) -> clusters.Clustering:
    """Three clusters of eight proteins; the third has several annotations, none of them enriched."""
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(3), 8)
    x = rng.normal(size=(24, 6)) + 8 * rng.normal(size=(3, 6))[kind]
    places = [PLACES[k] if k < 2 else ("Vesicles", "Vesicles", "Nucleoli", "Cytosol")[i % 4] for i, k in enumerate(kind)]
    obs = pd.DataFrame({"protein": [f"G{i:02d}" for i in range(24)]}, index=[f"c{i}" for i in range(24)])
    if with_location:
        obs["location"] = places
    return clusters.cluster_proteins(anndata.AnnData(x.astype(np.float32), obs=obs), metric="euclidean", n_clusters=3)


def gmt(path: Path) -> Path:
    genes = [[f"G{i:02d}" for i in range(k * 8, k * 8 + 8)] for k in range(3)]
    lines = [["mito", "", *genes[0]], ["nucleolus", "", *genes[1]], ["everything", "", *genes[0], *genes[1], *genes[2]]]
    path.write_text("\n".join("\t".join(line) for line in lines))
    return path


def test_clusters_are_named_by_term_then_location_then_number(tmp_path: Path) -> None:
    found = found_clusters()
    terms = cluster_terms.find_terms(found, str(gmt(tmp_path / "my.gmt")), "hsapiens", tmp_path, quiet=True)
    assert set(terms["source"]) == {"my.gmt"} and set(terms["background_size"]) == {24}
    table = cluster_terms.describe(found, terms)
    of = {table.set_index("cluster")["members"].str.contains(g).idxmax(): g for g in ("G00", "G08", "G16")}
    named = {of[c]: (name.split(" ", 1)[1], term) for c, name, term in table[["cluster", "name", "term"]].itertuples(index=False)}
    assert named == {"G00": ("mito", "mito"), "G08": ("nucleolus", "nucleolus"), "G16": ("(Vesicles)", "")}
    assert table["n_proteins"].tolist() == [8, 8, 8] == table["n_cells"].tolist()
    assert (table["fdr"].notna() == (table["term"] != "")).all()
    rows = cluster_terms.table_3(terms)
    assert rows.columns.tolist() == cluster_terms.paper_table_3().columns.tolist()
    assert sorted(rows["term"]) == ["mito", "nucleolus"] and set(rows["proteins"]) == {"8/8"}
    # one of C(24, 8) = 735,471 ways, three terms tested, the best of them: p * 3 / 1
    assert set(rows["FDR"]) == {f"{3 / 735471:.2e}"}


def test_long_terms_are_shortened_in_names() -> None:
    assert cluster_terms._short("nuclear body (GO:0016604)") == "nuclear body"
    long = cluster_terms._short("DNA-directed RNA polymerase II, core complex of the nucleus (GO:0005665)")
    assert len(long) <= 36 and long.startswith("DNA-directed RNA polymerase II") and long.endswith("…")


def test_no_enrichment_was_wanted() -> None:
    for with_location, names in ((True, {"(Mitochondria)", "(Nucleoli)", "(Vesicles)"}), (False, {""})):
        found = found_clusters(with_location)
        terms = cluster_terms.find_terms(found, "", "", Path("nowhere"))
        table = cluster_terms.describe(found, terms)
        assert {n.partition(" ")[2] for n in table["name"]} == names
        assert table["fdr"].isna().all() and cluster_terms.table_3(terms).empty


def test_genes_of_another_kind_stop_it(tmp_path: Path) -> None:
    with pytest.raises(EnrichmentError, match="only 0% of the 24 genes"):
        cluster_terms.find_terms(found_clusters(), "embedded", "hsapiens", tmp_path, quiet=True)


def test_which_locations_have_a_cluster() -> None:
    table = cluster_terms.classes_found(found_clusters(), least=2).set_index("location")
    assert table["n_proteins"].to_dict() == {"Cytosol": 2, "Mitochondria": 8, "Nucleoli": 10, "Vesicles": 4}
    # two of two in a cluster of 8 of 24: p = 28 / 276, above the rate
    assert table["found"].to_dict() == {"Cytosol": False, "Mitochondria": True, "Nucleoli": True, "Vesicles": True}
    assert cluster_terms.classes_found(found_clusters(), least=30).empty


def test_the_papers_table() -> None:
    table = cluster_terms.paper_table_3()
    assert len(table) == 27 and table["cluster"].nunique() == 24
    assert table.iloc[0].tolist() == ["A", "Nucleoplasm", "5.25e-139", "752/1,383"]
    assert all(n <= size for *_, n, size in cluster_terms.PAPER_TABLE_3)
