"""Kept trainings beside one another: one row a variant, one column a measure, the paper's method first.

Numbers come from `pci_core.analysis.variants.compare`; here they are put in order and written out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pci_core import recipe as recipes
from pci_core.analysis.kept import BUDGET, Kept
from pci_core.analysis.variants import compare
from pci_core.errors import ParameterError

MORE, LESS = "more", "less"
MEASURES = {  # how a column is headed: the scorecard's name of the measure
    "kNN, own cell out": "kNN, own cell left out",
    "kNN, own field out": "kNN, own field left out",  # where a protein is one image
    "kNN, own image out": "kNN, own image left out",
    "kNN, own protein out": "kNN, own protein left out",
    "drop between cell lines": "images of one location, difference",
    "rim AP": "rim average precision, every rim protein as query",
    "Spearman, cytosol + nucleoplasm": "Spearman, Cytosol and Nucleoplasm, cells of both, ratio",
    "Spearman, nucleoli + nucleoplasm": "Spearman, Nucleoli and Nucleoplasm, cells of both, ratio",
    "variability AP": "variability average precision",
    "clusters ARI": "clusters, adjusted Rand index",
    "nuisance R²": "nuisance R², mean",
}
LOCATION = "location of fields"
NUISANCE = "nuisance R², "
COSTS = {"pairs a second": ("pairs_per_second", "{:,.0f}", MORE), "CPU-hours": ("cpu_hours", "{:.2f}", LESS)}
WINNER = "★"
_STAYS = "\N{NO-BREAK SPACE}"  # a browser breaks narrow columns at every other


def at_layer(variant: str, layer: str) -> str:
    """Return how a variant is called where it is described by another layer than the rest."""
    return f"{variant} ({layer})"


def cards(kept: Kept, cells: str, layer: str, papers: Sequence[str], paper_layer: str) -> dict[str, list[pd.DataFrame]]:
    """Return the scorecards of all variants, the paper's method first and by its own layer, too.

    Parameters
    ----------
    kept : Kept
        Trainings of one budget.
    cells : str
        Recipe scored on.
    layer : str
        That describes all variants.
    papers : sequence of str
        Variants that are the paper's method, e.g. at two learning rates; those that are not there are passed over.
    paper_layer : str
        That describes them, too.

    Returns
    -------
    dict of str to list of DataFrame
        See `Kept.cards`; empty where nothing was scored on those cells.

    Raises
    ------
    ParameterError
        Something was scored there, but none of `papers`.
    """
    last, own = kept.cards(cells, layer), kept.cards(cells, paper_layer)
    if not last:
        return {}
    first = {at_layer(p, paper_layer): own[p] for p in papers if p in own and paper_layer != layer}
    first |= {p: last[p] for p in papers if p in last}
    if not first:
        raise ParameterError(
            f"none of the kept trainings scored on {cells} is the paper's method ({'; '.join(papers)}); there are: {'; '.join(last)}. "
            "Train it with benchmarks/beyond.py, or name what to compare with by -p paper 'NAME;NAME'."
        )
    return first | last


def compared(kept: Kept, cells: Sequence[str], layer: str, papers: Sequence[str], paper_layer: str) -> pd.DataFrame:
    """Compare all variants with the paper's method on several recipes' cells.

    Parameters
    ----------
    kept, layer, papers, paper_layer
        See `cards`.
    cells : sequence of str
        Recipes scored on; those where nothing was scored give no rows.

    Returns
    -------
    DataFrame
        ``cells`` and the columns of `pci_core.analysis.variants.compare`; the differences are to the first of `papers`, by its own
        layer.
    """
    parts = []
    for recipe in cells:
        if found := cards(kept, recipe, layer, papers, paper_layer):
            parts.append(compare(found, next(iter(found))).assign(cells=recipe))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["cells", "variant", "measure"])


def by_layer(kept: Kept, cells: str, layer: str) -> pd.DataFrame:
    """Return what `compared` does of all variants by one layer, on one recipe's cells; differences are to the first variant."""
    found = kept.cards(cells, layer)
    return compare(found, next(iter(found))).assign(cells=cells) if found else pd.DataFrame(columns=["cells", "variant", "measure"])


