"""What clusters are called and what they are enriched in (table 3), beside the paper's."""

from __future__ import annotations

import os
import re
import textwrap

import pandas as pd

from pci_core.analysis import enrichment
from pci_core.analysis.clusters import Clustering, common_location
from pci_core.analysis.gprofiler import gprofiler
from pci_core.analysis.selection import label_text

# Cluster, term, FDR, proteins with the term, proteins in the cluster. The clusters were chosen by hand, the terms selected by the
# authors from GOrilla's answer. Rows of the printed table whose term or FDR is not legible in our copy (L2, L3, M) are left out.
PAPER_TABLE_3 = (
    ("A", "Nucleoplasm", 5.25e-139, 752, 1383),
    ("A1", "Chromosomal Part", 3.25e-12, 34, 114),
    ("A2", "Nuclear Speck", 4.37e-16, 26, 91),
    ("A2", "Spliceosomal Complex", 3.39e-17, 21, 91),
    ("A3", "Nuclear Speck", 8.92e-17, 25, 76),
    ("B", "Nucleoplasm", 2.63e-24, 303, 706),
    ("B", "Cytosol", 1.55e-19, 360, 706),
    ("C", "Nuclear Membrane", 6.32e-40, 44, 122),
    ("D", "Nucleolus", 6.48e-122, 209, 553),
    ("D1", "Nucleolar Rim (by hand)", None, 14, 32),
    ("D2", "Preribosome", 2.81e-22, 58, 112),
    ("E", "Cytosol", 2.22e-64, 564, 935),
    ("E1", "Endoplasmic Reticulum", 1.28e-8, 28, 117),
    ("E2", "Endoplasmic Reticulum Membrane", 1.72e-10, 17, 38),
    ("E3", "Ribonucleoprotein Complex", 7.01e-15, 26, 54),
    ("F", "Plasma Membrane", 7.83e-19, 68, 115),
    ("F", "Adherens Junction", 3.39e-16, 30, 115),
    ("G", "Plasma Membrane", 1.09e-11, 230, 781),
    ("H", "Microtubule Cytoskeleton", 4.14e-18, 24, 152),
    ("I", "Vesicle", 4.94e-5, 115, 439),
    ("J", "Mitochondrion", 1.09e-108, 230, 564),
    ("J1", "Mitochondrial Membrane", 1.19e-30, 51, 88),
    ("K", "Golgi Apparatus", 5.03e-5, 22, 99),
    ("L", "Membrane Part", 1.75e-59, 964, 2170),
    ("L1", "Mitochondrial Part", 2.16e-14, 31, 82),
    ("M1", "Nuclear Body", 4.17e-8, 26, 97),
    ("M2", "Nuclear Speck", 9.86e-19, 26, 72),
)
PAPER_CLASSES = (15, 18)  # "clusters enriched for about 15 of the 18 localization classes with more than 30 proteins"
_HEADINGS = ["cluster", "term", "FDR", "proteins"]


def paper_table_3() -> pd.DataFrame:
    """Return the paper's table 3: ``cluster, term, FDR, proteins`` (with the term / in the cluster)."""
    rows = [(c, t, "–" if f is None else f"{f:.2e}", f"{n:,}/{size:,}") for c, t, f, n, size in PAPER_TABLE_3]
    return pd.DataFrame(rows, columns=_HEADINGS)


def find_terms(found: Clustering, choice: str, organism: str, cache: str | os.PathLike[str], *, quiet: bool = False) -> pd.DataFrame:
    """Test every cluster for enriched gene sets, with all clustered proteins as the background.

    Parameters
    ----------
    found : Clustering
    choice : str
        ``"embedded"`` (true locations of the simulated proteins), the path of a GMT, ``"gprofiler"``, or ``""`` for none.
    organism : str
        As in the recipe, e.g. ``hsapiens``.
    cache : path-like
        Folder in which g:Profiler's answers are kept.
    quiet : bool

    Returns
    -------
    DataFrame
        As from `pci_core.analysis.enrichment.enrich`; no rows where no test was wanted.

    Raises
    ------
    EnrichmentError
        See `pci_core.analysis.enrichment` and `pci_core.analysis.gprofiler`.
    """
    if not choice:
        return pd.DataFrame(columns=list(enrichment.COLUMNS))
    members, background = found.members(), found.proteins.obs_names.tolist()
    if choice == "gprofiler":
        return gprofiler(members, background, organism, cache=cache, quiet=quiet)
    sets = enrichment.gene_sets(choice, organism)
    source = "simulated truth" if choice == "embedded" else os.path.basename(choice)
    return enrichment.enrich(members, background, sets, source=source, quiet=quiet)


