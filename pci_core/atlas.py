"""The protein atlas: one self-contained page with a map of all proteins, their crops and their nearest neighbours.

The page needs no server and no other host: data, pictures, style and script are in the one file. Its parts lie in
``atlas_page``. The pictures come last in the file, so that the map can be used before all of them are read.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from PIL import Image
from PIL import features as pillow

from pci_core.analysis import clusters, embed, knn, trees
from pci_core.cells import CellDataset, Channel
from pci_core.errors import AnalysisNeedsError
from pci_core.features import aggregate
from pci_core.notebook import Notebook, require_columns
from pci_core.plots import style
from pci_core.plots.gallery import draw_cells
from pci_core.plots.images import composite
from pci_core.provenance import in_html, record
from pci_core.recipe import Recipe
from pci_core.run import Run
from pci_core.storage import atomic_path, content_hash, file_sha256, write_text

CODE = 1  # raise it when what is on the page changes; its template, style and script are looked at by themselves
FEWEST = 5  # proteins; fewer are no map
NEIGHBOURS = 10
# crops a protein, their side in px, quality of WebP: the first that keeps all pictures within the budget
PLANS = ((4, 64, 88), (4, 64, 75), (3, 64, 75), (2, 64, 75), (2, 48, 70), (1, 64, 75), (1, 64, 60), (1, 48, 60), (1, 32, 50))
BUDGET = 27_000_000  # bytes of pictures; base64 makes 36 MB of them
_CHUNK = 256  # proteins whose pictures stand in one element of the page
_PARTS = ("atlas.html", "atlas.css", "base.js", "marks.js", "map.js", "atlas.js")
_MAP_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILLION, style.BLACK)  # as in plots.maps


@dataclass(frozen=True)
class Crops:
    """Pictures of some cells of each protein.

    Attributes
    ----------
    px : int
        Side of a crop.
    strips : list of bytes
        One WebP a protein: its crops side by side, all channels in colour above, the protein alone below.
    rows : list of ndarray
        The cells shown, as rows of the dataset.
    """

    px: int
    strips: list[bytes]
    rows: list[np.ndarray]


@dataclass(frozen=True)
class Facts:
    """What the page says beside its proteins.

    Attributes
    ----------
    title : str
        Of the recipe.
    recipe, features : str
        Names of the recipe and, for reading, of the feature set.
    simulated : bool
    organism : str
        ``"hsapiens"`` gets links to proteinatlas.org.
    channels : sequence of Channel
    crop_um : float or None
        Side of a crop in µm, None where the source does not tell.
    crop_px : int
        Side of a crop in px of the cells.
    """

    title: str
    recipe: str
    features: str
    simulated: bool
    organism: str
    channels: Sequence[Channel]
    crop_um: float | None
    crop_px: int


def make(run: Run, features: str = "conv3", out: Path | None = None, *, seed: int = 0) -> Path:
    """Write the atlas of a recipe's proteins, or find it as it was written before.

    Parameters
    ----------
    run : Run
    features : str
        A feature set by name, or a user's own table of the same cells; made on first use.
    out : Path, optional
        Where the page shall lie; by default ``runs/<recipe>/atlas_<features>.html``.
    seed : int
        Of the map and of the choice of crops.

    Returns
    -------
    Path

    Raises
    ------
    AnalysisNeedsError
        The cells have no proteins or fewer than five, or the features are those of a cross-validated supervised
        network: they have another space in each fold, so that means of a protein cannot be compared.
    """
    notebook = Notebook("atlas", run, features, seed)
    dataset = notebook.dataset
    require_columns("the protein atlas", dataset, ["protein"])
    n = dataset.table["protein"].replace("", np.nan).nunique()
    if n < FEWEST:
        raise AnalysisNeedsError(f"the protein atlas needs at least {FEWEST} proteins, {run.recipe.name} has {n}. Take a recipe with more.")
    inputs: dict[str, Any] = {"dataset": dataset.sha256, "seed": seed, "code": CODE, "page": content_hash([_part(p) for p in _PARTS])}
    inputs["recipe"] = [run.recipe.title, run.recipe.simulated, run.recipe.organism, run.recipe.label]
    if notebook.own_table:
        stem, inputs["features"] = notebook.set_name, file_sha256(features)
    else:
        stem = run.feature_files(features)[features].stem
        stamp = run.steps.stamp(f"features/{stem}")
        inputs["features"] = stamp["made_from"] if stamp else ""
    kept = run.folder / f"atlas_{stem}.html"

    def work() -> None:
        if not run.quiet:
            print(f"Making the atlas of {n:,} proteins of {run.recipe.name} from {notebook.set_label}", flush=True)
        proteins = lay_out(notebook.cells, label=_label(run.recipe, dataset.table), seed=seed)
        crops = cut_crops(dataset, list(proteins.obs_names), seed=seed)
        side = dataset.crops.shape[3]
        um = side * dataset.um_per_px if dataset.um_per_px else None
        facts = Facts(run.recipe.title or run.recipe.name, run.recipe.name, notebook.set_label, run.recipe.simulated, run.recipe.organism,
                      dataset.channels, um, side)  # fmt: skip
        with run.recording(seed=seed, settings={"features": notebook.set_name}):
            write_text(kept, in_html(page(proteins, crops, facts, dataset.table), record("atlas", kept.stem)))

    run.steps.make(kept.stem, inputs, [kept], work)
    if out is None or Path(out).resolve() == kept.resolve():
        return kept
    with atomic_path(out) as temporary:
        shutil.copyfile(kept, temporary)
    return Path(out)


def _label(recipe: Recipe, table: pd.DataFrame) -> str:
    """Return the column of the locations: ``location``, or what the recipe predicts where there is none; may be empty."""
    fit = [c for c in ("location", recipe.label) if c in table and c not in ("protein", "image", "cell_id")]
    return next((c for c in fit if (table[c].astype(str) != "").any()), "")


def lay_out(cells: anndata.AnnData, *, label: str = "location", seed: int = 0, min_size: int = 3) -> anndata.AnnData:
    """Average the cells of each protein, lay the proteins out in a plane, cluster them and find their nearest neighbours.

    Parameters
    ----------
    cells : AnnData
        (cells, features) with ``protein`` in obs.
    label : str
        Column of the locations, terms joined by ``;``; empty for none. A protein has every term that one of its cells has.
    seed : int
        Of the map.
    min_size : int
        The fewest proteins of a cluster, see `pci_core.analysis.clusters.cut`.

    Returns
    -------
    AnnData
        (proteins, features), sorted by name. obs: ``n_cells``, ``cluster`` (0 = none), ``location`` and ``ensembl``
        where known. obsm: ``X_umap`` (proteins, 2), ``neighbours`` (proteins, up to 10) rows, nearest first,
        ``distances`` to them in units of the median distance of two proteins, ``cell_lines`` (DataFrame of cell
        counts) where known. ``uns["map"]``: what the map was made with.

    Raises
    ------
    AnalysisNeedsError
        Fewer than five proteins, or features of a cross-validated supervised network.
    CellTableError
        NaN or infinite features, or none that differs between proteins.
    """
    if "fold_0" in cells.obsm:
        raise AnalysisNeedsError(
            "the protein atlas compares means of proteins, but a cross-validated supervised set has another space in each fold. "
            "Take another feature set."
        )
    proteins = aggregate(cells, by="protein")
    n = proteins.n_obs
    if n < FEWEST:
        raise AnalysisNeedsError(f"the protein atlas needs at least {FEWEST} proteins, found {n}.")
    settings = {"n_neighbors": min(20, n - 1), "min_dist": 0.3}
    proteins.obsm["X_umap"] = embed.umap(proteins, **settings, seed=seed)  # type: ignore[arg-type]
    x = knn.standardise(np.asarray(proteins.X))
    near = knn.neighbours(x, min(NEIGHBOURS, n - 1))
    pairs = np.random.default_rng(seed).integers(0, n, (2, 20_000))
    pairs = pairs[:, pairs[0] != pairs[1]]
    usual = float(np.median(np.linalg.norm(x[pairs[0]] - x[pairs[1]], axis=1)))
    proteins.obsm["neighbours"] = near
    proteins.obsm["distances"] = np.stack([np.linalg.norm(x[near[:, j]] - x, axis=1) for j in range(near.shape[1])], 1) / (usual or 1.0)
    metric = "correlation" if proteins.n_vars > 2 and np.ptp(x, axis=1).all() else "euclidean"  # as in notebook 04, where there is one
    tree = trees.grow(x, list(proteins.obs_names), metric=metric)
    size = min(min_size, n)
    proteins.obs["cluster"] = clusters.cut(tree, min_size=size)
    own = cells.obs.assign(**{c: cells.obs[c].astype(str) for c in ("protein", "cell_line", "ensembl", label) if c in cells.obs})
    own = own[own["protein"] != ""]
    for column in (label, "ensembl"):
        if column and column in own:
            terms = own.groupby("protein", sort=True)[column].agg(_terms)
            proteins.obs["location" if column == label else column] = terms.loc[list(proteins.obs_names)].to_numpy()
    if "cell_line" in own and (own["cell_line"] != "").any():
        lines = pd.crosstab(own["protein"], own["cell_line"]).loc[list(proteins.obs_names)]
        proteins.obsm["cell_lines"] = lines.drop(columns=[""], errors="ignore").rename_axis(None).rename_axis(None, axis=1)
    proteins.uns["map"] = {**settings, "seed": seed, "linkage": tree.linkage, "metric": tree.metric, "min_size": size}
    return proteins


def _terms(values: pd.Series) -> str:
    """Return every term that a cell has, the most frequent first; most proteins have one set of terms."""
    count: Counter[str] = Counter()
    for text, times in values.value_counts().items():
        for term in str(text).split(";"):
            count[term.strip()] += times
    return ";".join(t for t, _ in count.most_common() if t)


def cut_crops(
    dataset: CellDataset, names: Sequence[str], *, seed: int = 0, plans: Sequence[tuple[int, int, int]] = PLANS, budget: int = BUDGET
) -> Crops:
    """Draw some cells of each protein, from as many images as possible, and write them as small pictures.

    How many, how large and at what quality is the first of `plans` that stays within the budget, judged by up to 60
    of the proteins; the last where none does. Crops are never enlarged.

    Parameters
    ----------
    dataset : CellDataset
    names : sequence of str
        The proteins.
    seed : int
        Of the choice of cells.
    plans : sequence of (int, int, int)
        Crops a protein, side in px, quality.
    budget : int
        Bytes of all pictures.
    """
    if not pillow.check("webp"):
        raise AnalysisNeedsError(
            "the protein atlas writes its pictures as WebP, which the installed Pillow cannot. Install Pillow's own wheel."
        )
    table = dataset.table["protein"].to_numpy()
    order = np.argsort(table, kind="stable")
    starts = np.searchsorted(table[order], [*names], side="left"), np.searchsorted(table[order], [*names], side="right")
    most = max(p[0] for p in plans)
    rows = [draw_cells(dataset, np.sort(order[a:b]), most, seed) for a, b in zip(*starts, strict=True)]
    sample = np.random.default_rng(seed).permutation(len(names))[:60]
    for n, side, quality in plans:
        px = min(side, dataset.crops.shape[3])
        tried = [len(_strip(dataset, rows[i][:n], px, quality)) for i in sample]
        if np.mean(tried) * len(names) <= budget:
            break
    rows = [r[:n] for r in rows]
    return Crops(px, [_strip(dataset, r, px, quality) for r in rows], rows)


def _strip(dataset: CellDataset, rows: np.ndarray, px: int, quality: int) -> bytes:
    out = Image.new("RGB", (px * len(rows), 2 * px))
    for i, crop in enumerate(dataset.read(rows)):
        plane = crop[: dataset.n_protein].astype(float).max(axis=0)
        low, high = np.percentile(plane, [0.5, 99.9])
        grey = np.repeat(np.clip((plane - low) / max(high - low, 1e-9), 0, 1)[..., None], 3, axis=2)
        for j, picture in enumerate((composite(crop, dataset.channels, 0.5, 99.9), grey)):
            tile = Image.fromarray(np.round(picture * 255).astype(np.uint8))
            out.paste(tile if tile.size == (px, px) else tile.resize((px, px), Image.Resampling.LANCZOS), (i * px, j * px))
    file = io.BytesIO()
    out.save(file, "WEBP", quality=quality, method=4)
    return file.getvalue()


def page(proteins: anndata.AnnData, crops: Crops, facts: Facts, table: pd.DataFrame) -> str:
    """Write the page.

    Parameters
    ----------
    proteins : AnnData
        As from `lay_out`.
    crops : Crops
        In the order of the proteins.
    facts : Facts
    table : DataFrame
        Cell table that ``crops.rows`` point into.

    Returns
    -------
    str
        HTML; no name in it can become markup or script.
    """
    coded = [base64.b64encode(strip).decode() for strip in crops.strips]
    data = _data(proteins, crops, facts, table) | {"crop_chars": [len(c) for c in coded], "crop_chunk": _CHUNK}
    chunks = ["".join(coded[i : i + _CHUNK]) for i in range(0, len(coded), _CHUNK)]
    kind = "simulated" if facts.simulated else "real"
    parts = {
        "title": escape(f"Protein atlas: {facts.title} ({kind} cells)"),
        "style": _part("atlas.css"),
        "data": as_script_text(data),
        "script": "\n".join(_part(p) for p in _PARTS if p.endswith(".js")),
        "crops": "\n".join(f'<script type="text/plain" id="crops-{i}">{c}</script>' for i, c in enumerate(chunks)),
    }
    # in one pass, so that nothing in the data is taken for a place to fill
    return re.sub(r"<!--\{(\w+)\}-->", lambda m: parts[m[1]], _part("atlas.html"))


def as_script_text(data: Mapping[str, Any]) -> str:
    """Return JSON that can stand inside a script element, whatever the names in it are."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _part(name: str) -> str:
    return (resources.files("pci_core") / "atlas_page" / name).read_text(encoding="utf-8")


