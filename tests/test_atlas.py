"""The protein atlas: its layout of proteins, its crops, its page as text. How it behaves in a browser: test_browser.py."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pci_core import atlas
from pci_core.cells import CellDataset, CellWriter, Channel
from pci_core.errors import AnalysisNeedsError
from pci_core.run import Run

CHANNELS = (Channel("green", "protein"), Channel("blue", "structural"))
HOSTILE = ["</script><script>window.pwned=1</script>", "\"'&<b>x</b>", "A\u2028B", "<!--{data}-->", "<img src=x onerror=pwned=1>", "P & Q"]


def made_up_atlas(
    folder: Path,
    names: list[str],
    *,
    simulated: bool = True,
    organism: str = "hsapiens",
    lines: int = 2,
    location: str | None = None,
    clusters: bool = True,
) -> tuple[str, CellDataset]:
    """Return the page of some proteins of six cells each, laid out by hand in a circle."""
    n, rng = len(names), np.random.default_rng(0)
    with CellWriter(folder, CHANNELS, 0.5, recipe="made-up") as writer:
        for i, name in enumerate(names):
            table = pd.DataFrame({"cell_id": [f"c{i}_{j}" for j in range(6)], "image": f"i{i:04d}", "protein": name})
            table["cell_line"] = [f"line {j % lines}" for j in range(6)]
            writer.add(rng.integers(20, 250, (6, 2, 32, 32)).astype(np.uint8), table)
    dataset = CellDataset(folder)
    angle = 2 * np.pi * np.arange(n) / n
    terms = ["a;b" if i % 5 == 0 else f"{'abcdefghij'[i % 10]}" for i in range(n)]
    terms[-1] = ""
    proteins = anndata.AnnData(rng.normal(size=(n, 4)).astype(np.float32), obs=pd.DataFrame(index=names))
    proteins.obs["n_cells"], proteins.obs["location"], proteins.obs["cluster"] = (
        6,
        terms if location is None else location,
        np.arange(n) % 3 * clusters,
    )
    proteins.obsm["X_umap"] = np.stack([10 * np.cos(angle), 5 * np.sin(angle)], 1)
    near = (np.arange(n)[:, None] + [1, n - 1, 2]) % n
    proteins.obsm["neighbours"], proteins.obsm["distances"] = near, np.tile([0.2, 0.3, 0.4], (n, 1))
    counts = pd.crosstab(dataset.table["protein"], dataset.table["cell_line"]).loc[names]
    proteins.obsm["cell_lines"] = pd.DataFrame(counts.to_numpy(), index=names, columns=list(counts))
    proteins.uns["map"] = {"n_neighbors": 5, "min_dist": 0.3, "seed": 0, "linkage": "average", "metric": "correlation", "min_size": 5}
    facts = atlas.Facts("Made-up <cells>", "made-up", "PCI conv3", simulated, organism, CHANNELS, 16.0, 32)
    return atlas.page(proteins, atlas.cut_crops(dataset, names, plans=[(2, 32, 75)]), facts, dataset.table), dataset


class Elements(HTMLParser):
    """Collects tags with their attributes, and what stands in scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {}
        self._now = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._now = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.inside[self._now] = self.inside.get(self._now, "") + data


def data_of(text: str) -> dict[str, Any]:
    return dict(json.loads(Elements(text).inside["data"]))


def clouds(n: int = 24, cells: int = 5) -> anndata.AnnData:
    """Cells of n proteins around three places, three cell lines, two of the proteins in two locations."""
    rng = np.random.default_rng(1)
    protein = np.repeat([f"P{i:02d}" for i in range(n)], cells)
    x = 6 * rng.normal(size=(3, 8))[np.repeat(np.arange(n) % 3, cells)] + rng.normal(size=(n, 8)).repeat(cells, 0)
    obs = pd.DataFrame({"protein": protein, "location": np.repeat([f"l{i % 3}" for i in range(n)], cells)})
    obs["cell_line"] = np.where(np.arange(len(obs)) % cells < 3, "U-2 OS", "HeLa")
    obs["ensembl"] = "E" + obs["protein"]
    obs.loc[0, "location"] = "l0;extra"
    return anndata.AnnData(x.astype(np.float32), obs=obs.set_index(pd.Index([f"c{i}" for i in range(len(obs))])))


def flat(adata: anndata.AnnData, **settings: Any) -> np.ndarray:
    """The first two features in the place of a UMAP, which takes half a minute to load."""
    assert settings["n_neighbors"] < adata.n_obs
    return np.asarray(adata.X)[:, :2].copy()


@pytest.fixture
def no_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atlas.embed, "umap", flat)


