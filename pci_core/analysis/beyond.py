"""The scorecard: all measures of a feature set in one table.

Nothing is measured here that the analyses of the notebooks 02 to 07 do not measure; this calls them with the notebooks' defaults, so
that a variant is told by the same figures everywhere. `pci_core.analysis.variants` puts such tables beside one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import anndata
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from pci_core.analysis import cell_lines, cluster_scores, clusters, fractions, multilocalization, neighbours, retrieval, variability
from pci_core.analysis import variability_truth as vary
from pci_core.analysis.benchmark import benchmark
from pci_core.analysis.nuisance import location_accuracy, nuisance, readable
from pci_core.analysis.paper import PAPER_K
from pci_core.analysis.selection import has_one_term, independent_groups, label_text, shared
from pci_core.analysis.variants import COLUMNS, compare
from pci_core.errors import AnalysisNeedsError, CellTableError, UnknownNameError
from pci_core.features import aggregate
from pci_core.recipe import Recipe

__all__ = ["COLUMNS", "PAIRS", "compare", "scorecard"]

MORE, LESS = "more", "less"
PAIRS = (("Cytosol", "Nucleoplasm"), ("Nucleoli", "Nucleoplasm"))
RIM, SCORE, MIN_SIZE = "Nucleoli rim", "combined", 3  # notebooks 05, 07 and 04
MULTI = ("paper", "ratio", "discriminant")  # the paper's score, the same without the own protein, and the best of notebook 06
WAYS = ("cells of both", "with cells of one alone")
KNN = "kNN, own {} left out"
_NEEDS = (AnalysisNeedsError, CellTableError, UnknownNameError)  # what an analysis raises where the cells do not allow it
Row = dict[str, Any]


def scorecard(adata: anndata.AnnData, recipe: Recipe, *, seed: int = 0, draws: int = 200) -> pd.DataFrame:
    """Score one feature set by every measure that its cells allow.

    Parameters
    ----------
    adata : AnnData
        (cells, features), finite.
    recipe : Recipe
        Of the cells: which column is predicted, and whose cells are left out together.
    seed, draws : int
        Of folds, pairs and bootstraps.

    Returns
    -------
    DataFrame
        One row a measure: ``measure``; ``value, low, high`` (95 % intervals over proteins, or images where there are none; NaN
        where there is none); ``better`` (``more`` or ``less``); ``n_cells, n_proteins`` (0 where proteins are not known);
        ``note``. ``attrs["left_out"]`` says of each measure that is missing why.

    Raises
    ------
    CellTableError
        NaN or infinite features.
    """
    if not np.isfinite(np.asarray(adata.X)).all():
        raise CellTableError("the feature set holds NaN or infinite values; leave out those columns or cells first.")
    left_out: dict[str, str] = {}
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "kNN": lambda: _knn(adata, recipe, seed, draws, left_out),
        "images of one location": lambda: _lines(adata, recipe, seed, draws),
        "rim average precision": lambda: _rim(adata, seed, draws),
        **{f"Spearman, {a} and {b}": lambda a=a, b=b: _fractions(adata, recipe, a, b, seed, draws) for a, b in PAIRS},  # type: ignore[misc]
        "variability average precision": lambda: _variability(adata, seed, draws),
        "clusters, adjusted Rand index": lambda: _clusters(adata, seed, draws),
        "nuisance R²": lambda: _nuisance(adata, seed, draws),
        "location of fields": lambda: _location(adata, recipe, seed, draws),
    }
    rows: list[Row] = []
    for name, part in parts.items():
        try:
            # on one thread: several wait for one another in many small systems of equations, for minutes where other work runs beside
            with threadpool_limits(1):
                found = list(part())  # all or none of its rows
        except _NEEDS as error:
            left_out[name] = str(error)
            continue
        rows += [r for r in found if np.isfinite(r["value"])]
        left_out |= {
            r["measure"]: f"it has no value: no feature tells these cells apart ({r['note']})."
            for r in found
            if not np.isfinite(r["value"])
        }
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"n_cells": "int64", "n_proteins": "int64"})
    table.attrs["left_out"] = left_out
    return table


def _row(measure: str, found: Sequence[float], better: str, n_cells: int, n_proteins: int, note: str) -> Row:
    return dict(zip(COLUMNS, (measure, *found, better, n_cells, n_proteins, note), strict=True))


def _knn(adata: anndata.AnnData, recipe: Recipe, seed: int, draws: int, left_out: dict[str, str]) -> Iterator[Row]:
    """Notebook 02: kNN, k = 11, balanced accuracy."""
    label, obs = recipe.label, adata.obs
    _need(obs, label, "image")
    unit = independent_groups(obs[has_one_term(obs[label])], label)
    group = unit if recipe.group in ("", unit) else f"{unit} or {recipe.group}"
    if group != unit:  # crops that reuse a cell must not vote for one another, wherever they lie
        adata = anndata.AnnData(np.asarray(adata.X), obs=obs.assign(**{group: shared(obs, unit, recipe.group).astype(str)}), uns=adata.uns)
    settings: dict[str, Any] = {"group": group, "ks": [PAPER_K], "classifiers": ["knn"], "seed": seed, "draws": draws, "quiet": True}
    try:
        _need(obs, "protein")
        if label == "protein":
            raise AnalysisNeedsError("the protein itself is predicted.")
        found = benchmark({"": adata}, label, leave_out_protein=True, **settings)
    except _NEEDS as error:
        left_out[KNN.format("protein")] = str(error)
        found = benchmark({"": adata}, label, **settings)
    classes, n_cells = found.settings["classes"], found.settings["n_cells"]
    n_proteins = _proteins(obs[label_text(obs[label]).isin(classes)])
    leaks = "".join(f"; {why}" for why in found.omitted["why"] if str(why).startswith("LEAK"))
    for r in found.scores.itertuples():
        also = f"; own {group} left out" if r.left_out == group != unit else ""
        note = f"{len(classes)} classes of '{label}', k = {r.k}, chance {1 / len(classes):.3f}{also}{leaks}"
        yield _row(KNN.format(unit if r.left_out == group else r.left_out), (r.accuracy, r.low, r.high), MORE, n_cells, n_proteins, note)


def _lines(adata: anndata.AnnData, recipe: Recipe, seed: int, draws: int) -> Iterator[Row]:
    """Notebook 03: the paper's table 2."""
    _need(adata.obs, "cell_line")
    found = cell_lines.robustness(adata, draws=draws, seed=seed)
    used = found.terms.iloc[-1]  # of all locations
    for r in found.lines.itertuples():
        note = "standard deviations from pairs of different locations" + ("; the drop" if r.what == cell_lines.DIFFERENCE else "")
        yield _row(f"images of one location, {r.what}", (r.value, r.low, r.high), LESS, used["n_cells"], used["n_proteins"], note)


