"""Names of cell locations in the Human Protein Atlas (HPA), between its files and its releases.

The XML writes ``nuclear speckles`` where the tables write ``Nuclear speckles``, and two names of release 18
are gone from later ones. ``hpa_locations.tsv`` was counted from two tables of HPA
(``subcellular_location.tsv`` of release 18 and of release 21 or later; names by Human Protein Atlas,
proteinatlas.org, CC BY-SA): for each name its GO id, the number of genes that carry it in either table, and
for a name that the later table no longer has, the name that most of its genes newly carry there, with both
counts over the genes of both tables. A test recounts it.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Name:
    """One location name and what is known of it."""

    name: str
    go: str  # "GO:0005829", or "" where HPA gives none
    genes_v18: int  # genes that carry it in the table of release 18; 0: not used there
    genes_v21: int  # in the later table; 0: no longer used
    now: str  # for a name no longer used: what most of its genes newly carry
    now_genes: int  # how many of them ...
    of_genes: int  # ... of the genes that carry the old name and are in both tables


@cache
def names() -> tuple[Name, ...]:
    """Return all known location names, sorted."""
    text = (resources.files("pci_core") / "data" / "hpa_locations.tsv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    counts = ("genes_v18", "genes_v21", "now_genes", "of_genes")
    return tuple(Name(name=r["name"], go=r["go"], now=r["now"], **{c: int(r[c] or 0) for c in counts}) for r in rows)


def _key(term: str) -> str:
    return re.sub(r"\s+", " ", term.replace("&", " and ")).strip().casefold()


@cache
def _by_key() -> dict[str, Name]:
    return {_key(n.name): n for n in names()}


@cache
def _by_go() -> dict[str, Name]:
    """Names by GO id, only where one name alone has it (nucleoli and their rim share one)."""
    uses = Counter(n.go for n in names() if n.go)
    return {n.go: n for n in names() if uses.get(n.go) == 1}


def canonical(term: str, go: str = "") -> str:
    """Return the spelling of HPA's tables for a location; an unknown term comes back as it is.

    Parameters
    ----------
    term : str
        A name in any case, with ``&`` or ``and``.
    go : str
        Its GO id where known: a term of unknown name takes the name that alone has this GO id.

    Returns
    -------
    str
        ``"Nuclear speckles"`` for ``"nuclear speckles"``. Names of one release are never merged: ``"Nucleus"``
        stays ``"Nucleus"``, see `current`.
    """
    known = _by_key().get(_key(term)) or _by_go().get(go)
    return known.name if known else term.strip()


def current(term: str, go: str = "") -> str:
    """Return the name that stands for a location in later releases.

    ``"Nucleus"`` became ``"Nucleoplasm"`` (1,760 of 1,839 genes in both tables) and ``"Microtubule organizing
    center"`` became ``"Centriolar satellite"`` (105 of 126); any other name is `canonical`. The change is
    HPA's own, made gene by gene: for single genes it may not hold.
    """
    name = canonical(term, go)
    known = _by_key().get(_key(name))
    return known.now if known and known.now else name


def same_location(a: str, b: str, *, across_releases: bool = True) -> bool:
    """Say whether two terms name one location.

    Parameters
    ----------
    a, b : str
        Names in any spelling.
    across_releases : bool
        Take a name that later releases replaced for its successor (`current`): needed to compare release
        18 with a later one. False within one release, where "Nucleus" and "Nucleoplasm" are two classes.
    """
    rename = current if across_releases else canonical
    return _key(rename(a)) == _key(rename(b))


def unknown_locations(terms: Iterable[str]) -> list[str]:
    """Return the terms whose name neither table has, each once, sorted; they are to be looked at, not guessed."""
    return sorted({t.strip() for t in terms if t.strip() and _key(t) not in _by_key()})


def go_id(term: str) -> str:
    """Return the GO id that HPA gives a location name, or "" where the name is unknown or has none."""
    known = _by_key().get(_key(term))
    return known.go if known else ""
