"""Shuffled clusters: p values of enrichment must then be uniform, and false findings no more than promised.

An overlap is a whole number, so the p value of the hypergeometric test takes few values and is too large on average rather than too
small. Uniform is the randomised p value, P(more) + u P(as many) with u drawn from [0, 1]: it is made here from the p value that the
product gives and the chance of exactly that overlap. The plain p value is checked for what it promises, P(p <= a) <= a.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from pci_core.analysis import enrichment
from pci_core.check.result import Finding

LEAST = 0.001  # of the Kolmogorov-Smirnov test: one sound installation in a thousand would fail
LEVELS = (0.01, 0.05, 0.1, 0.5)
FDR = 0.05
ORGANISM = "hsapiens"


def draw(seeds: range) -> list[tuple[float, float, float]]:
    """Shuffle the embedded proteins into clusters; return (randomised p, p, smallest fdr) of one cluster and term of each shuffle."""
    sets = enrichment.gene_sets("embedded", ORGANISM)
    genes = sorted(set().union(*sets.values()))
    out = []
    for seed in seeds:
        rng = np.random.default_rng([seed, 2])
        size = int(rng.integers(8, len(genes) // 2))
        members = [genes[i] for i in rng.permutation(len(genes))[:size]]
        table = enrichment.enrich({"1": members}, genes, sets, quiet=True)
        row = table.sort_values("term", kind="stable").iloc[int(rng.integers(len(table)))]
        exactly = stats.hypergeom.pmf(row["overlap"], row["background_size"], row["term_size"], row["cluster_size"])
        out.append((float(row["p"] - rng.random() * exactly), float(row["p"]), float(table["fdr"].min())))
    return out


def findings(found: list[tuple[float, float, float]]) -> list[Finding]:
    """Judge the p values of all shuffles."""
    randomised, plain, fdr = np.array(found).T
    n = len(found)
    what = f"enrichment of {n} shuffled clusters in the embedded gene sets"
    ks = stats.kstest(randomised.clip(0, 1), "uniform").pvalue if np.isfinite(randomised).all() else np.nan
    out = [Finding("enrichment", f"{what}: Kolmogorov-Smirnov test that the randomised p value is uniform, its p", float(ks), LEAST)]
    for level in LEVELS:
        most = level + 4 * np.sqrt(level * (1 - level) / n)
        out.append(Finding("enrichment", f"{what}: share of p values of {level:g} or less", float((plain <= level).mean()), 0, most))
    most = FDR + 4 * np.sqrt(FDR * (1 - FDR) / n)
    out.append(
        Finding("enrichment", f"{what}: share of clusters with any term of FDR {FDR:g} or less", float((fdr <= FDR).mean()), 0, most)
    )
    return out
