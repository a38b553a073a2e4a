"""Which gene sets are found in a cluster more often than by chance, with the clustered proteins as background.

`enrich` needs nothing but gene sets (`read_gmt`, `gene_sets`); `pci_core.analysis.gprofiler` asks g:Profiler and
answers with the same table. The paper (Figure 4, Table 3) used GOrilla with the clustered proteins as background.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from pci_core.analysis.gene_sets import gene_sets, read_gmt, recognised
from pci_core.errors import EnrichmentError

__all__ = ["COLUMNS", "best_terms", "check_query", "enrich", "gene_sets", "read_gmt"]

COLUMNS = ("cluster", "term", "source", "p", "fdr", "overlap", "cluster_size", "term_size", "background_size", "genes")


def enrich(
    clusters: Mapping[str, Sequence[str]],
    background: Sequence[str],
    gene_sets: Mapping[str, Collection[str]],
    *,
    min_term: int = 2,
    source: str = "GMT",
    quiet: bool = False,
) -> pd.DataFrame:
    """Test every gene set in every cluster for more genes than chance would bring.

    The p value is the hypergeometric chance of at least this overlap when as many genes as the cluster has are drawn
    from the background without putting back. False discovery rates are Benjamini and Hochberg's over all terms tested,
    those without any overlap too, in each cluster by itself: a cluster is a query, as g:Profiler and GOrilla count.

    Parameters
    ----------
    clusters : mapping of str to sequence of str
        Genes of each cluster; one that stands there twice counts once.
    background : sequence of str
        All genes that could have been in a cluster: the clustered proteins, also those that are in no set.
    gene_sets : mapping of str to collection of str
        Restricted to the background before anything is counted.
    min_term : int
        Sets with fewer genes of the background are not tested.
    source : str
        What the column ``source`` says.
    quiet : bool
        Do not print the share of genes recognised and how many sets were tested.

    Returns
    -------
    DataFrame
        One row for each cluster and term tested, by cluster, then by p: ``cluster``, ``term``, ``source``, ``p``,
        ``fdr``, ``overlap``, ``cluster_size``, ``term_size``, ``background_size`` (numbers of genes) and ``genes`` (those of
        the overlap, joined by ';').

    Raises
    ------
    EnrichmentError
        No cluster, an empty one, or one with genes that the background lacks; no set with enough genes; less than a
        fifth of the background is in any set.
    """
    queries, universe = check_query(clusters, background)
    share = recognised(universe, gene_sets)
    tested = {term: universe & frozenset(genes) for term, genes in gene_sets.items()}
    tested = {term: genes for term, genes in tested.items() if len(genes) >= max(min_term, 1)}
    if not tested:
        most = max(len(universe & frozenset(genes)) for genes in gene_sets.values())
        raise EnrichmentError(
            f"none of the {len(gene_sets)} gene sets has {min_term} or more of the {len(universe)} genes of the background (the largest "
            f"has {most}). Lower min_term or cluster more proteins."
        )
    if not quiet:
        print(
            f"{share:.0%} of the {len(universe)} clustered genes are in a gene set; {len(tested)} of {len(gene_sets)} sets have "
            f"at least {min_term} of them and are tested in each of {len(queries)} clusters"
        )
    tables = [_one_cluster(name, genes, tested, len(universe)) for name, genes in queries.items()]
    table = pd.concat(tables, ignore_index=True)
    table.insert(2, "source", source)
    return table[list(COLUMNS)]


def _one_cluster(name: str, genes: frozenset[str], tested: Mapping[str, frozenset[str]], n_background: int) -> pd.DataFrame:
    shared = [sorted(genes & term) for term in tested.values()]
    overlap = np.array([len(s) for s in shared], np.int64)
    sizes = np.array([len(term) for term in tested.values()], np.int64)
    p = np.clip(stats.hypergeom.sf(overlap - 1, n_background, sizes, len(genes)), 0.0, 1.0)
    out = pd.DataFrame({"cluster": name, "term": list(tested), "p": p, "fdr": stats.false_discovery_control(p, method="bh")})
    out["overlap"], out["cluster_size"], out["term_size"], out["background_size"] = overlap, len(genes), sizes, n_background
    out["genes"] = [";".join(s) for s in shared]
    return out.sort_values(["p", "term_size", "term"], kind="stable", ignore_index=True)


def check_query(clusters: Mapping[str, Sequence[str]], background: Sequence[str]) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """Return the genes of each cluster and of the background as sets, after checking that they fit.

    Raises
    ------
    EnrichmentError
        No cluster, an empty one, a single text in place of genes, an empty name, or genes that the background lacks.
    """
    for what, genes in [("the background", background), *((f"cluster '{name}'", genes) for name, genes in clusters.items())]:
        if isinstance(genes, str):
            raise EnrichmentError(f"{what} is the text '{genes[:40]}'; it must be a list of genes.")
    universe = frozenset(background)
    queries = {str(name): frozenset(genes) for name, genes in clusters.items()}
    if not queries:
        raise EnrichmentError("no cluster to test: the clustering kept none. Lower the smallest size of a cluster.")
    unnamed = [g for g in universe if not isinstance(g, str) or not g.strip()]
    if unnamed:
        raise EnrichmentError(f"the background holds a gene without a name ({unnamed[0]!r}). Leave out the cells without a protein first.")
    for name, query in queries.items():
        if not query:
            raise EnrichmentError(f"cluster '{name}' has no genes. Leave it out.")
        strange = sorted(map(str, query - universe))
        if strange:
            raise EnrichmentError(
                f"cluster '{name}' holds {len(strange)} genes that are not in the background of {len(universe)}, e.g. "
                f"{', '.join(strange[:3])}. The background is all genes that were clustered."
            )
    return queries, universe


def best_terms(table: pd.DataFrame, fdr: float = 0.05, number: int = 1) -> pd.DataFrame:
    """Return the first terms of each cluster, by p, of those that pass.

    Parameters
    ----------
    table : DataFrame
        From `enrich` or `gprofiler`.
    fdr : float
        Terms above it are left out; a cluster in which none passes has no row.
    number : int
        Terms a cluster.

    Returns
    -------
    DataFrame
    """
    passed = table[(table["fdr"] <= fdr) & (table["overlap"] > 0)]
    return passed.groupby("cluster", sort=False).head(number).reset_index(drop=True)
