"""Search for proteins like a known one: order in the dendrogram against a tree drawn by hand, distances against scipy."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import cdist, squareform

from pci_core.analysis import neighbours
from pci_core.errors import AnalysisNeedsError, CellTableError, ParameterError, UnknownNameError


def proteins(values: np.ndarray, names: list[str]) -> anndata.AnnData:
    return anndata.AnnData(np.asarray(values, np.float32), obs=pd.DataFrame(index=names))


@pytest.fixture
def line() -> neighbours.Space:
    """Five proteins on a line at 0, 1, 10, 12 and 30: branches {A, B}, {C, D}, then these two, then E."""
    return neighbours.space(proteins(np.array([[0.0], [1.0], [10.0], [12.0], [30.0]]), list("ABCDE")), linkage="single", metric="euclidean")


@pytest.fixture
def many() -> neighbours.Space:
    rng = np.random.default_rng(0)
    return neighbours.space(proteins(rng.normal(size=(60, 8)), [f"P{i:02d}" for i in range(60)]))


def test_heights_are_those_of_the_lowest_common_ancestor(many: neighbours.Space) -> None:
    theirs = squareform(hierarchy.cophenet(many.tree.merges))
    for row in range(len(many)):
        np.testing.assert_array_equal(many.heights(row), theirs[row])


def test_a_branch_comes_before_what_is_nearer_outside_of_it(line: neighbours.Space) -> None:
    std = np.std([0, 1, 10, 12, 30])
    np.testing.assert_allclose(line.heights(1) * std, [1, 0, 9, 9, 18], rtol=1e-6)  # float32 values
    assert neighbours.ranks(line, [1]).tolist() == [1, 0, 2, 3, 4]  # within {C, D} the nearer one first
    # seen from C: D joins at 2, {A, B} at 9 with B the nearer, E at 18; by plain distance it is the same here
    assert neighbours.ranks(line, [2]).tolist() == [3, 2, 0, 1, 4]
    # seen from D, B is at 11 and E at 18; from C's and E's branches nothing changes
    assert neighbours.ranks(line, [3], "euclidean").tolist() == [3, 2, 1, 0, 4]


def test_the_dendrogram_is_not_feature_distance() -> None:
    """C is 0.9 from B and A 0.95, but C is joined to D and E first, whose mean distance from B is 1."""
    at = np.array([[0.05], [1.0], [1.9], [2.0], [2.1]])
    space = neighbours.space(proteins(at, list("ABCDE")), linkage="average", metric="euclidean")
    assert neighbours.ranks(space, [1], "euclidean").tolist() == [2, 0, 1, 3, 4]
    assert neighbours.ranks(space, [1], "dendrogram").tolist() == [1, 0, 2, 3, 4]


@pytest.mark.parametrize("method", ["euclidean", "correlation"])
def test_distances_are_scipys(many: neighbours.Space, method: str) -> None:
    d = cdist(many.values, many.values, method)[7]
    order = [i for i in np.argsort(d, kind="stable") if i != 7]
    assert np.argsort(neighbours.ranks(many, [7], method), kind="stable")[1:].tolist() == order


def test_several_queries(line: neighbours.Space) -> None:
    # A and E: from A the others come B, C, D; from E they come D, C, B; all mean ranks are 2, so the nearer query decides
    assert neighbours.ranks(line, [0, 4], "euclidean", "mean").tolist() == [0, 1, 2, 3, 0]
    assert neighbours.ranks(line, [0, 2], "euclidean", "nearest").tolist() == [0, 1, 0, 2, 3]  # B is 1 from A, D 2 from C
    # A and B: from A they come C, D, E, from B too
    assert neighbours.ranks(line, [0, 1], "dendrogram", "mean").tolist() == [0, 0, 1, 2, 3]
    single = neighbours.ranks(line, [3])
    for combine in neighbours.COMBINE:
        np.testing.assert_array_equal(neighbours.ranks(line, [3], combine=combine), single)


def test_the_table_of_a_search(many: neighbours.Space) -> None:
    table = neighbours.search(many, [3, 5])
    assert list(table.columns) == ["rank", "height", "distance", "rank_euclidean", "rank_correlation"]
    assert len(table) == 58 and table["rank"].tolist() == list(range(1, 59)) and not {"P03", "P05"} & set(table.index)
    assert table["rank_euclidean"].sort_values().tolist() == list(range(1, 59))
    near = cdist(many.values, many.values, "correlation")[[3, 5]].min(axis=0)
    np.testing.assert_allclose(table.loc["P10", "distance"], near[10])
    one = neighbours.search(many, [3])
    assert one["height"].is_monotonic_increasing
    assert (one.groupby("height")["distance"].diff().dropna() >= 0).all()  # ties of one branch by distance


def test_one_feature_has_no_correlation() -> None:
    space = neighbours.space(proteins(np.arange(4.0)[:, None], list("ABCD")), metric="euclidean")
    assert space.methods() == ["dendrogram", "euclidean"]
    with pytest.raises(CellTableError, match="no correlation distance"):
        neighbours.ranks(space, [0], "correlation")


def test_queries_by_name() -> None:
    names = ["EN1", "MYL5", "NCL", "en2"]
    assert neighbours.find(names, "NCL, EN1,NCL").tolist() == [2, 0]
    assert neighbours.find(names, "ncl").tolist() == [2] and neighbours.find(names, ["EN2"]).tolist() == [3]
    assert neighbours.find(["Ab", "AB", "ab"], "AB").tolist() == [1]
    with pytest.raises(UnknownNameError, match=r"unknown query protein 'NCLL'\. Did you mean NCL"):
        neighbours.find(names, "NCLL")
    with pytest.raises(UnknownNameError, match="'aB'"):  # two differ from it in case only
        neighbours.find(["Ab", "AB"], "aB")
    with pytest.raises(ParameterError, match="no query protein"):
        neighbours.find(names, " , ")
    with pytest.raises(AnalysisNeedsError, match=r"MKI67 by default, which is not among these 4 .*-p query"):
        neighbours.find(names, "MKI67")
    assert neighbours.find([*names, "MKI67"], "MKI67").tolist() == [4]


def test_unknown_words(line: neighbours.Space) -> None:
    with pytest.raises(UnknownNameError, match="way to search 'euclid'. Did you mean euclidean"):
        neighbours.ranks(line, [0], "euclid")
    with pytest.raises(UnknownNameError, match="way to combine queries 'max'"):
        neighbours.ranks(line, [0, 1], combine="max")
    with pytest.raises(CellTableError, match="at least two rows"):
        neighbours.space(proteins(np.ones((1, 3)), ["A"]))


def test_locations_of_all_cells_of_a_protein() -> None:
    obs = pd.DataFrame({"protein": ["B", "A", "A", "", "B"], "location": ["x;y", "x", "x", "z", "y;w"]}, index=list("12345"))
    cells = anndata.AnnData(np.zeros((5, 2), np.float32), obs=obs)
    terms = neighbours.locations(cells)
    assert terms.to_dict() == {"A": "x", "B": "x;y;w"}
    assert neighbours.of_term(terms, "x").tolist() == [True, True] and neighbours.of_term(terms, "w").tolist() == [False, True]
    assert neighbours.all_terms(terms) == ["w", "x", "y"]
    assert neighbours.locations(cells, "no such column").to_dict() == {"A": "", "B": ""}
    assert neighbours.members(terms, "x", "B,Q").tolist() == [False, True]


def test_genes_from_files(tmp_path: Path) -> None:
    assert neighbours.read_genes("NCL, EN1,") == ["NCL", "EN1"]
    (tmp_path / "a.tsv").write_text("Gene\tGene name\nENSG1\tNCL\nENSG2\tEN1\n")
    assert neighbours.read_genes(str(tmp_path / "a.tsv")) == ["NCL", "EN1"]
    (tmp_path / "b.txt").write_text("NCL\n\nEN1\n")
    assert neighbours.read_genes(str(tmp_path / "b.txt")) == ["NCL", "EN1"]
    (tmp_path / "c.csv").write_text("name\nNCL\n")
    with pytest.raises(CellTableError, match=r"no column 'Gene name', .* \(it has: name\)"):
        neighbours.read_genes(str(tmp_path / "c.csv"))
    with pytest.raises(AnalysisNeedsError, match="is not there"):
        neighbours.read_genes("missing.tsv")


def test_rim_genes_of_the_atlas(test_data: Path) -> None:
    genes = neighbours.read_genes(str(test_data / "hpa-annotations" / "nucleoli_rim_genes.tsv"))
    assert len(genes) == 156 and "UTP18" in genes  # lines of the file without its head


def test_links_only_where_there_is_a_page() -> None:
    found = neighbours.links(["NCL", "EN1", "SIMH0001"], ["ENSG00000115053.15", "", ""], "hsapiens")
    assert found == ["https://www.proteinatlas.org/ENSG00000115053", "https://www.proteinatlas.org/search/EN1", ""]
    assert neighbours.links(["NCL"], None, "hsapiens") == ["https://www.proteinatlas.org/search/NCL"]
    assert neighbours.links(["SEC7"], None, "scerevisiae") == [""]
    assert "not the simulated one" in neighbours.links_told(found, True)
    assert neighbours.links_told(found, False) == neighbours.links_told([""], True) == ""