def _data(proteins: anndata.AnnData, crops: Crops, facts: Facts, table: pd.DataFrame) -> dict[str, Any]:
    plane = np.asarray(proteins.obsm["X_umap"], float)
    low, extent = plane.min(axis=0), np.ptp(plane, axis=0)
    plane = (plane - low - extent / 2) / (extent.max() or 1.0)  # one scale for both axes, centred, y upwards as in a figure
    plane[:, 1] *= -1
    names = [str(n) for n in proteins.obs_names]
    out: dict[str, Any] = {
        "title": facts.title, "recipe": facts.recipe, "features": facts.features, "simulated": facts.simulated,
        "atlas": facts.organism == "hsapiens", "names": names, "xy": [round(float(v), 5) for v in plane.ravel()],
        "n_cells": [int(v) for v in proteins.obs["n_cells"]], "near": proteins.obsm["neighbours"].tolist(),
        "far": np.round(proteins.obsm["distances"], 3).tolist(), "map": dict(proteins.uns["map"]),
        "colours": list(_MAP_COLOURS), "n_features": proteins.n_vars,
    }  # fmt: skip
    if "ensembl" in proteins.obs and (proteins.obs["ensembl"] != "").any():
        out["ids"] = [str(v).split(";")[0] for v in proteins.obs["ensembl"]]
    schemes = []
    locations = [str(v).split(";") if v else [] for v in proteins.obs["location"]] if "location" in proteins.obs else []
    if any(locations):
        terms = sorted({t for own in locations for t in own}, key=_by_number)
        code = {t: i for i, t in enumerate(terms)}
        schemes.append({"key": "location", "label": "Location", "classes": terms, "codes": [[code[t] for t in own] for own in locations]})
    cluster = proteins.obs["cluster"].to_numpy(int)
    about = [_cluster_name(c, np.flatnonzero(cluster == c), locations) for c in range(1, cluster.max() + 1)]
    if about or not schemes:
        schemes.append({"key": "cluster", "label": "Cluster", "classes": about, "codes": [[int(c) - 1] if c else [] for c in cluster]})
    lines: list[str] = []
    if "cell_lines" in proteins.obsm:
        counts = proteins.obsm["cell_lines"]
        lines = [str(c) for c in counts]
        count = counts.to_numpy()
        out["lines"] = [[[int(j), int(row[j])] for j in np.argsort(-row, kind="stable") if row[j]] for row in count]
        if len(lines) > 1:
            codes = [[int(row.argmax())] if row.any() else [] for row in count]
            schemes.append({"key": "cell_line", "label": "Cell line", "classes": lines, "codes": codes})
    out["schemes"], out["line_names"] = schemes, lines
    out["crops"] = {"px": crops.px, **_scale_bar(facts), "colours": _channel_colours(facts.channels)}
    line = [lines.index(v) if v in lines else -1 for v in table["cell_line"]] if lines else [-1] * len(table)
    ids = table["cell_id"].astype(str).to_numpy()
    out["crop_cells"] = [[[str(ids[r]), line[r]] for r in rows] for rows in crops.rows]
    return out