def _rim(adata: anndata.AnnData, seed: int, draws: int) -> Iterator[Row]:
    """Notebook 05: proteins of the nucleolar rim, searched from MKI67 and from each other."""
    _need(adata.obs, "protein", "location")
    proteins = aggregate(adata)
    rows = neighbours.find(proteins.obs_names, neighbours.PAPER_QUERY)
    terms = neighbours.locations(adata)
    member = neighbours.members(terms, RIM)
    good, told = retrieval.can_score(member, rows, terms, RIM)
    if not good:
        raise AnalysisNeedsError(told)
    space, n_cells = neighbours.space(proteins), int(proteins.obs["n_cells"].sum())
    table = retrieval.score(neighbours.ranks(space, rows), member, draws=draws, seed=seed).set_index("what")
    one = table.loc["average precision"]
    note = f"in the dendrogram from {neighbours.PAPER_QUERY}, {one['n_members']:.0f} to find, chance {one['chance']:.2f}"
    yield _row("rim average precision", (one["value"], one["low"], one["high"]), MORE, n_cells, len(space), note)
    each = retrieval.each_as_query(space, member, seed=seed)
    found = retrieval.mean_interval(each["average_precision"], draws=draws, seed=seed)
    note = f"in the dendrogram, mean of {len(each)} queries, chance {each['chance'].iloc[0]:.2f}"
    yield _row("rim average precision, every rim protein as query", found, MORE, n_cells, len(space), note)


