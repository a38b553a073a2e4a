"""How well a search for proteins like a known one finds those of a class.

The paper's search (`pci_core.analysis.neighbours`) has no score: of the 32 proteins nearest to MKI67 in its dendrogram,
13 others were found at the nucleolar rim, by eye. Here a ranking is scored against annotation, with what chance gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from pci_core.analysis.bootstrap import bootstrap
from pci_core.analysis.neighbours import COMBINE, PAPER_QUERY, Space, all_terms, ranks
from pci_core.errors import AnalysisNeedsError

PAPER_NEIGHBOURS, PAPER_FOUND, PAPER_PROTEINS = 32, 13, 11995


def can_score(member: np.ndarray, rows: np.ndarray, terms: pd.Series, what: str) -> tuple[bool, str]:
    """Tell whether there is anything to score a search with, and in words why or why not."""
    others = np.delete(member, rows)
    if member.sum() > 1 and others.any() and not others.all():
        named = terms.index[member]
        listed = f" ({', '.join(named)})" if len(named) <= 20 else ""
        return True, f"{member.sum()} of {len(member)} proteins count as *{what}*{listed}."
    held = all_terms(terms)
    reason = f"the terms there are: {', '.join(held)}" if held else "no protein has a location"
    return False, f"{member.sum()} of {len(member)} proteins count as *{what}*, too few to score a search ({reason})."


def average_precision(hits: np.ndarray, times: np.ndarray | None = None) -> float:
    """Return the average precision of a ranking.

    Parameters
    ----------
    hits : ndarray of bool
        (proteins,) whether each belongs to the class, the nearest first.
    times : ndarray of int, optional
        (proteins,) how often each is counted, for the bootstrap; copies of one stand at one place, as in
        scikit-learn.

    Returns
    -------
    float
        In (0, 1], NaN without any hit.
    """
    times = np.ones(len(hits)) if times is None else times
    weight = times * hits
    seen = np.cumsum(times)
    found = weight.sum()
    return float((weight * np.cumsum(weight) / np.maximum(seen, 1)).sum() / found) if found else np.nan


def area(hits: np.ndarray, times: np.ndarray | None = None) -> float:
    """Return the area under the ROC curve: how often one of the class comes before one that is not of it."""
    times = np.ones(len(hits)) if times is None else times
    other = times * ~hits
    pairs = (times * hits).sum() * other.sum()
    return float((times * hits * (other.sum() - np.cumsum(other))).sum() / pairs) if pairs else np.nan


def precision_at(hits: np.ndarray, k: int, times: np.ndarray | None = None) -> float:
    """Return the share of the class among the first k."""
    times = np.ones(len(hits)) if times is None else times
    before = np.cumsum(times) - times
    return float((np.clip(k - before, 0, times) * hits).sum() / k)


def chance_precision(n: int, m: int) -> float:
    """Return the average precision that a random order of n proteins, m of the class, has on average."""
    at = np.arange(1, n + 1)
    return float(((1 + (at - 1) * (m - 1) / max(n - 1, 1)) / at).mean()) if m else np.nan


def score(rank: np.ndarray, member: np.ndarray, *, k: Sequence[int] = (), draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Score a ranking against annotation.

    Parameters
    ----------
    rank : ndarray
        (proteins,) from `ranks`; those of rank 0 (the queries) do not count.
    member : ndarray of bool
        (proteins,) annotated with the term.
    k : sequence of int
        Further numbers of nearest proteins to count the class among; the number of its members always is one.
    draws, seed : int
        Of the bootstrap over the ranked proteins, and of the random orders that tell what chance gives.

    Returns
    -------
    DataFrame
        Rows ``average precision``, ``AUROC``, ``precision at k``; columns ``value, low, high`` (95 % bootstrap),
        ``chance`` (expected in a random order), ``chance_high`` (which one random order in twenty exceeds), ``most``
        (the best that is possible), ``p`` (share of random orders at least as good), ``n_members`` (without the queries),
        ``n_proteins`` (ranked).

    Raises
    ------
    AnalysisNeedsError
        No protein of the class besides the queries, or no other.
    """
    order = np.argsort(rank, kind="stable")
    hits = np.asarray(member, bool)[order][rank[order] > 0]
    n, m = len(hits), int(hits.sum())
    if not 0 < m < n:
        raise AnalysisNeedsError(f"a ranking is scored with proteins of the class and others; besides the queries {m} of {n} are of it.")
    counted = list(dict.fromkeys(min(int(i), n) for i in (m, *k)))
    rng = np.random.default_rng(seed)
    random = np.zeros((max(draws, 1), n), bool)
    for line in random:
        line[rng.choice(n, m, replace=False)] = True
    measures: dict[str, Callable[..., float]] = {"average precision": average_precision, "AUROC": area}
    measures |= {f"precision at {i}": partial(precision_at, k=i) for i in counted}
    chance = {"average precision": chance_precision(n, m), "AUROC": 0.5}
    rows = []
    for what, measure in measures.items():
        drawn = partial(_of_draw, measure, hits)
        found = bootstrap(drawn, np.arange(n), draws=draws, seed=seed)
        by_chance = np.array([measure(line) for line in random])
        p = (1 + (by_chance >= found.value - 1e-12).sum()) / (1 + len(by_chance))
        best = measure(np.arange(n) < m)
        rows.append((what, found.value, found.low, found.high, chance.get(what, m / n), np.quantile(by_chance, 0.95), best, p, m, n))
    columns = ["what", "value", "low", "high", "chance", "chance_high", "most", "p", "n_members", "n_proteins"]
    return pd.DataFrame(rows, columns=columns)


