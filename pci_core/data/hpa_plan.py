"""Which images of the Human Protein Atlas (HPA) a download is to have, found before any of them is fetched."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pci_core.data.hpa_addresses import Release, parse_image_address, secure
from pci_core.data.hpa_addresses import release as named_release
from pci_core.data.hpa_entries import Entries
from pci_core.data.polite import PoliteSession
from pci_core.errors import DownloadError


@dataclass(frozen=True)
class Selection:
    """What is wanted of the entries; empty = all.

    Attributes
    ----------
    cell_lines : tuple of str
        Compared without spaces, hyphens and case: releases write ``U-2 OS`` and ``U2OS``.
    antibodies : tuple of str
        ``HPA030741``, ``CAB000115``.
    reliability : tuple of str
        Of the antibody: enhanced, supported, approved, uncertain.
    images_per_gene, fields_per_image : int
        The first so many, in the order of the entry; 0 = all. An image is a protein in a cell line with an antibody.
    """

    cell_lines: tuple[str, ...] = ()
    antibodies: tuple[str, ...] = ()
    reliability: tuple[str, ...] = ()
    images_per_gene: int = 0
    fields_per_image: int = 0


@dataclass
class Plan:
    """The fields of view of a download.

    Attributes
    ----------
    release : Release
    folder : Path
    rows : list of dict
        One a field: the columns of an entry's rows, with ``field``, ``image``, ``file`` (in the folder), ``plate``, ``well``.
    left_out : list of dict
        ``url``, ``reason`` of fields that cannot be used.
    skipped : Counter
        Fields that were not asked for, by the option that leaves them out.
    unknown : list of str
        Genes that the release does not have.
    empty : list of str
        Genes (Ensembl ids) that have an entry, but no image of cells; not known for all genes.
    """

    release: Release
    folder: Path
    rows: list[dict[str, str]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def count(self, column: str) -> int:
        """Return how many values a column of the rows has."""
        return len({row[column] for row in self.rows})


def plan(
    genes: Sequence[str] | None,
    folder: str | os.PathLike[str],
    *,
    release: str | Release = "18",
    selection: Selection | None = None,
    skip_unknown: bool = False,
    session: PoliteSession | None = None,
    progress: bool = False,
) -> Plan:
    """Find out which images a download is to have; fetches entries and tables into the folder, no image.

    Parameters
    ----------
    genes : sequence of str or None
        Gene names or Ensembl ids; None = the whole atlas.
    folder : path-like
        Of the download.
    release : str or Release
        ``"18"`` as in the paper, another number, or ``"newest"``.
    selection : Selection, optional
    skip_unknown : bool
        Leave genes out that the release does not have, instead of an error.
    session : PoliteSession, optional
    progress : bool
        Progress bars on stderr.

    Returns
    -------
    Plan

    Raises
    ------
    UnknownNameError
        Genes that the release does not have; nothing is fetched then but tables and entries.
    DownloadError
        A table or entry could not be had, or nothing is left of the images.
    """
    release = named_release(release) if isinstance(release, str) else release
    session = session or PoliteSession(trusted=release.trusts)
    out = Plan(release, Path(folder))
    entries = Entries(out.folder, release, session, progress)
    ids: list[str] | None = None
    if genes is not None:
        ids, out.unknown = entries.resolve(genes)
        if out.unknown and not skip_unknown:
            raise entries.unknown(out.unknown, len(genes))
    chooser = _Chooser(out, selection or Selection())
    seen = set(map(chooser.take, entries.rows(ids)))
    out.unknown += entries.missing
    if entries.missing and not skip_unknown:
        raise entries.unknown(entries.missing, len(genes or ()))
    out.empty = [i for i in ids or () if i not in seen and i not in entries.missing]
    if not out.rows:
        raise DownloadError(chooser.explain())
    return out


class _Chooser:
    """Takes the rows of entries into a plan, or counts why not."""

    def __init__(self, plan: Plan, selection: Selection) -> None:
        self.plan, self.selection = plan, selection
        self.wanted = {
            "cell_line": {_plain(c) for c in selection.cell_lines},
            "antibody": {_plain(a) for a in selection.antibodies},
            "reliability": {_plain(r) for r in selection.reliability},
        }
        self.met: dict[str, set[str]] = {column: set() for column in self.wanted}
        self.gene_of: dict[str, str] = {}  # of each field that was taken
        self.images: dict[str, dict[str, int]] = {}  # fields taken of each image, by gene

    def take(self, row: dict[str, str]) -> str:
        """Add a row or note why not; returns its gene."""
        for column, values in self.met.items():
            values.add(row[column])
        reason = self._unusable(row)
        if reason:
            self.plan.left_out.append({"url": row["url"], "reason": reason})
        elif why := self._unwanted(row):
            self.plan.skipped[why] += 1
        return row["ensembl"]

    def _unusable(self, row: dict[str, str]) -> str:
        if not self.plan.release.trusts(secure(row["url"])):
            return "the address is not one of the atlas"
        try:
            lacks = parse_image_address(row["url"]).lacks
        except DownloadError:
            return "an address of unknown form"
        return f"no {' and no '.join(lacks)} channel" if lacks else ""

    def _unwanted(self, row: dict[str, str]) -> str:
        for column, values in self.wanted.items():
            if values and _plain(row[column]) not in values:
                return column.replace("_", " ")
        address, gene = parse_image_address(row["url"]), row["ensembl"]
        image = f"{row['protein']}_{row['antibody']}_{row['cell_line']}"
        other = self.gene_of.get(address.field)
        if other is not None:
            return "named twice" if other == gene else "already taken for another gene of the same antibody"
        images, limit = self.images.setdefault(gene, {}), self.selection
        if limit.images_per_gene and image not in images and len(images) >= limit.images_per_gene:
            return "images per gene"
        if limit.fields_per_image and images.get(image, 0) >= limit.fields_per_image:
            return "fields per image"
        self.gene_of[address.field] = gene
        images[image] = images.get(image, 0) + 1
        place = {"field": address.field, "image": image, "file": f"images/{address.file}", "plate": address.plate, "well": address.well}
        self.plan.rows.append({**row, **place})
        return ""

    def explain(self) -> str:
        """Say why no image is left."""
        text = "no image of cells is left to download."
        for reason, n in Counter(row["reason"] for row in self.plan.left_out).most_common():
            text += f" {n} left out: {reason}."
        for reason, n in self.plan.skipped.most_common():
            text += f" {n} not asked for ({reason})."
        for column, values in self.met.items():
            if self.wanted[column]:
                text += f" Values of {column.replace('_', ' ')} there: {', '.join(sorted(values)) or 'none'}."
        return text


def _plain(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper())
