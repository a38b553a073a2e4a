"""Subclasses within a location: who belongs to the class, what is known of it, and scores against scikit-learn's and by hand."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from pci_core.analysis import subclasses
from pci_core.analysis.knn import standardise
from pci_core.errors import AnalysisNeedsError, ParameterError
from pci_core.features import aggregate

VESICLES = ["Vesicles"]


def made(apart: float = 4.0, by_line: float = 0.0, seed: int = 0, per_kind: int = 4) -> anndata.AnnData:
    """Cells of `per_kind` vesicle proteins of each of three subclasses, and of ten others; two cell lines, an image of three cells each."""
    rng = np.random.default_rng(seed)
    centres, lines = rng.normal(size=(4, 12)) * apart, rng.normal(size=(2, 12)) * by_line
    kinds = [*np.repeat([0, 1, 2], per_kind), *[3] * 10]
    rows, values = [], []
    for i, kind in enumerate(kinds):
        own = rng.normal(size=12)
        for line in (0, 1):
            for cell in range(3):
                truth = ["even", "large", "near", ""][kind] if cell else ""  # the first cell of each image was not matched
                place = "Vesicles" if kind < 3 else ["Cytosol", "Vesicles;Cytosol"][i % 2]
                rows.append((f"P{i:02d}", f"P{i:02d}_{line}", "AB"[line], place, truth))
                values.append(centres[kind] + lines[line] + own + 0.3 * rng.normal(size=12))
    obs = pd.DataFrame(
        rows, columns=["protein", "image", "cell_line", "location", "sim_subclass"], index=[str(i) for i in range(len(rows))]
    )
    return anndata.AnnData(np.array(values, np.float32), obs=obs)


def test_the_class_by_default_and_by_name() -> None:
    cells = made()
    assert subclasses.class_terms(cells, None, "hsapiens") == VESICLES
    assert subclasses.class_terms(cells, "Vesicles, Cytosol", "hsapiens") == ["Vesicles", "Cytosol"]
    with pytest.raises(AnalysisNeedsError, match=r"'Vesicle' alone\. .*Vesicles \(12\), Cytosol \(5\)"):
        subclasses.class_terms(cells, "Vesicle")
    with pytest.raises(AnalysisNeedsError, match=r"punctate or Golgi, peroxisome, endosome, actin by default.*-p location"):
        subclasses.class_terms(cells, None, "scerevisiae")
    with pytest.raises(AnalysisNeedsError, match="a location by default"):
        subclasses.class_terms(cells, None, "mmusculus")
    with pytest.raises(ParameterError, match="no location"):
        subclasses.class_terms(cells, ",")
    yeast = made()
    yeast.obs["location"] = np.resize(np.repeat(subclasses.PUNCTATE, 6), yeast.n_obs)
    assert subclasses.class_terms(yeast, None, "scerevisiae") == list(subclasses.PUNCTATE)


def test_only_proteins_of_that_location_alone() -> None:
    cells = made()
    inside = subclasses.members(cells, VESICLES)
    assert cells.obs.loc[inside, "protein"].nunique() == 12 and set(cells.obs.loc[inside, "location"]) == {"Vesicles"}
    cells.obs.loc[cells.obs["image"] == "P00_1", "location"] = "Vesicles;Cytosol"  # one of its images says more
    assert "P00" not in set(cells.obs.loc[subclasses.members(cells, VESICLES), "protein"])
    with pytest.raises(AnalysisNeedsError, match=r"at least two proteins of the class; of Vesicles alone there is 1 \(P01\)"):
        subclasses.members(cells[cells.obs["protein"].isin(["P01", "P12"])], VESICLES)


def test_what_is_known() -> None:
    cells = made()
    part = cells[subclasses.members(cells, VESICLES)]
    known, what = subclasses.truth(part, VESICLES)
    assert what == "simulated subclass" and known.value_counts().to_dict() == {"even": 4, "large": 4, "near": 4}
    both, word = subclasses.truth(cells, ["Vesicles", "Cytosol"])
    assert word == "location" and both["P00"] == "Vesicles"
    real = part.copy()
    del real.obs["sim_subclass"]
    known, what = subclasses.truth(real, VESICLES)
    assert what == "" and (known == "").all() and len(known) == 12


def test_levels() -> None:
    cells = made()
    assert subclasses.levels(cells) == ["protein", "image"]
    one_image = cells[cells.obs["cell_line"] == "A"].copy()
    assert subclasses.levels(one_image) == ["protein"]
    one_image.obs["field"] = one_image.obs["image"] + "_" + (np.arange(one_image.n_obs) % 3).astype(str)
    assert subclasses.levels(one_image) == ["protein", "field"]


def test_features_are_scaled_over_all_proteins() -> None:
    cells = made()
    found = subclasses.cluster(cells, VESICLES)
    means = aggregate(cells)
    np.testing.assert_array_equal(found.rows.X, standardise(means.X)[:12])  # sorted by name: P00 to P11 are the vesicles
    assert found.min_size == 2 and list(found.rows.obs["protein"]) == [f"P{i:02d}" for i in range(12)]
    assert (found.rows.obs["n_cells"] == 6).all() and set(found.rows.obs["location"]) == {"Vesicles"}


@pytest.mark.parametrize("by", ["protein", "image"])
def test_clear_subclasses_are_found(by: str) -> None:
    found = subclasses.cluster(made(), VESICLES, by, within="cell_line", min_size=3)
    table = subclasses.recovery(found, draws=200).set_index("what")
    assert table.loc["adjusted Rand index", "value"] == 1 and (table["value"] == 1).all()
    assert (table["p"] < 0.02).all() and (table["n_proteins"] == 12).all()
    assert (table["n_rows"] == (12 if by == "protein" else 24)).all()
    assert sorted(map(sorted, found.members().values())) == [[f"P{i:02d}" for i in range(a, a + 4)] for a in (0, 4, 8)]


def test_cell_lines_are_taken_out_of_images() -> None:
    cells = made(by_line=20.0)
    lines = subclasses.cluster(cells, VESICLES, "image", n_clusters=2, min_size=3)
    assert adjusted_rand_score(lines.labels, lines.rows.obs_names.str[-1]) == 1
    without = subclasses.cluster(cells, VESICLES, "image", n_clusters=3, min_size=3, within="cell_line")
    assert adjusted_rand_score(without.labels, without.rows.obs["truth"]) == 1
    few = cells[cells.obs["protein"].isin(["P00", "P04"])]  # two images of a line: too few to scale by
    np.testing.assert_array_equal(
        subclasses.cluster(few, VESICLES, "image", within="cell_line").rows.X, subclasses.cluster(few, VESICLES, "image").rows.X
    )


def test_no_structure_gives_chance() -> None:
    """Features that know the protein and nothing of the subclass: the plain index of images would be well above 0."""
    values, p = [], []
    for seed in range(8):
        cells = made(apart=0.0, seed=seed)
        table = subclasses.recovery(subclasses.cluster(cells, VESICLES, "image", n_clusters=3), draws=100, seed=seed).set_index("what")
        values.append(table.loc["adjusted Rand index", "value"])
        p.append(table.loc["nearest", "p"])
    assert abs(np.mean(values)) < 0.15  # standard deviation of one about 0.13
    assert np.mean(p) > 0.2


def test_rand_index_is_scikit_learns_where_each_row_is_its_own() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, 50), rng.integers(0, 3, 50)
    ours = subclasses.between_rand(a, b, np.arange(50), np.ones(50))
    assert ours == pytest.approx(adjusted_rand_score(a, b))


def test_rand_index_over_pairs_of_different_groups_by_hand() -> None:
    a, b, group = np.array([0, 0, 1, 1, 0, 1]), np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2, 3])
    pairs = [(i, j) for i in range(6) for j in range(i) if group[i] != group[j]]
    both = sum(a[i] == a[j] and b[i] == b[j] for i, j in pairs)
    in_a, in_b = sum(a[i] == a[j] for i, j in pairs), sum(b[i] == b[j] for i, j in pairs)
    expected = in_a * in_b / len(pairs)
    by_hand = (both - expected) / ((in_a + in_b) / 2 - expected)
    assert subclasses.between_rand(a, b, group, np.ones(6)) == pytest.approx(by_hand)
    doubled = subclasses.between_rand(a, b, group, 2 * np.ones(6))  # every group drawn twice changes nothing
    assert doubled == pytest.approx(by_hand)
    assert np.isnan(subclasses.between_rand(np.zeros(3, int), np.zeros(3, int), np.arange(3), np.ones(3)))


def test_rows_in_no_cluster_are_misses() -> None:
    found = subclasses.cluster(made(), VESICLES, min_size=3)
    found.rows.obs["cluster"] = np.where(np.arange(12) < 4, 0, found.labels)
    table = subclasses.recovery(found, draws=20).set_index("what")
    assert table.loc["purity", "value"] == pytest.approx(8 / 12)
    assert table.loc["adjusted Rand index", "value"] < 1
    assert table.loc["nearest", "value"] == 1  # knows nothing of clusters


def test_nothing_known_or_impossible() -> None:
    cells = made()
    del cells.obs["sim_subclass"]
    with pytest.raises(AnalysisNeedsError, match="two that are known"):
        subclasses.recovery(subclasses.cluster(cells, VESICLES))
    with pytest.raises(ParameterError, match="n_clusters is 9"):
        subclasses.cluster(made(), VESICLES, n_clusters=9)
    two = made()[made().obs["protein"].isin(["P00", "P04", "P12"])]
    found = subclasses.cluster(two, VESICLES)
    assert (found.labels == 0).all() and found.members() == {}  # two proteins do not part into two pairs