def _of_draw(measure: Callable[..., float], hits: np.ndarray, rows: np.ndarray) -> float:
    return measure(hits, times=np.bincount(rows, minlength=len(hits)))


def paper_figure(what: str, method: str, query: str, term: str) -> dict[str, float | str]:
    """Return the paper's figure for a score as arguments of `Notebook.score`; nothing where it has none."""
    if (what, method, query, term) != (f"precision at {PAPER_NEIGHBOURS}", "dendrogram", PAPER_QUERY, "Nucleoli rim"):
        return {}
    return {
        "paper": PAPER_FOUND / PAPER_NEIGHBOURS,
        "paper_on": f"{PAPER_PROTEINS:,} proteins of the Human Protein Atlas, conv3, judged by eye",
    }


def paper_told(query: str, term: str) -> str:
    """Return the paper's count in a sentence, where it has one for this search."""
    if not paper_figure(f"precision at {PAPER_NEIGHBOURS}", "dendrogram", query, term):
        return ""
    return f"In the paper {PAPER_FOUND} of {PAPER_NEIGHBOURS} were at the rim, judged by eye, among {PAPER_PROTEINS:,} proteins."


def laid_out(scores: pd.DataFrame) -> pd.DataFrame:
    """Lay out `score` tables with a column ``method`` for reading: a row a measure, a column a method."""
    text = [
        f"{v:.2f}" + (f" ({a:.2f} to {b:.2f})" if a == a else "") + f", p {p:.2g}"
        for v, a, b, p in scores[["value", "low", "high", "p"]].to_numpy()
    ]
    wide = (
        scores.assign(text=text)
        .pivot(index="what", columns="method", values="text")
        .loc[scores["what"].unique(), scores["method"].unique()]
    )
    more = scores.drop_duplicates("what").set_index("what")[["chance", "chance_high", "most"]]
    return wide.join(more.rename(columns={"chance_high": "5 %"}).map("{:.2f}".format)).rename_axis(index=None, columns=None)