@pytest.fixture(scope="module")
def laid_out() -> Iterator[anndata.AnnData]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atlas.embed, "umap", flat)
        yield atlas.lay_out(clouds(), min_size=5)


# --- proteins


def test_neighbours_are_the_nearest_means_in_scaled_features(laid_out: anndata.AnnData) -> None:
    x = np.asarray(laid_out.X, float)
    x = (x - x.mean(0)) / x.std(0)
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (laid_out.obsm["neighbours"] == np.argsort(distance, axis=1)[:, :10]).all()
    usual = np.median(distance[np.triu_indices(24, 1)])
    nearest = np.sort(distance, axis=1)[:, :10] / usual
    # the median is of 20,000 drawn pairs of the 276: within a few percent
    np.testing.assert_allclose(laid_out.obsm["distances"], nearest, rtol=0.05)


def test_clusters_map_and_settings(laid_out: anndata.AnnData) -> None:
    assert laid_out.obsm["X_umap"].shape == (24, 2) and np.isfinite(laid_out.obsm["X_umap"]).all()
    groups = laid_out.obs["cluster"].to_numpy()
    assert len(set(zip(groups, np.arange(24) % 3, strict=True))) == len(set(groups)) == 3
    assert laid_out.uns["map"] == {
        "n_neighbors": 20,
        "min_dist": 0.3,
        "seed": 0,
        "linkage": "average",
        "metric": "correlation",
        "min_size": 5,
    }


def test_what_is_known_of_a_protein_is_gathered_from_its_cells(laid_out: anndata.AnnData) -> None:
    assert laid_out.obs.loc["P00", "location"] == "l0;extra" and laid_out.obs.loc["P01", "location"] == "l1"
    assert laid_out.obs.loc["P03", "ensembl"] == "EP03"
    assert laid_out.obsm["cell_lines"].loc["P05"].to_dict() == {"HeLa": 2, "U-2 OS": 3}


@pytest.mark.slow
def test_few_proteins_have_all_others_as_neighbours() -> None:
    proteins = atlas.lay_out(clouds(6))  # a real UMAP
    assert proteins.obsm["X_umap"].shape == (6, 2) and np.isfinite(proteins.obsm["X_umap"]).all()
    assert proteins.uns["map"]["n_neighbors"] == 5 and proteins.obsm["neighbours"].shape == (6, 5)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(AnalysisNeedsError, match="at least 5 proteins, found 4"):
        atlas.lay_out(clouds(4))
    folds = clouds()
    folds.obsm["fold_0"] = np.asarray(folds.X)
    with pytest.raises(AnalysisNeedsError, match="another space in each fold"):
        atlas.lay_out(folds)


# --- crops