def describe(found: Clustering, terms: pd.DataFrame, fdr: float = 0.05) -> pd.DataFrame:
    """Return one row a cluster, with its name.

    Parameters
    ----------
    found : Clustering
    terms : DataFrame
        From `find_terms`.
    fdr : float
        Greatest false discovery rate of a term that names a cluster.

    Returns
    -------
    DataFrame
        ``cluster, name, n_proteins, n_cells, location`` (the most common annotation), ``n_location`` (proteins that have it),
        ``term, fdr, overlap`` (best enriched term, empty where none passes) and ``members`` (joined by ``;``). The name is
        number and term; else number and the most common location in parentheses; else the number.
    """
    best = enrichment.best_terms(terms, fdr).set_index("cluster") if len(terms) else pd.DataFrame()
    obs, rows = found.proteins.obs, []
    for number, members in found.members().items():
        part = obs.loc[members]
        location, shared = common_location(part["location"]) if "location" in obs else ("", 0)
        term = str(best.at[number, "term"]) if number in best.index else ""
        name = f"{number} {_short(term)}" if term else f"{number} ({location})" if location else number
        row = {"cluster": int(number), "name": name, "n_proteins": len(members), "n_cells": int(part["n_cells"].sum())}
        row |= {"location": location, "n_location": shared, "term": term}
        row |= {"fdr": best.at[number, "fdr"] if term else float("nan"), "overlap": int(best.at[number, "overlap"]) if term else 0}
        rows.append(row | {"members": ";".join(members)})
    return pd.DataFrame(rows)


def _short(term: str) -> str:
    """Return a term without its number in gene ontology, cut where it is long."""
    return textwrap.shorten(re.sub(r"\s*\(GO:\d+\)$", "", term), 36, placeholder="…")


def table_3(terms: pd.DataFrame, fdr: float = 0.05, number: int = 2) -> pd.DataFrame:
    """Return the best terms of every cluster in the form of the paper's table 3: ``cluster, term, FDR, proteins``."""
    best = enrichment.best_terms(terms, fdr, number)
    shares = [f"{a:,}/{b:,}" for a, b in zip(best["overlap"], best["cluster_size"], strict=True)]
    columns = [best["cluster"], best["term"], [f"{p:.2e}" for p in best["fdr"]], shares]
    return pd.DataFrame(dict(zip(_HEADINGS, columns, strict=True)))


def classes_found(found: Clustering, least: int = 3, fdr: float = 0.05) -> pd.DataFrame:
    """Tell which annotated locations have a cluster that is enriched for them.

    Parameters
    ----------
    found : Clustering
        Its proteins have the column ``location``, terms joined by ``;``.
    least : int
        Locations of fewer proteins are not looked at.
    fdr : float
        A location is found where a cluster is enriched for it at this rate or less, all clustered proteins as background.

    Returns
    -------
    DataFrame
        ``location, n_proteins, cluster`` (of the lowest FDR), ``fdr, found``; no rows where no location has enough proteins.
    """
    sets: dict[str, set[str]] = {}
    for protein, text in label_text(found.proteins.obs["location"]).items():
        for term in filter(None, text.split(";")):
            sets.setdefault(term, set()).add(str(protein))
    sets = {term: proteins for term, proteins in sorted(sets.items()) if len(proteins) >= least}
    columns = ["location", "n_proteins", "cluster", "fdr", "found"]
    if not sets:
        return pd.DataFrame(columns=columns)
    tested = enrichment.enrich(found.members(), found.proteins.obs_names.tolist(), sets, source="annotation", quiet=True)
    best = tested.sort_values(["fdr", "p"], kind="stable").drop_duplicates("term").set_index("term").loc[list(sets)]
    out = pd.DataFrame({"location": list(sets), "n_proteins": best["term_size"].to_numpy()})
    return out.assign(cluster=best["cluster"].to_numpy(), fdr=best["fdr"].to_numpy(), found=(best["fdr"] <= fdr).to_numpy())[columns]
