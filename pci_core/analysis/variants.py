"""Variants of a training beside one another: scorecards of several seeds, and what each changes against a baseline.

The cards come from `pci_core.analysis.beyond.scorecard`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from pci_core.analysis.bootstrap import LEVEL
from pci_core.errors import ParameterError, unknown_name

COLUMNS = ("measure", "value", "low", "high", "better", "n_cells", "n_proteins", "note")  # of a scorecard
LEAST_SEEDS = 3  # for an interval over seeds


def compare(cards: Mapping[str, Sequence[pd.DataFrame]], baseline: str) -> pd.DataFrame:
    """Put variants of a training, each of several seeds, beside one of them.

    Parameters
    ----------
    cards : mapping of str to sequence of DataFrame
        By variant, one table of `scorecard` a training seed, all of the same cells. Tables at one place of the lists belong to one
        seed: the differences are taken seed by seed, over the seeds that both variants have.
    baseline : str
        The variant that the others are compared with.

    Returns
    -------
    DataFrame
        One row a variant and measure: ``variant, measure, better``; ``value`` (mean over seeds), ``smallest, largest``,
        ``low, high`` (95 % interval of the mean by Student's t), ``n_seeds``; ``difference`` to the baseline,
        ``difference_low, difference_high`` (the same, of the differences), ``n_pairs``; ``kept_errors`` of kNN: (1 - value) /
        (1 - baseline's value), 0.7 where three errors in ten are gone; ``note``. An interval needs three seeds: it is NaN else,
        and the note says so. It tells how trainings differ, not how proteins would.

    Raises
    ------
    UnknownNameError
        No such variant.
    ParameterError
        A variant without a table, or a table that is no scorecard.
    """
    if baseline not in cards:
        raise unknown_name("variant", baseline, cards)
    seeds = {variant: _by_seed(variant, tables) for variant, tables in cards.items()}
    better = {m: b for tables in cards.values() for t in tables for m, b in zip(t["measure"], t["better"], strict=True)}
    rows = []
    for variant, table in seeds.items():
        for measure in table.index:
            values, base = table.loc[measure], seeds[baseline].loc[measure] if measure in seeds[baseline].index else pd.Series(dtype=float)
            off = (values - base).dropna()  # by seed
            mean, low, high = mean_interval(values.dropna())
            step, step_low, step_high = mean_interval(off)
            wrong = 1 - base.mean() if measure.startswith("kNN") else np.nan
            kept = (1 - mean) / wrong if wrong > 0 else np.nan
            note = _too_few(len(values.dropna()), len(off))
            rows.append((variant, measure, better[measure], mean, values.min(), values.max(), low, high, values.count(),
                         step, step_low, step_high, len(off), kept, note))  # fmt: skip
    columns = ["variant", "measure", "better", "value", "smallest", "largest", "low", "high", "n_seeds", "difference", "difference_low",
               "difference_high", "n_pairs", "kept_errors", "note"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _by_seed(variant: str, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the values of a variant: a row a measure, in the order of the tables, a column a seed."""
    if not len(tables):
        raise ParameterError(f"variant '{variant}' has no scorecard. Leave it out, or score it first.")
    for table in tables:
        if missing := [c for c in COLUMNS if c not in table]:
            raise ParameterError(f"variant '{variant}' has a table without {', '.join(missing)}; give tables of `scorecard`.")
        if table["measure"].duplicated().any():
            raise ParameterError(f"variant '{variant}' has a table with a measure twice; give one table a seed.")
    order = list(dict.fromkeys(m for t in tables for m in t["measure"]))
    return pd.DataFrame({i: t.set_index("measure")["value"].astype(float).reindex(order) for i, t in enumerate(tables)}, index=order)


def mean_interval(values: pd.Series) -> tuple[float, float, float]:
    """Return the mean of values of several seeds with its 95 % interval by Student's t; NaN for both ends below `LEAST_SEEDS`."""
    n, mean = len(values), float(values.mean()) if len(values) else float("nan")
    if n < LEAST_SEEDS:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def _too_few(n_seeds: int, n_pairs: int) -> str:
    few = {"seeds": n_seeds, "seeds that both have": n_pairs}
    return "; ".join(f"no interval of {n} {what}, it needs {LEAST_SEEDS}" for what, n in few.items() if n < LEAST_SEEDS)
