"""Gene sets: GMT files in, and what to say where genes and sets do not speak the same language.

A GMT is a text file of one set a line: name, description and genes, with tabs between. Embedded are the true
locations of the simulated proteins, ``gmt/<organism>.gmt``; they are made by ``python tools/gene_sets.py``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from pci_core.errors import EnrichmentError

EMBEDDED = "embedded"
FOLDER = Path(__file__).with_name("gmt")
LEAST_RECOGNISED = 0.2  # below it, genes and sets are most likely named in different ways
_KINDS = {
    "Ensembl genes": r"ENS[A-Z]*G\d{6,}(\.\d+)?",
    "Entrez numbers": r"\d+",
    "UniProt accessions": r"[OPQ]\d[A-Z\d]{3}\d|[A-NR-Z]\d([A-Z][A-Z\d]{2}\d){1,2}",
    "systematic yeast names": r"Y[A-P][LR]\d{3}[WC](-[A-Z])?",
    "gene symbols": r"[A-Z][A-Z\d]{1,9}(-[A-Z\d]+)?",
    "gene symbols in lower or mixed case": r"[A-Za-z][A-Za-z\d]{1,9}(-[A-Za-z\d]+)?",
}


def read_gmt(path: str | os.PathLike[str], *, quiet: bool = False) -> dict[str, frozenset[str]]:
    """Read a GMT file.

    Parameters
    ----------
    path : path-like
        Text, UTF-8: name, description, genes, with tabs between; blank lines are passed over.
    quiet : bool
        Do not print how many genes stood twice in a set, or were left blank.

    Returns
    -------
    dict of str to frozenset of str
        Genes of each set, in the order of the file. A gene that stands twice in a set counts once.

    Raises
    ------
    EnrichmentError
        No such file, no text, a line without a tab, a name or a gene, or a set that stands there twice.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise EnrichmentError(f"cannot read the gene sets {path}: {error.strerror}. Give the path of a GMT file.") from error
    except UnicodeDecodeError as error:
        raise EnrichmentError(f"{path} is not a text file in UTF-8 ({error.reason}), so no GMT of gene sets.") from error
    sets: dict[str, frozenset[str]] = {}
    first_line: dict[str, int] = {}
    doubled = blank = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, genes = _parse(line, f"{path}, line {number}")
        if name in sets:
            raise EnrichmentError(
                f"{path}: the set '{name}' stands in line {first_line[name]} and again in line {number}. Remove one of them."
            )
        named = [gene for gene in genes if gene]
        blank += len(genes) - len(named)
        sets[name], first_line[name] = frozenset(named), number
        doubled += len(named) - len(sets[name])
    if not sets:
        raise EnrichmentError(f"{path} holds no gene set: every line of a GMT is a name, a description and genes, with tabs between.")
    if doubled and not quiet:
        print(f"{path.name}: {doubled} genes stand twice in their set; each was counted once")
    if blank and not quiet:
        print(f"{path.name}: {blank} blank fields between genes were passed over")
    return sets


def _parse(line: str, where: str) -> tuple[str, list[str]]:
    """Return name and genes, which may be blank, of one line."""
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) == 1:
        raise EnrichmentError(
            f"{where}: no tab in '{_short(line)}'. Each line of a GMT is a name, a description (which may be empty) and genes, with tabs "
            "between; were the tabs turned into spaces?"
        )
    if not fields[0]:
        raise EnrichmentError(f"{where}: the set has no name (the line begins with a tab): '{_short(line)}'.")
    if not any(fields[2:]):
        raise EnrichmentError(f"{where}: the set '{fields[0]}' has no genes; they begin in the third column, behind the description.")
    return fields[0], fields[2:]


def gene_sets(name_or_path: str | os.PathLike[str], organism: str) -> dict[str, frozenset[str]]:
    """Return gene sets by name, or from a GMT file.

    Parameters
    ----------
    name_or_path : str or path-like
        ``embedded``: the true locations of the simulated proteins; anything else is the path of a GMT.
    organism : str
        As in the recipe, e.g. ``hsapiens``; chooses among the embedded ones and says nothing about a file.

    Returns
    -------
    dict of str to frozenset of str

    Raises
    ------
    EnrichmentError
        As `read_gmt`; or nothing is embedded for this organism.
    """
    if str(name_or_path) != EMBEDDED:
        return read_gmt(name_or_path)
    known = sorted(path.stem for path in FOLDER.glob("*.gmt"))
    if organism not in known:
        raise EnrichmentError(
            f"no gene sets are embedded for the organism '{organism}' (there are: {', '.join(known)}). Set 'organism' in the recipe, "
            "or give the path of a GMT file."
        )
    return read_gmt(FOLDER / f"{organism}.gmt")


def recognised(genes: Collection[str], sets: Mapping[str, Collection[str]]) -> float:
    """Return the share of `genes` that are in any of the sets.

    Raises
    ------
    EnrichmentError
        It is below `LEAST_RECOGNISED`: the message shows what the names look like here and there.
    """
    known: set[str] = set().union(*sets.values())
    genes = set(genes)
    share = len(genes & known) / len(genes) if genes else 0.0
    if share >= LEAST_RECOGNISED:
        return share
    folded = {gene.casefold() for gene in known}
    in_any_case = sum(gene.casefold() in folded for gene in genes) / max(len(genes), 1)
    if in_any_case >= LEAST_RECOGNISED:
        what = f"{in_any_case:.0%} would be if upper and lower case were the same: write both alike."
    else:
        what = "Name the genes as the sets do, or take sets of the same kind of names and the same organism."
    raise EnrichmentError(
        f"only {share:.0%} of the {len(genes)} genes are in any gene set (less than {LEAST_RECOGNISED:.0%}). "
        f"Here: {_look(genes)}; in the sets: {_look(known)}. {what}"
    )


def _look(names: Iterable[str]) -> str:
    """Describe names: a few of them and what they most likely are."""
    names = sorted(names)
    if not names:
        return "none"
    shown = ", ".join(names[:: max(1, len(names) // 4)][:4])
    kinds = Counter(next((kind for kind, form in _KINDS.items() if re.fullmatch(form, name)), "other names") for name in names)
    return f"{shown} ({kinds.most_common(1)[0][0]})"


def _short(line: str) -> str:
    return line if len(line) <= 40 else line[:40] + "…"