def _fractions(adata: anndata.AnnData, recipe: Recipe, first: str, second: str, seed: int, draws: int) -> Iterator[Row]:
    """Notebook 06: rank correlation of a score with the known share in the second location."""
    _need(adata.obs, "location", "image")
    scores = multilocalization.score(adata, first, second, group=recipe.group, seed=seed)
    ways = {"both": (WAYS[0], MULTI), "all": (WAYS[1], MULTI[1:])}  # a cell of one alone is in the means of the paper's score: a leak
    table = [fractions.agreement(scores, names=n, ways=[(w, "cells")], draws=draws, seed=seed) for w, (_, n) in ways.items()]
    found = pd.concat(table)
    if not len(found):
        raise AnalysisNeedsError(f"no cell of '{first}' and '{second}' has a known fraction, as simulated cells have.")
    for r in found.itertuples():
        part = scores[(scores["set"] == "both") | (r.cells == "all")]
        way = ways[r.cells][0]
        note = f"{way}, {r.score}: {multilocalization.SCORES[r.score].format(unit=scores.attrs['unit'])}; at most {r.highest:.3f}"
        name = f"Spearman, {first} and {second}, {way}, {r.score}"
        yield _row(name, (r.spearman, r.low, r.high), MORE, r.n_cells, _proteins(part), note)


def _variability(adata: anndata.AnnData, seed: int, draws: int) -> Iterator[Row]:
    """Notebook 07: finding the proteins that vary from cell to cell."""
    _need(adata.obs, "protein")
    truth = vary.known_variation(adata.obs)
    if truth is None:
        raise AnalysisNeedsError("it is not known which of these proteins vary from cell to cell.")
    images = variability.image_scores(adata)
    found = vary.detection(variability.protein_scores(images, SCORE), truth, names=[SCORE], draws=draws, seed=seed)
    if not len(found):
        raise AnalysisNeedsError("either all or none of these proteins vary from cell to cell, so that none can be found among others.")
    r = found[found["kind"] == "any"].iloc[0]
    note = f"score {SCORE}, any kind, {r['n_variable']} vary, chance {r['chance']:.2f}"
    yield _row("variability average precision", (r["ap"], r["low"], r["high"]), MORE, int(images["n_cells"].sum()), r["n_proteins"], note)


def _clusters(adata: anndata.AnnData, seed: int, draws: int) -> Iterator[Row]:
    """Notebook 04: clusters of proteins against their locations."""
    _need(adata.obs, "protein")
    found = clusters.cluster_proteins(adata, min_size=MIN_SIZE)
    places = cluster_scores.locations(found)
    if places is None:
        raise AnalysisNeedsError("clusters are compared with locations, and these proteins do not have two of one term each.")
    fit = cluster_scores.agreement(found.labels, places, draws=draws, seed=seed)
    note = f"{found.count} clusters, {fit.n_locations} locations"
    rand = fit.rand
    n_cells = int(found.proteins.obs["n_cells"].to_numpy()[has_one_term(places)].sum())
    yield _row("clusters, adjusted Rand index", (rand.value, rand.low, rand.high), MORE, n_cells, fit.n_proteins, note)


def _nuisance(adata: anndata.AnnData, seed: int, draws: int) -> Iterator[Row]:
    """What a linear regression reads of staining, noise, light and focus."""
    _need(adata.obs, "field", "protein")
    found = nuisance(adata, seed=seed, draws=draws)
    note = f"{found['n_fields'].iloc[0]} fields, tested on other proteins"
    n = (found.attrs["n_cells"], int(found["n_proteins"].iloc[0]))
    yield _row("nuisance R², mean", (found["r2"].mean(), np.nan, np.nan), LESS, *n, f"mean of {len(found)} nuisances, {note}")
    for r in found.itertuples():
        yield _row(f"nuisance R², {str(r.what).removeprefix('sim_')}", (r.r2, r.low, r.high), LESS, *n, note)


def _location(adata: anndata.AnnData, recipe: Recipe, seed: int, draws: int) -> Iterator[Row]:
    """The same, of the location."""
    _need(adata.obs, "field", "protein", recipe.label)
    found = location_accuracy(adata, recipe.label, seed=seed, draws=draws)
    note = f"logistic regression on {found.n_cells} fields, tested on other proteins, {found.n_classes} classes"
    n_cells = int(readable(adata.obs, recipe.label).sum())
    yield _row("location of fields", (found.accuracy, found.low, found.high), MORE, n_cells, found.n_groups, note)


def _need(obs: pd.DataFrame, *columns: str) -> None:
    if missing := [c for c in columns if c not in obs or not (label_text(obs[c]) != "").any()]:
        raise AnalysisNeedsError(f"these cells do not have the column {' and '.join(missing)}, or nothing in it.")


def _proteins(obs: pd.DataFrame) -> int:
    return len(set(label_text(obs["protein"])) - {""}) if "protein" in obs else 0
