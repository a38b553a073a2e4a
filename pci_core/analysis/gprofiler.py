"""Enrichment through g:Profiler, with its answer kept in a file so that a book is made again without the network.

The query goes through the library gprofiler-official. It sets no time-out and does not try twice; both come
from the session that is put under it here.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import requests
from requests.adapters import HTTPAdapter
from scipy import stats
from urllib3.util import Retry

from pci_core.analysis.enrichment import COLUMNS, check_query
from pci_core.analysis.gene_sets import LEAST_RECOGNISED
from pci_core.errors import EnrichmentError
from pci_core.reading import read_json, refusing
from pci_core.storage import as_file_name, content_hash, write_json

ADDRESS = "https://biit.cs.ut.ee/gprofiler"
_WORTH_ANOTHER_TRY = (429, 500, 502, 503, 504)
_KEPT = (
    "query", "source", "native", "name", "p_value", "intersection_size", "query_size", "term_size", "effective_domain_size",
    "intersections",
)  # fmt: skip
_OFFLINE = "To do without it, choose the offline test: gene sets from a GMT file, pci_core.analysis.enrichment.enrich."


def gprofiler(
    clusters: Mapping[str, Sequence[str]],
    background: Sequence[str],
    organism: str,
    *,
    cache: str | os.PathLike[str],
    timeout: float = 60.0,
    retries: int = 3,
    sources: Sequence[str] = ("GO:CC",),
    address: str = ADDRESS,
    backoff: float = 1.0,
    refresh: bool = False,
    quiet: bool = False,
) -> pd.DataFrame:
    """Ask g:Profiler which terms the clusters are enriched in, or take its kept answer to the same question.

    Parameters
    ----------
    clusters : mapping of str to sequence of str
        Genes of each cluster; each is a query of its own, corrected by itself.
    background : sequence of str
        All genes that could have been in a cluster (g:Profiler's custom scope).
    organism : str
        As g:Profiler names it, e.g. ``hsapiens``.
    cache : path-like
        Folder of the kept answers: one JSON file for each question, with g:Profiler's version in it.
    timeout : float
        Seconds to wait for a connection, and for the answer, of each try.
    retries : int
        Further tries after a failed connection, a time-out, or status 429, 500, 502, 503 or 504.
    sources : sequence of str
        As g:Profiler names them; ``GO:CC`` is the cellular component.
    address : str
        Of the service; an archived release has an address of its own.
    backoff : float
        Seconds before the second of the further tries; each later one waits twice as long. The first comes at once.
    refresh : bool
        Ask again even where an answer is kept.
    quiet : bool
        Do not print where the answer comes from, its version and the share of genes recognised.

    Returns
    -------
    DataFrame
        As from `enrich`. ``fdr`` is g:Profiler's own; ``p``, which it does not give, is the hypergeometric chance worked
        out from its four counts. ``attrs`` holds ``version``, ``organism`` and ``file``.

    Raises
    ------
    EnrichmentError
        g:Profiler cannot be reached, is too slow, answers with an error or with what is no answer; a damaged kept
        answer; less than a fifth of the genes recognised. Nothing else is put in the place of the answer.
    """
    queries, universe = check_query(clusters, background)
    if not organism:
        raise EnrichmentError(f"g:Profiler needs an organism, such as hsapiens or scerevisiae: set 'organism' in the recipe. {_OFFLINE}")
    asked = {
        "organism": organism,
        "sources": sorted(sources),
        "background": sorted(universe),
        "query": {name: sorted(genes) for name, genes in queries.items()},
        "address": address,
    }
    path = Path(cache) / f"gprofiler_{as_file_name(organism)}_{content_hash(asked)[:16]}.json"
    kept = path.is_file() and not refresh
    if kept:
        answer = _read(path)
    else:
        answer = {"asked": asked, **_ask(asked, timeout, retries, backoff)}
        write_json(path, answer)
    genes: set[str] = set().union(*queries.values())
    share = _check_recognised(answer, genes)
    if not quiet:
        where = f"kept answer {path.name}" if kept else f"asked {address}"
        print(f"g:Profiler {answer['version']}, {where}: {share:.0%} of the {len(genes)} genes of the clusters recognised")
    table = _table(answer, list(queries))
    table.attrs = {"version": answer["version"], "organism": organism, "file": path.name}
    return table


def _ask(asked: Mapping[str, Any], timeout: float, retries: int, backoff: float) -> dict[str, Any]:
    """Return version, time, genes not recognised, and rows of the answer."""
    from gprofiler import GProfiler

    address = asked["address"]
    client = GProfiler(user_agent="pci_core", base_url=address)
    try:
        with _patient_requests(timeout, retries, backoff):
            rows = client.profile(
                query=dict(asked["query"]),
                organism=asked["organism"],
                sources=list(asked["sources"]),
                background=list(asked["background"]),
                all_results=True,
                no_evidences=False,  # the genes of each overlap
                significance_threshold_method="fdr",
            )
        meta: Any = client.meta
        answer = {
            "version": str(meta["version"]),
            "time": str(meta.get("timestamp", "")),
            "not_recognised": sorted(map(str, meta["genes_metadata"].get("failed") or [])),
            "result": [{key: row[key] for key in _KEPT} for row in rows],
        }
        _table(answer, list(asked["query"]))  # so that only what can be read is kept
    # the library checks the status with an AssertionError; the others are what a wrong answer makes it stumble over
    except AssertionError as error:
        raise EnrichmentError(f"g:Profiler at {address} answered with an error: {error}. {_OFFLINE}") from error
    except requests.exceptions.JSONDecodeError as error:
        raise EnrichmentError(f"g:Profiler at {address} answered with what is not JSON ({error}). {_OFFLINE}") from error
    except (requests.exceptions.Timeout, requests.exceptions.RetryError, requests.exceptions.ConnectionError) as error:
        tries = f"{retries + 1} tries of up to {timeout:g} s" if retries else f"one try of up to {timeout:g} s"
        raise EnrichmentError(f"g:Profiler at {address} gave no answer in {tries}: {_reason(error)}. {_OFFLINE}") from error
    except requests.exceptions.RequestException as error:
        raise EnrichmentError(f"g:Profiler at {address} could not be asked: {error}. {_OFFLINE}") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise EnrichmentError(
            f"the answer of g:Profiler at {address} has not the form expected ({type(error).__name__}: {error}). {_OFFLINE}"
        ) from error
    return answer


@contextlib.contextmanager
def _patient_requests(timeout: float, retries: int, backoff: float) -> Iterator[None]:
    """Let the library post through a session with a time-out and further tries while the block runs."""
    import gprofiler.gprofiler as library

    # a wish to wait is not followed: it may be an hour
    again = Retry(
        total=retries,
        backoff_factor=backoff / 2,
        status_forcelist=_WORTH_ANOTHER_TRY,
        allowed_methods=None,  # posting the same question twice does no harm
        respect_retry_after_header=False,
    )
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=again))
        given = library.requests
        library.requests = SimpleNamespace(post=functools.partial(session.post, timeout=timeout))
        try:
            yield
        finally:
            library.requests = given


def _reason(error: requests.exceptions.RequestException) -> str:
    """Return what was behind the last try, without the layers around it."""
    inner = error.args[0] if error.args else None
    return str(getattr(inner, "reason", None) or error)


def _read(path: Path) -> dict[str, Any]:
    again = "Delete the file and ask again."
    answer = read_json(path, EnrichmentError, again)
    with refusing(path, EnrichmentError, "is a damaged answer of g:Profiler", again):
        _table(answer, list(answer["asked"]["query"]))
        str(answer["version"]), str(answer["asked"]["organism"]), [name.casefold() for name in answer["not_recognised"]]
    return answer


def _check_recognised(answer: Mapping[str, Any], genes: Collection[str]) -> float:
    """Return the share of genes that g:Profiler knows, or raise where it is below a fifth."""
    unknown = {name.casefold() for name in answer["not_recognised"]}
    strange = sorted(gene for gene in genes if gene.casefold() in unknown)
    share = 1 - len(strange) / len(genes)
    if share < LEAST_RECOGNISED:
        raise EnrichmentError(
            f"g:Profiler recognises only {share:.0%} of the {len(genes)} genes as {answer['asked']['organism']}, not e.g. "
            f"{', '.join(strange[:3])}. It takes symbols, Ensembl, UniProt and the like: check the names and the organism of the recipe."
        )
    return share


def _table(answer: Mapping[str, Any], order: Sequence[str]) -> pd.DataFrame:
    """Lay out the rows of an answer as `enrich` does."""
    rows = pd.DataFrame(answer["result"], columns=list(_KEPT))
    whole = ["intersection_size", "query_size", "term_size", "effective_domain_size"]
    rows[whole] = rows[whole].astype("int64")
    overlap, size, term, domain = (rows[column].to_numpy() for column in whole)
    out = pd.DataFrame({"cluster": rows["query"].astype(str)})
    out["term"] = [f"{name} ({number})" for name, number in zip(rows["name"], rows["native"], strict=True)]
    out["source"] = rows["source"].astype(str)
    out["p"] = stats.hypergeom.sf(overlap - 1, domain, term, size)
    out["fdr"] = rows["p_value"].astype("float64")
    out["overlap"], out["cluster_size"], out["term_size"], out["background_size"] = overlap, size, term, domain
    out["genes"] = [";".join(sorted(map(str, genes))) for genes in rows["intersections"]]
    strange = sorted(set(out["cluster"]) - set(order))
    if strange:
        raise ValueError(f"rows for a query '{strange[0]}' that was not asked")
    place = out["cluster"].map({name: i for i, name in enumerate(order)})
    # by the corrected value first: it is g:Profiler's own
    key = pd.DataFrame({"place": place, "fdr": out["fdr"], "p": out["p"], "term": out["term"]}).sort_values(["place", "fdr", "p", "term"])
    return out.loc[key.index, list(COLUMNS)].reset_index(drop=True)
