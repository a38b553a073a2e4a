"""Agreement against scikit-learn and hand-computed cases; stability of clusters that are plain, and of noise."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from pci_core.analysis import cluster_scores, clusters
from pci_core.errors import AnalysisNeedsError, ParameterError, UnknownNameError


def made_cells(groups: int = 4, per_group: int = 6, images: int = 3, cells: int = 5, apart: float = 3.0, seed: int = 0) -> anndata.AnnData:
    """Cells of `groups` kinds of proteins, each protein in some images."""
    rng = np.random.default_rng(seed)
    n = groups * per_group * images * cells
    protein = np.arange(n) // (images * cells)
    kind = protein // per_group
    x = rng.normal(size=(n, 10)) + apart * rng.normal(size=(groups, 10))[kind]
    x += 0.5 * rng.normal(size=(groups * per_group * images, 10))[np.arange(n) // cells]
    obs = pd.DataFrame({"protein": [f"P{p}" for p in protein], "image": [f"i{i // cells}" for i in range(n)]})
    obs["location"] = np.array(["Cytosol", "Nucleoli", "Vesicles", "Golgi apparatus"])[kind % 4]
    obs.index = [f"c{i}" for i in range(n)]
    return anndata.AnnData(x.astype(np.float32), obs=obs)


def test_agreement_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels, place = rng.integers(1, 6, 60), rng.integers(0, 4, 60)
    found = cluster_scores.agreement(labels, pd.Series(list("abcd"))[place].reset_index(drop=True), draws=50)
    assert found.rand.value == pytest.approx(adjusted_rand_score(place, labels))
    assert found.rand.low <= found.rand.value <= found.rand.high
    assert (found.n_proteins, found.n_clustered, found.n_locations) == (60, 60, 4)


def test_agreement_by_hand() -> None:
    labels = np.array([1, 1, 1, 2, 2, 0, 0, 2])
    locations = pd.Series(["a", "a", "b", "b", "b", "b", None, "a;b"])
    found = cluster_scores.agreement(labels, locations, draws=200)
    assert (found.n_proteins, found.n_clustered, found.n_locations) == (6, 5, 2)
    assert found.purity.value == pytest.approx(4 / 5)  # a a of 3, b b of 2
    # five pairs lie in one cluster ... 3 + 1 of clusters, of 15; 1 + 6 of locations; 1 + 1 both
    expected = 4 * 7 / 15
    assert found.rand.value == pytest.approx((2 - expected) / ((4 + 7) / 2 - expected))
    # dealt out anew: every purity is one of 3/5 (2 a against 1, or 1 against 2, and halves) to 1
    assert 0.6 <= found.chance.value < 0.9


def test_a_protein_drawn_twice_does_not_agree_with_itself() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(1, 31), 3))
    place = pd.Series(rng.permutation(np.repeat([f"l{i}" for i in range(30)], 3)))
    found = cluster_scores.agreement(labels, place, draws=300)
    # without that care the middle of the interval lies near 0.5: half of all pairs of a draw would be copies
    assert abs((found.rand.low + found.rand.high) / 2 - found.rand.value) < 0.05
    assert found.rand.low < 0.05
    assert found.chance.low <= found.purity.value <= found.chance.high


def test_agreement_needs_locations() -> None:
    with pytest.raises(AnalysisNeedsError, match="0 of 4 have one term"):
        cluster_scores.agreement(np.array([1, 1, 2, 2]), pd.Series(["", None, "a;b", ""]))
    with pytest.raises(AnalysisNeedsError, match="of 1 kind"):
        cluster_scores.agreement(np.array([1, 1, 2, 2]), pd.Series(["a", "a", "", ""]))


def test_locations_that_allow_a_comparison() -> None:
    cells = made_cells(images=1)
    assert cluster_scores.locations(clusters.cluster_proteins(cells, min_size=3)).nunique() == 4  # type: ignore[union-attr]
    cells.obs["location"] = ["a;b", "", *["a"] * (cells.n_obs - 2)]  # the first protein has several
    assert cluster_scores.locations(clusters.cluster_proteins(cells, min_size=3)) is None
    cells.obs["location"] = "a"
    assert cluster_scores.locations(clusters.cluster_proteins(cells, min_size=3)) is None
    del cells.obs["location"]
    assert cluster_scores.locations(clusters.cluster_proteins(cells, min_size=3)) is None


def test_plain_clusters_are_found_again_and_noise_is_not() -> None:
    cells = made_cells()
    found = clusters.cluster_proteins(cells, min_size=3)
    table = cluster_scores.stability(cells, found, draws=10)
    assert found.count == 4 and (table["jaccard"] > 0.95).all() and (table["found_again"] == 1).all()
    assert (table["unit"] == "image").all() and table["n_proteins"].sum() <= 24
    assert table[["low", "jaccard", "high"]].apply(lambda r: r.is_monotonic_increasing, axis=1).all()
    noise = made_cells(apart=0.0)
    other = clusters.cluster_proteins(noise, min_size=3)
    assert cluster_scores.stability(noise, other, draws=10)["jaccard"].mean() < 0.7
    again = cluster_scores.stability(cells, found, draws=10)
    pd.testing.assert_frame_equal(table, again)


def test_a_given_number_is_kept_as_far_as_the_draw_allows() -> None:
    cells = made_cells()
    found = clusters.cluster_proteins(cells, min_size=2, n_clusters=clusters.most_clusters(clusters.cluster_proteins(cells).tree, 2))
    assert len(cluster_scores.stability(cells, found, draws=3, unit="cell")) == found.count


def test_means_of_a_draw_by_hand() -> None:
    cells = made_cells(groups=2, per_group=2, images=2, cells=3)
    used = np.arange(cells.n_obs)
    protein = pd.factorize(cells.obs["protein"])[0]
    for unit in cluster_scores.UNITS:
        sums, counts, owner = cluster_scores._units(cells, used, protein, unit)
        whole = np.array([sums[owner == p].sum(0) / counts[owner == p].sum() for p in range(4)])
        np.testing.assert_allclose(whole, [cells.X[protein == p].mean(0) for p in range(4)], rtol=1e-5)  # type: ignore[index]
        drawn = cluster_scores._redrawn(sums, counts, owner, np.random.default_rng(0))
        for p in range(4):
            # every mean is one of the unit means' convex hull: never of another protein's
            means = sums[owner == p] / counts[owner == p][:, None]
            assert (drawn[p] >= means.min(0) - 1e-5).all() and (drawn[p] <= means.max(0) + 1e-5).all()


def test_one_image_a_protein_draws_cells() -> None:
    cells = made_cells(images=1)
    found = clusters.cluster_proteins(cells, min_size=3)
    assert (cluster_scores.stability(cells, found, draws=2)["unit"] == "cell").all()


def test_bad_draws_are_said() -> None:
    cells = made_cells(images=1)
    found = clusters.cluster_proteins(cells, min_size=3)
    with pytest.raises(UnknownNameError, match="unknown unit to draw 'cels'. Did you mean cell"):
        cluster_scores.stability(cells, found, unit="cels")
    with pytest.raises(ParameterError, match="draws is 0"):
        cluster_scores.stability(cells, found, draws=0)
    del cells.obs["image"]
    with pytest.raises(UnknownNameError, match="unknown column 'image'"):
        cluster_scores.stability(cells, found, unit="image", draws=1)