def _by_number(text: str) -> list[tuple[int, str]]:
    """Return what sorts class 2 before class 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part.casefold()) for part in re.split(r"(\d+)", text) if part]


def _cluster_name(number: int, members: np.ndarray, locations: Sequence[Sequence[str]]) -> str:
    """Return what the legend says of a cluster: its number and the term that most of its proteins have."""
    count = Counter(t for i in members for t in locations[i]) if locations else Counter()
    if not count:
        return f"Cluster {number}"
    term, n = min(count.items(), key=lambda item: (-item[1], item[0]))
    return f"Cluster {number}: {term} ({n} of {len(members)})"


def _scale_bar(facts: Facts) -> dict[str, Any]:
    """Return the length of a scale bar of about a fifth of a crop, as a share of its side, with its label."""
    side, unit = (facts.crop_um, "µm") if facts.crop_um else (float(facts.crop_px), "px")
    length = max((v for p in range(-1, 4) for v in (10**p, 2 * 10**p, 5 * 10**p) if v <= side / 5), default=side / 5)
    return {"bar": length / side, "bar_label": f"{length:g} {unit}", "side_label": f"{side:.3g} {unit}"}


def _channel_colours(channels: Sequence[Channel]) -> list[list[str]]:
    structural = iter(style.STRUCTURAL)
    rgb = [(c.name, style.PROTEIN if c.role == "protein" else next(structural)) for c in channels]
    return [[name, "#" + "".join(f"{round(255 * v / max(colour)):02x}" for v in colour)] for name, colour in rgb]