def each_as_query(space: Space, member: np.ndarray, method: str = "dendrogram", *, most: int = 200, seed: int = 0) -> pd.DataFrame:
    """Take each protein of a class in turn as the query for the others.

    Parameters
    ----------
    space : Space
    member : ndarray of bool
        (proteins,) of the class.
    method : str
        See `ranks`.
    most, seed : int
        A larger class is represented by so many queries, drawn at random.

    Returns
    -------
    DataFrame
        One row a query: ``query``, ``average_precision``, ``auroc``, ``chance`` (expected average precision),
        ``n_members`` (others of the class), ``n_proteins`` (ranked). Empty with fewer than two members.
    """
    rows = np.flatnonzero(member)
    m, n = len(rows) - 1, len(space) - 1
    queries = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False)) if len(rows) > most else rows
    out = []
    for q in queries if 0 < m < n else ():
        hits = np.asarray(member, bool)[np.argsort(ranks(space, np.array([q]), method), kind="stable")[1:]]
        out.append((space.names[q], average_precision(hits), area(hits), chance_precision(n, m), m, n))
    return pd.DataFrame(out, columns=["query", "average_precision", "auroc", "chance", "n_members", "n_proteins"])


def each_term(
    space: Space, classes: Mapping[str, np.ndarray], method: str = "dendrogram", *, most: int = 50, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Search for every class by each of its proteins: is one term harder to find than others?

    Parameters
    ----------
    space : Space
    classes : mapping of str to ndarray of bool
        (proteins,) by class; those with fewer than two proteins are left out.
    method : str
        See `ranks`.
    most : int
        Queries of one class at most.
    draws, seed : int
        Of the bootstrap over queries.

    Returns
    -------
    DataFrame
        ``term``, ``n`` (proteins), ``average_precision`` (mean over queries), ``low, high``, ``auroc``, ``chance``; best
        first. The interval tells how queries differ; all of them search among the same proteins.
    """
    out = []
    for term, member in classes.items():
        found = each_as_query(space, member, method, most=most, seed=seed)
        if not len(found):
            continue
        value = mean_interval(found["average_precision"], draws=draws, seed=seed)
        out.append((term, int(member.sum()), *value, found["auroc"].mean(), found["chance"].iloc[0]))
    table = pd.DataFrame(out, columns=["term", "n", "average_precision", "low", "high", "auroc", "chance"])
    return table.sort_values("average_precision", ascending=False, kind="stable", ignore_index=True)


def mean_interval(values: Sequence[float] | pd.Series, *, draws: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean over queries and its 95 % bootstrap interval."""
    v = np.asarray(values, float)
    found = bootstrap(lambda r: float(v[r].mean()), np.arange(len(v)), draws=draws, seed=seed)
    return found.value, found.low, found.high


def by_number_of_queries(
    space: Space, member: np.ndarray, method: str = "dendrogram", *, most: int = 60, up_to: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Search for a class from one, two, three … of its proteins together.

    Parameters
    ----------
    space : Space
    member : ndarray of bool
        (proteins,) of the class.
    method : str
        See `ranks`.
    most : int
        Sets of queries of one size at most, drawn at random where there are more.
    up_to : int
        Most queries of one set; always at least one protein of the class remains to be found.
    seed : int

    Returns
    -------
    DataFrame
        ``queries`` (number), ``combine``, ``average_precision`` (mean over sets), ``worst``, ``best``, ``chance``, ``sets``.
        With more queries fewer proteins are left to find, so that chance changes too.
    """
    rows, rng, out = np.flatnonzero(member), np.random.default_rng(seed), []
    for size in range(1, min(up_to, len(rows) - 1) + 1):
        sets = {tuple(sorted(rng.permutation(rows)[:size].tolist())) for _ in range(5 * most)}
        sets_of_size = sorted(sets)[:: max(1, -(-len(sets) // most))]
        for combine in COMBINE:
            found = []
            for queries in sets_of_size:
                rank = ranks(space, queries, method, combine)
                found.append(average_precision(np.asarray(member, bool)[np.argsort(rank, kind="stable")[size:]]))
            chance = chance_precision(len(space) - size, len(rows) - size)
            out.append((size, combine, float(np.mean(found)), min(found), max(found), chance, len(found)))
    return pd.DataFrame(out, columns=["queries", "combine", "average_precision", "worst", "best", "chance", "sets"])
