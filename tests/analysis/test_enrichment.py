"""Enrichment against counts by hand, scipy's exact test, an independent correction, gseapy, and real gene sets."""

from __future__ import annotations

from itertools import product
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pci_core.analysis.enrichment import COLUMNS, best_terms, enrich, gene_sets
from pci_core.errors import EnrichmentError

LETTERS = "ABCDEFGHIJ"
SETS = {
    "most": frozenset("ABCDEFXYZ"),  # X, Y, Z are not in the background
    "three": frozenset("ABC"),
    "far": frozenset("IJ"),
    "small": frozenset("HX"),  # one gene of the background: not tested
    "outside": frozenset("XYZ"),
}


def by_hand(overlap: int, term: int, cluster: int, total: int) -> float:
    ways = sum(comb(term, k) * comb(total - term, cluster - k) for k in range(overlap, min(term, cluster) + 1))
    return ways / comb(total, cluster)


def corrected(p: list[float]) -> list[float]:
    """Benjamini and Hochberg in the form of their paper: the least of p_j * m / rank_j over all p_j that are not smaller."""
    ranked = sorted(p)
    return [min(1.0, min(q * len(p) / (ranked.index(q) + ranked.count(q)) for q in p if q >= one)) for one in p]


@pytest.fixture
def table() -> pd.DataFrame:
    return enrich({"one": list("ABCD"), "two": list("IJA")}, list(LETTERS), SETS, quiet=True)


def test_counts_and_p_by_hand(table: pd.DataFrame) -> None:
    assert list(table) == list(COLUMNS)
    rows = table.set_index(["cluster", "term"])
    assert set(rows.index) == set(product(["one", "two"], ["most", "three", "far"]))
    counts = rows[["overlap", "cluster_size", "term_size", "background_size"]]
    assert list(counts.loc[("one", "three")]) == [3, 4, 3, 10]
    assert list(counts.loc[("one", "most")]) == [4, 4, 6, 10]
    assert list(counts.loc[("two", "far")]) == [2, 3, 2, 10]
    assert list(counts.loc[("one", "far")]) == [0, 4, 2, 10]
    # 3 of the 4 drawn are A, B, C: 7 of the 210 ways; all of 4 in a set of 6: 15 of 210
    assert rows.loc[("one", "three"), "p"] == pytest.approx(7 / 210, rel=1e-12)
    assert rows.loc[("one", "most"), "p"] == pytest.approx(15 / 210, rel=1e-12)
    assert rows.loc[("one", "far"), "p"] == 1.0
    assert rows.loc[("one", "three"), "genes"] == "A;B;C" and rows.loc[("one", "far"), "genes"] == ""


def test_correction_is_over_all_terms_tested_in_each_cluster(table: pd.DataFrame) -> None:
    rows = table.set_index(["cluster", "term"])
    assert rows.loc[("one", "three"), "fdr"] == pytest.approx(7 / 210 * 3, rel=1e-12)  # 3 terms: the one without overlap counts
    for _, of_cluster in table.groupby("cluster"):
        assert list(of_cluster["fdr"]) == pytest.approx(corrected(list(of_cluster["p"])), rel=1e-12)


def test_rows_come_by_cluster_then_p(table: pd.DataFrame) -> None:
    assert list(table["cluster"]) == ["one"] * 3 + ["two"] * 3
    assert all(part["p"].is_monotonic_increasing for _, part in table.groupby("cluster"))
    assert list(best_terms(table, fdr=0.11)["term"]) == ["three"]
    assert list(best_terms(table, fdr=1.0, number=2)["term"]) == ["three", "most", "far", "three"]  # none without overlap
    assert best_terms(table, fdr=0.01).empty


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_equal_to_fishers_exact_test(data: st.DataObject) -> None:
    total = data.draw(st.integers(4, 40))
    genes = [f"G{i}" for i in range(total)]
    cluster = data.draw(st.lists(st.sampled_from(genes), min_size=1, unique=True))
    term = data.draw(st.lists(st.sampled_from(genes), min_size=2, unique=True))
    row = enrich({"c": cluster}, genes, {"t": frozenset(term), "all": frozenset(genes)}, quiet=True).set_index("term").loc["t"]
    both = len(set(cluster) & set(term))
    square = [[both, len(cluster) - both], [len(term) - both, total - len(cluster) - len(term) + both]]
    # both are sums of the same terms in another order
    assert row["p"] == pytest.approx(stats.fisher_exact(square, alternative="greater").pvalue, rel=1e-8)
    assert row["p"] == pytest.approx(by_hand(both, len(term), len(cluster), total), rel=1e-8)