def test_crops_show_all_channels_above_the_protein(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells(images=3, cells=6, side=32)
    crops = atlas.cut_crops(dataset, ["P0", "P1", "P2"])
    assert crops.px == 32 and [len(r) for r in crops.rows] == [4, 4, 4]  # never enlarged to the plan's 64
    assert all((dataset.table["protein"].to_numpy()[r] == f"P{i}").all() for i, r in enumerate(crops.rows))
    picture = np.asarray(Image.open(io.BytesIO(crops.strips[1])).convert("RGB"), int)
    assert picture.shape == (64, 128, 3)
    grey = picture[32:]
    assert np.percentile(np.ptp(grey[2:], axis=2), 99) <= 8  # WebP is lossy, but grey stays grey, save where the colours above end
    plane = dataset.read(crops.rows[1][2:3])[0, 0].astype(float)
    shown = grey[:, 64:96, 0]
    assert np.corrcoef(plane.ravel(), shown.ravel())[0, 1] > 0.95  # stretched and compressed, but this very cell


def test_size_and_number_of_crops_follow_the_budget(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells(images=5, cells=6, side=32)
    names = [f"P{i}" for i in range(5)]
    plans = ((4, 32, 80), (2, 32, 80), (1, 16, 50))
    full = atlas.cut_crops(dataset, names, plans=plans)
    size = sum(map(len, full.strips))
    half = atlas.cut_crops(dataset, names, plans=plans, budget=size - 1)
    assert [len(r) for r in half.rows] == [2] * 5 and sum(map(len, half.strips)) < size
    least = atlas.cut_crops(dataset, names, plans=plans, budget=1)
    assert least.px == 16 and [len(r) for r in least.rows] == [1] * 5


def test_scale_bar_is_a_round_length_of_about_a_fifth() -> None:
    facts = atlas.Facts("", "", "", False, "", CHANNELS, 40.96, 64)
    bar = atlas._scale_bar(facts)
    assert bar["bar_label"] == "5 µm" and bar["bar"] == pytest.approx(5 / 40.96)
    assert atlas._scale_bar(atlas.Facts("", "", "", False, "", CHANNELS, None, 64))["bar_label"] == "10 px"


# --- page


def test_no_name_becomes_markup_or_script(tmp_path: Path) -> None:
    plain, _ = made_up_atlas(tmp_path / "plain", [f"P{i}" for i in range(len(HOSTILE))])
    text, _ = made_up_atlas(tmp_path / "hostile", HOSTILE)
    assert data_of(text)["names"] == HOSTILE
    assert [t for t, _ in Elements(text).tags] == [t for t, _ in Elements(plain).tags]
    assert "<title>Protein atlas: Made-up &lt;cells&gt; (simulated cells)</title>" in text


def test_page_stands_alone(tmp_path: Path) -> None:
    text, _ = made_up_atlas(tmp_path / "cells", [f"P{i}" for i in range(8)])
    for _, attributes in Elements(text).tags:
        for key in ("src", "href", "srcset", "action"):
            assert attributes.get(key, "data:,") == "data:,"
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(|\beval\(|innerHTML", text)
    assert "default-src 'none'" in text


def test_page_tells_what_is_shown(tmp_path: Path) -> None:
    text, dataset = made_up_atlas(tmp_path / "cells", [f"P{i}" for i in range(260)], simulated=False, organism="scerevisiae")
    data = data_of(text)
    assert "(real cells)" in text and not data["simulated"] and not data["atlas"]
    assert [s["key"] for s in data["schemes"]] == ["location", "cluster", "cell_line"]
    location = data["schemes"][0]
    assert location["classes"] == list("abcdeghij") and location["codes"][0] == [0, 1] and location["codes"][259] == []
    assert data["schemes"][1]["codes"][:4] == [[], [0], [1], []]
    xy = np.reshape(data["xy"], (-1, 2))
    assert np.ptp(xy[:, 0]) == pytest.approx(1, abs=1e-4) and np.ptp(xy[:, 1]) == pytest.approx(0.5, abs=1e-4)  # one scale for both axes
    found = Elements(text).inside
    offset = sum(data["crop_chars"][256:258])  # protein 258 is the third of the second portion
    import base64

    strip = base64.b64decode(found["crops-1"][offset : offset + data["crop_chars"][258]])
    assert Image.open(io.BytesIO(strip)).size == (2 * 32, 2 * 32)
    ids = dataset.table.set_index("cell_id")["protein"]
    assert {ids[cell] for cell, _ in data["crop_cells"][258]} == {"P258"}


# --- from a recipe


@pytest.fixture
def eight_proteins(own_recipe: Path, tmp_path: Path) -> Run:
    fields = pd.read_csv(own_recipe.parent / "fields.csv")
    fields["image"] = fields["field"]
    fields["protein"] = [f"G{i}" for i in range(len(fields))]
    fields["location"] = ["a", "b"] * 4
    fields.to_csv(own_recipe.parent / "fields.csv", index=False)
    return Run(own_recipe, tmp_path / "runs", jobs=1, quiet=True)


@pytest.mark.usefixtures("no_umap")
def test_atlas_is_made_once_and_again_when_something_changes(eight_proteins: Run, tmp_path: Path) -> None:
    first = atlas.make(eight_proteins, "pixels")
    assert first == eight_proteins.folder / "atlas_pixels.html" and data_of(first.read_text())["names"][0] == "G0"
    made = first.stat().st_mtime_ns
    copied = atlas.make(eight_proteins, "pixels", tmp_path / "elsewhere" / "atlas.html")
    assert copied.read_bytes() == first.read_bytes() and first.stat().st_mtime_ns == made
    assert atlas.make(eight_proteins, "pixels", seed=1).stat().st_mtime_ns > made


def test_recipe_without_enough_proteins_is_refused(own_recipe: Path, tmp_path: Path) -> None:
    run = Run(own_recipe, tmp_path / "runs", jobs=1, quiet=True)
    with pytest.raises(AnalysisNeedsError, match="at least 5 proteins, own has 2"):
        atlas.make(run, "pixels")
    assert not list(run.folder.glob("atlas*"))


def test_cells_without_proteins_are_refused(own_recipe: Path, tmp_path: Path) -> None:
    fields = pd.read_csv(own_recipe.parent / "fields.csv").rename(columns={"protein": "location"})
    fields.to_csv(own_recipe.parent / "fields.csv", index=False)
    own_recipe.write_text(own_recipe.read_text().replace('label = "protein"', 'label = "location"'))
    with pytest.raises(AnalysisNeedsError, match="the protein atlas needs the column 'protein'"):
        atlas.make(Run(own_recipe, tmp_path / "runs", jobs=1, quiet=True), "pixels")
