"""Entries of the Human Protein Atlas (HPA) read from its XML: antibodies, locations and the addresses of immunofluorescence images."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Location:
    """A place in the cell as HPA names it."""

    term: str
    go: str = ""  # "GO:0005829", or "" where the file gives none
    status: str = ""  # "main" or "additional" (gene level only), else ""
    intensity: bool = False  # varies between single cells in intensity
    spatial: bool = False  # varies between single cells in place


@dataclass(frozen=True)
class Image:
    """One immunofluorescence field of view: the address is that of the composite, as the file gives it."""

    url: str
    cell_line: str
    locations: tuple[Location, ...] = ()
    assay: str = "human"  # kind of sub-assay: "human" is the atlas proper; "mouse", "sirna", "gfp", "custom" are not
    channels: tuple[tuple[str, str], ...] = ()  # colour and what it shows, e.g. ("blue", "nucleus")
    magnification: str = ""  # e.g. "10" where given


@dataclass(frozen=True)
class Antibody:
    """One antibody; locations and variation are those of its images in human cell lines, each named once."""

    id: str
    reliability: str = ""
    locations: tuple[Location, ...] = ()
    variation_intensity: tuple[str, ...] = ()  # terms
    variation_spatial: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One gene."""

    protein: str
    ensembl: str
    synonyms: tuple[str, ...] = ()
    release: str = ""  # "18"
    reliability: str = ""
    locations: tuple[Location, ...] = ()  # of the gene, with status
    variation_intensity: tuple[str, ...] = ()
    variation_spatial: tuple[str, ...] = ()
    antibodies: tuple[Antibody, ...] = ()
    cell_cycle: bool = False  # a cell cycle assay found the protein to depend on it
    url: str = ""  # the entry's own page, e.g. "http://v18.proteinatlas.org/ENSG00000134057"


@dataclass
class Tally:
    """What `read_entries` met, filled while it runs."""

    entries: int = 0  # in the file, all genes
    given: int = 0
    without_images: int = 0  # given, but no immunofluorescence image in human cell lines
    duplicates: list[str] = field(default_factory=list)  # Ensembl ids met again and left out
    found: dict[str, list[str]] = field(default_factory=dict)  # wanted gene -> Ensembl ids of the entries that answer to it
    missing: list[str] = field(default_factory=list)  # wanted genes that no entry answers to, known at the end


def read_entries(path: str | os.PathLike[str], genes: Collection[str] | None = None, tally: Tally | None = None) -> Iterator[Entry]:
    """Give the entries of an XML file one after another (plain or gzipped, one entry or the whole atlas)."""
    raise NotImplementedError


def entry_rows(entry: Entry, assays: Collection[str] = ("human",)) -> list[dict[str, str]]:
    """Return one row an immunofluorescence image.

    Columns: ensembl, protein, antibody, cell_line, url, location, go (joined by ';', same order), reliability,
    variation_intensity, variation_spatial (terms joined by ';'), release.
    """
    raise NotImplementedError