def test_equal_to_gseapy() -> None:
    gseapy = pytest.importorskip("gseapy", reason="gseapy is an oracle of this test alone")
    rng = np.random.default_rng(0)
    genes = [f"G{i}" for i in range(300)]
    sets = {f"t{i}": frozenset(rng.choice(genes, rng.integers(2, 60), replace=False)) for i in range(40)}
    cluster = [str(g) for g in rng.choice(genes, 30, replace=False)]
    ours = enrich({"c": cluster}, genes, sets, quiet=True).set_index("term")
    theirs = gseapy.enrich(cluster, gene_sets={k: sorted(v) for k, v in sets.items()}, background=genes, outdir=None).results.set_index(
        "Term"
    )
    assert set(theirs.index) == set(ours.index[ours["overlap"] > 0])  # gseapy leaves out what has no overlap
    np.testing.assert_allclose(theirs["P-value"].astype(float), ours.loc[theirs.index, "p"], rtol=1e-12)
    assert list(theirs["Overlap"]) == [f"{a}/{b}" for a, b in ours.loc[theirs.index, ["overlap", "term_size"]].to_numpy()]


def test_under_chance_the_rate_of_small_p_is_at_most_nominal() -> None:
    rng = np.random.default_rng(1)
    genes = [f"G{i}" for i in range(200)]
    sets = {f"t{i}": frozenset(rng.choice(genes, 40, replace=False)) for i in range(20)}
    clusters = {f"c{i}": list(rng.choice(genes, 25, replace=False)) for i in range(100)}
    p = enrich(clusters, genes, sets, quiet=True)["p"]
    # 2,000 tests of a discrete p, so conservative: 0.05 and three standard errors, sqrt(0.05 * 0.95 / 2000) = 0.005
    assert (p <= 0.05).mean() < 0.05 + 3 * 0.005


def test_doubled_genes_of_a_cluster_count_once() -> None:
    once = enrich({"c": ["A", "B"]}, list(LETTERS), SETS, quiet=True)
    pd.testing.assert_frame_equal(once, enrich({"c": ["A", "B", "A"]}, [*LETTERS, "A"], SETS, quiet=True))


def test_least_size_of_a_term_and_source() -> None:
    table = enrich({"c": ["A"]}, list(LETTERS), SETS, min_term=1, source="own.gmt", quiet=True)
    assert set(table["term"]) == {"most", "three", "far", "small"} and set(table["source"]) == {"own.gmt"}
    assert set(enrich({"c": ["A"]}, list(LETTERS), SETS, min_term=3, quiet=True)["term"]) == {"most", "three"}


def test_share_recognised_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    enrich({"c": ["A"]}, [*LETTERS, "K", "L"], SETS)
    told = capsys.readouterr().out
    assert "75% of the 12 clustered genes" in told and "3 of 5 sets" in told  # A to F, H, I, J


@pytest.mark.parametrize(
    ("clusters", "background", "changes", "told"),
    [
        ({}, "ABC", {}, "no cluster"),
        ({"c": []}, "ABC", {}, "'c' has no genes"),
        ({"c": ["A", "Q"]}, "ABC", {}, "1 genes that are not in the background of 3, e.g. Q"),
        ({"c": "AB"}, "ABC", {}, "is the text 'AB'"),
        ({"c": ["A"]}, ["A", ""], {}, "without a name"),
        ({"c": ["A"]}, ["A", float("nan")], {}, "without a name"),
        ({"c": ["A"]}, "ABC", {"min_term": 9}, "none of the 5 gene sets has 9"),
        ({"c": ["a"]}, ["a", "b", "c"], {}, "only 0% of the 3 genes.*upper and lower case"),
        ({"c": ["A"]}, "ABC", {"gene_sets": {}}, "only 0% .*in the sets: none"),
    ],
)
def test_bad_input(clusters: dict[str, list[str]], background: str | list[str], changes: dict[str, object], told: str) -> None:
    with pytest.raises(EnrichmentError, match=told):
        enrich(clusters, list(background), **({"gene_sets": SETS, "quiet": True} | changes))


# --- truth and real sets


@pytest.mark.parametrize("organism", ["hsapiens", "scerevisiae"])
def test_clusters_of_the_simulated_truth_find_themselves(organism: str) -> None:
    sets = gene_sets("embedded", organism)
    table = enrich({name: sorted(genes) for name, genes in sets.items()}, sorted(frozenset().union(*sets.values())), sets, quiet=True)
    best = best_terms(table)
    assert list(best["cluster"]) == list(sets) and list(best["term"]) == list(sets)


@pytest.mark.parametrize(("name", "terms"), [("human.clean", 446), ("yeast", 307)])
def test_known_complex_in_the_real_gene_ontology(test_data: Path, name: str, terms: int) -> None:
    sets = gene_sets(test_data / "go-cc" / f"GO_Cellular_Component_2018.{name}.gmt", "")
    background = sorted(frozenset().union(*sets.values()))
    ribosome = [gene for gene in background if gene.startswith("MRPL")]
    table = enrich({"ribosome": ribosome, "others": background[::50]}, background, sets, quiet=True)
    assert len(table) == 2 * terms
    first = best_terms(table).set_index("cluster")
    assert first.loc["ribosome", "term"] == "mitochondrial large ribosomal subunit (GO:0005762)"
    assert first.loc["ribosome", "fdr"] < 1e-50
    assert "others" not in first.index  # every fiftieth gene of the alphabet is no cluster
