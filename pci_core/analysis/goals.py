"""What a training beyond the paper was to reach, and whether it did: each goal against kept trainings of several seeds.

Each goal is written as a margin, which is 0 where it is just reached and larger where it is surpassed, seed by seed; so its interval
over seeds says how sure the answer is. The paper's method is taken at its strongest: of its learning rates and layers that were kept,
the one that tells locations apart best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pci_core.analysis import overview
from pci_core.analysis.kept import Kept
from pci_core.analysis.variants import mean_interval

KNN, DROP, RIM = (overview.MEASURES[m] for m in ("kNN, own protein out", "drop between cell lines", "rim AP"))
FRACTION, NUISANCE = overview.MEASURES["Spearman, cytosol + nucleoplasm"], overview.MEASURES["nuisance R²"]
REAL = "hpa-duloc"
SEEDS = 3  # fewer have no interval
PAPERS = ("inpainting", "inpainting, faster")  # variants that are the paper's method: at its own learning rate, and at ten times that
PAPER_LAYER, LAST = "conv4", "conv5"  # the paper's choice, and the last layer, by which variants are judged
YES, MEAN, NO, NONE = "reached", "reached in the mean only", "not reached", "not measured"
COLUMNS = ["goal", "ours", "needed", "margin", "low", "high", "n_seeds", "verdict", "n_cells", "n_proteins", "told"]
Cards = Mapping[str, Sequence[pd.DataFrame]]


@dataclass(frozen=True)
class Goal:
    """One goal.

    Attributes
    ----------
    name : str
    measure : str
        Of the scorecard.
    needed : function
        Values of the paper's method by seed -> what is needed.
    more : bool
        Whether more is better.
    fixed : float
        What is needed, whatever the paper's method reaches; NaN where that decides.
    real : bool
        Scored on `REAL`, not on the recipe trained on.
    """

    name: str
    measure: str
    needed: Callable[[pd.Series], pd.Series]
    more: bool = True
    fixed: float = np.nan
    real: bool = False


def _same(paper: pd.Series) -> pd.Series:
    return paper


GOALS = (
    Goal("30 % fewer kNN errors, own protein left out", KNN, lambda paper: 1 - 0.7 * (1 - paper)),
    Goal("at most half the drop between cell lines", DROP, lambda paper: paper.clip(lower=0) / 2, more=False),
    Goal(f"Spearman of 0.9 on {REAL}, cytosol + nucleoplasm", FRACTION, _same, fixed=0.9, real=True),
    Goal("rim average precision half as much again", RIM, lambda paper: 1.5 * paper),
    Goal("nuisance R² not higher", NUISANCE, _same, more=False),
)


def settled(kept: Kept, trained: str, ours: str, papers: Sequence[str]) -> pd.Series | None:
    """Return the longest training in which both the variant and the paper's method took part: a row of `Kept.budgets`, or None.

    One of `SEEDS` seeds or more of both comes before a longer one of fewer, which has no interval.
    """
    both = together(kept, trained, ours, papers)
    return next((budget for budget, seeds in both if seeds >= SEEDS), both[0][0] if both else None)


def together(kept: Kept, trained: str, ours: str, papers: Sequence[str]) -> list[tuple[pd.Series, int]]:
    """Return the trainings in which both the variant and the paper's method took part, longest first, and of how many seeds.

    Returns
    -------
    list of (Series, int)
        Rows of `Kept.budgets`; seeds of the variant, or of the paper's method where these are fewer.
    """
    out = []
    for _, budget in kept.budgets(trained).sort_values(["epochs", "width", "trainings"], ascending=False).iterrows():
        seeds = kept.of(budget).runs.groupby("variant")["seed"].nunique()
        if ours in seeds and (known := [seeds[p] for p in papers if p in seeds]):
            out.append((budget, int(min(seeds[ours], max(known)))))
    return out


def best_variant(kept: Kept, trained: str, layer: str, papers: Sequence[str]) -> str:
    """Return the variant, other than the paper's method, with the highest mean accuracy of kNN with the own protein left out.

    Empty where none has one. A choice by a score flatters that score, and the interval over seeds does not know of it.
    """
    return _highest({v: t for v, t in kept.cards(trained, layer).items() if v not in papers})


def verdict(kept: Kept, trained: str, ours: str, papers: Sequence[str], layer: str, paper_layer: str) -> pd.DataFrame:
    """Hold a variant against every goal.

    Parameters
    ----------
    kept : Kept
        Trainings of one budget.
    trained : str
        Recipe trained on.
    ours : str
        The variant, described by `layer`.
    papers : sequence of str
        Variants that are the paper's method; each is looked at by both layers.
    layer, paper_layer : str
        The last layer, and the paper's choice.

    Returns
    -------
    DataFrame
        One row a goal: ``ours, needed`` (means over the seeds that both have), ``margin, low, high`` (how far ours is on the right
        side, with its 95 % interval over seeds, NaN below three), ``n_seeds``; ``verdict``: `YES` (the whole interval is), `MEAN`, `NO`
        or `NONE`; ``n_cells, n_proteins``; ``told``: the same in a sentence. ``attrs["against"]``: which of the paper's it was.
    """
    on = {place: overview.cards(kept, place, layer, papers, paper_layer) for place in (trained, REAL)}
    rivals = [v for v in on[trained] if v.split(" (")[0] in papers]
    out = judge(on, trained, ours, rivals)
    last = Goal(f"the last layer ({layer}) serves as well as {paper_layer}: kNN, own protein left out", KNN, _same)
    own, other = (kept.cards(trained, where).get(ours, []) for where in (layer, paper_layer))
    against = out.attrs["against"]
    out = pd.concat([out, pd.DataFrame([_row(last, trained, own, other, ours)], columns=COLUMNS)], ignore_index=True)
    out.attrs["against"] = against
    return out


def judge(on: Mapping[str, Cards], trained: str, ours: str, rivals: Sequence[str]) -> pd.DataFrame:
    """Hold scorecards against every goal but that of the layers.

    Parameters
    ----------
    on : mapping of str to mapping
        By recipe scored on: scorecards by name, one table a seed, the same seeds in the same places.
    trained : str
        The recipe that all goals but that of `REAL` are about.
    ours : str
        Name of what is judged.
    rivals : sequence of str
        Names of the paper's method; the strongest on `trained` sets the goals.

    Returns
    -------
    DataFrame
        See `verdict`.
    """
    rival = _highest({v: on[trained][v] for v in rivals})
    rows = []
    for goal in GOALS:
        place = REAL if goal.real else trained
        cards = on.get(place, {})
        rows.append(_row(goal, place, cards.get(ours, []), cards.get(rival, []), ours))
    out = pd.DataFrame(rows, columns=COLUMNS)
    out.attrs["against"] = rival
    return out


def laid_out(table: pd.DataFrame) -> pd.DataFrame:
    """Write what `verdict` found as text: goal, our number and the one needed, the margin with its interval, cells, verdict."""
    margins = [
        "–" if r.n_seeds == 0 else f"{r.margin:+.3f}" + (f" ({r.low:+.3f} to {r.high:+.3f})" if r.low == r.low else "")
        for r in table.itertuples()
    ]
    return pd.DataFrame({
        "goal": table["goal"],
        "ours": ["–" if v != v else f"{v:.3f}" for v in table["ours"]],
        "needed": ["–" if v != v else f"{v:.3f}" for v in table["needed"]],
        "margin": margins,
        "seeds": [str(n) for n in table["n_seeds"]],
        "cells / proteins": [" / ".join(f"{n:,}" for n in pair if n) for pair in zip(table["n_cells"], table["n_proteins"], strict=True)],
        "verdict": table["verdict"],
    })  # fmt: skip


def _row(goal: Goal, on: str, own: Sequence[pd.DataFrame], paper: Sequence[pd.DataFrame], ours: str) -> list[object]:
    values = _by_seed(own, goal.measure)
    needed = goal.needed(_by_seed(paper, goal.measure)) if np.isnan(goal.fixed) else values * 0 + goal.fixed
    margin = ((values - needed) if goal.more else (needed - values)).dropna()
    if margin.empty:
        told = f"Not measured: no seed of {ours or 'a variant'} and of what it is compared with has '{goal.measure}' on {on}."
        return [goal.name, *[np.nan] * 5, 0, NONE, 0, 0, told]
    mean, low, high = mean_interval(margin)
    found = NO if mean < 0 else YES if low >= 0 else MEAN
    have, want = float(values[margin.index].mean()), float(needed[margin.index].mean())
    row = next(t for t in own if (t["measure"] == goal.measure).any()).set_index("measure").loc[goal.measure]
    told = _told(goal, found, have, want, high)
    return [goal.name, have, want, mean, low, high, len(margin), found, int(row["n_cells"]), int(row["n_proteins"]), told]


def _told(goal: Goal, found: str, have: float, want: float, high: float) -> str:
    how = f"{have:.3f}, where {'at least' if goal.more else 'at most'} {want:.3f} was asked for"
    if found == NO:
        also = ", which is more than there can be" if goal.more and want > 1 else ""
        also += "; the seeds do not rule it out" if high > 0 else ""
        return f"This claim fell: {how}{also}."
    return f"Reached: {how}." if found == YES else f"Reached in the mean, but no interval over seeds makes it sure: {how}."


def _highest(cards: Cards) -> str:
    values = {v: _by_seed(t, KNN).mean() for v, t in cards.items()}
    known = {v: m for v, m in values.items() if m == m}
    return max(known, key=lambda v: known[v]) if known else ""


def _by_seed(tables: Sequence[pd.DataFrame], measure: str) -> pd.Series:
    """Return the values of a measure by the place of the seed; places without one are left out."""
    found = {i: t.loc[t["measure"] == measure, "value"] for i, t in enumerate(tables)}
    return pd.Series({i: float(v.iloc[0]) for i, v in found.items() if len(v)}, dtype=float).dropna()