def headings(table: pd.DataFrame, own: str, others: Sequence[str] = (), prefix: str = "") -> dict[str, tuple[str, str]]:
    """Return the columns that a table of `compared` has values for: heading to (cells, measure).

    Parameters
    ----------
    table : DataFrame
    own : str
        Recipe trained on: all of `MEASURES`.
    others : sequence of str
        Recipes of which all measures stand behind these, with the recipe's name in the heading.
    prefix : str
        Of measures of the others: only those whose name begins so.
    """
    wanted = {label: (own, measure) for label, measure in MEASURES.items()}
    wanted |= {f"{label}, {r}": (r, m) for r in others for label, m in MEASURES.items() if m.startswith(prefix)}
    there = set(zip(table["cells"], table["measure"], strict=True))
    return {label: place for label, place in wanted.items() if place in there}


def laid_out(
    table: pd.DataFrame, columns: Mapping[str, tuple[str, str]], counts: Mapping[tuple[str, str], str], costs: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Write variants by measures as text.

    Parameters
    ----------
    table : DataFrame
        Of `compared`.
    columns : mapping of str to (str, str)
        Of `headings`.
    counts : mapping of (str, str) to str
        By (cells, measure): on what it stands, for the last row.
    costs : DataFrame, optional
        Of `Kept.costs`, for two more columns.

    Returns
    -------
    DataFrame
        Text, indexed by variant: ``0.86 ± 0.02`` (no-break spaces) is the mean over seeds with half its 95 % interval, none below three
        seeds; the best mean of a column bears `WINNER`, of those with an interval where there are such; ``–`` where a variant has no
        value. ``seeds`` is their number. The last row says on how many cells / proteins.
    """
    variants = list(dict.fromkeys(table["variant"]))
    out = pd.DataFrame(index=pd.Index(variants, name="variant"))
    out["seeds"] = [f"{n:d}" for n in table.groupby("variant", sort=False)["n_seeds"].max().reindex(variants)]
    last = {"seeds": ""}
    for label, (cells, measure) in columns.items():
        part = table[(table["cells"] == cells) & (table["measure"] == measure)].set_index("variant").reindex(variants)
        texts = [_text(v, high) for v, high in zip(part["value"], part["high"], strict=True)]
        ways = [way for way in part["better"] if isinstance(way, str)]
        sure = part["high"].notna().to_numpy()  # the best of many single trainings is best by luck
        out[label] = _marked(texts, np.where(sure | ~sure.any(), part["value"], np.nan), ways[0])
        last[label] = counts.get((cells, measure), "")
    spent = pd.DataFrame() if costs is None else costs
    for label, (column, form, better) in COSTS.items() if costs is not None else ():
        values = spent[column].reindex([v.split(" (")[0] for v in variants]).to_numpy()
        out[label] = _marked(["–" if v != v else form.format(v) for v in values], values, better)
        last[label] = ""
    out.loc["cells / proteins"] = last
    return out


def kind(recipe: str) -> str:
    """Return whether the cells of an embedded recipe are simulated, in words; nothing of a user's own."""
    if recipe not in recipes.names():
        return ""
    return " (SIMULATED cells)" if recipes.load(recipe).simulated else " (real cells)"


def tables(
    kept: Kept, layer: str, papers: Sequence[str], paper_layer: str, *, moved: bool, without: pd.Series | None = None
) -> dict[str, pd.DataFrame]:
    """Lay out what each set of trainings scored, on the cells that they were trained on or on others.

    Parameters
    ----------
    kept, layer, papers, paper_layer
        See `cards`; `kept` holds all budgets.
    moved : bool
        On other cells than those trained on.
    without : Series, optional
        A row of `Kept.budgets` that is passed over.

    Returns
    -------
    dict of str to DataFrame
        By title, which names the cells and the length of the training: see `laid_out`. Sets of trainings without the paper's method
        are left out.
    """
    out = {}
    for trained in dict.fromkeys(kept.runs["recipe"]):
        for _, budget in kept.budgets(trained).iterrows():
            if without is not None and all(budget[c] == without[c] for c in BUDGET):
                continue
            part = kept.of(budget)
            for cells in dict.fromkeys(part.scores["cells"]):
                if (cells != trained) is not moved or not set(papers) & set(part.runs["variant"]):
                    continue
                found = compared(part, [cells], layer, papers, paper_layer)
                counts = {(cells, m): n for m, n in part.counts(cells).items()}
                where = f"scored on {cells}{kind(cells)}, where none was trained" if moved else "scored on the same cells"
                title = f"Trained on {trained}{kind(trained)}, {described(budget)}; {where}"
                out[title] = laid_out(found, headings(found, cells), counts, None if moved else part.costs())
    return out


def described(budget: pd.Series) -> str:
    """Return the length of a training in words."""
    n, pairs = int(budget["epochs"]), f"{budget['pairs']:,.0f} pairs in the mean"
    return f"width {budget['width']:g}, {n} epoch{'s' * (n != 1)}, {pairs}, {budget['trainings']} trainings"


def live(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Lay scorecards of a few feature sets out, a row a measure.

    Parameters
    ----------
    found : mapping of str to DataFrame
        Scorecards of the same cells by name of the feature set.

    Returns
    -------
    DataFrame
        Text, indexed by measure: value with its interval over proteins or images, the best of several with `WINNER`, and on how many
        ``cells / proteins``. No row where no card has one of `MEASURES`, a kNN or `LOCATION`.
    """
    measures = dict.fromkeys(m for card in found.values() for m in card["measure"])
    wanted = [m for m in measures if m in (*MEASURES.values(), LOCATION) or m.startswith("kNN")]
    rows: dict[str, dict[str, str]] = {}
    for measure in wanted:
        lines = {n: c[c["measure"] == measure].iloc[0] for n, c in found.items() if (c["measure"] == measure).any()}
        texts = [f"{r.value:.2f}" + (f" ({r.low:.2f} to {r.high:.2f})" if r.low == r.low else "") for r in lines.values()]
        one = next(iter(lines.values()))
        if len(lines) > 1:
            texts = _marked(texts, np.array([r.value for r in lines.values()], float), one.better)
        counted = " / ".join(f"{n:,}" for n in (one.n_cells, one.n_proteins) if n)
        rows[f"{measure}, {one.better} is better"] = dict(zip(lines, texts, strict=True)) | {"cells / proteins": counted}
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*found, "cells / proteins"]).fillna("–").rename_axis("measure")


def knn_rows(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the kNN accuracies of scorecards for `pci_core.plots.dots.dots`: ``features, measure, value, low, high, series, n_cells``."""
    parts = [card[card["measure"].str.startswith("kNN")].assign(features=name, series="kNN") for name, card in found.items()]
    table = pd.concat(parts, ignore_index=True)[["features", "measure", "value", "low", "high", "series", "n_cells"]]
    return table.assign(measure=table["measure"].str.removeprefix("kNN, "))


def _text(value: float, high: float) -> str:
    if value != value:
        return "–"
    return f"{value:.2f}" if high != high else f"{value:.2f}{_STAYS}±{_STAYS}{high - value:.2f}"


def _marked(texts: list[str], values: np.ndarray, better: str) -> list[str]:
    if np.isnan(values).all():
        return texts
    best = np.nanmax(values) if better == MORE else np.nanmin(values)
    return [f"{t}{_STAYS}{WINNER}" if v == best else t for t, v in zip(texts, values, strict=True)]
