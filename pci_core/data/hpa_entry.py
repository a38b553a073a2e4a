"""What an entry of the Human Protein Atlas (HPA) says about immunofluorescence, as plain records. Read by `hpa_xml`.

Where things stand in an entry: reliability and locations of the gene (main, additional) come first; then, for
each antibody, sub-assays of kinds "human" (the atlas proper), "mouse", "sirna", "gfp" and "custom", each with
its own images. Locations and single-cell variation are given for an antibody *in a cell line* and hold for
all its images there; nothing is annotated image by image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

HUMAN = "human"


@dataclass(frozen=True)
class Location:
    """A place in the cell, spelt as in HPA's tables (``hpa_locations.canonical``)."""

    term: str
    go: str = ""  # "GO:0005829", or "" where the file gives none
    status: str = ""  # "main" or "additional" (gene level only), else ""
    intensity: bool = False  # varies between single cells in intensity
    spatial: bool = False  # varies between single cells in place


@dataclass(frozen=True)
class Image:
    """One immunofluorescence field of view; the address is that of the colour composite, as the file gives it."""

    url: str
    cell_line: str
    locations: tuple[Location, ...] = ()  # of the antibody in this cell line
    assay: str = HUMAN  # "human", "mouse", "sirna", "gfp", "custom", or "human (ciliated cell lines)" and the like
    channels: tuple[tuple[str, str], ...] = ()  # colour and what it shows, e.g. ("blue", "nucleus")
    magnification: str = ""  # e.g. "10" where given; the atlas proper gives none


@dataclass(frozen=True)
class Antibody:
    """One antibody; locations and variation are those of its images of kind "human", each named once."""

    id: str
    reliability: str = ""
    locations: tuple[Location, ...] = ()
    variation_intensity: tuple[str, ...] = ()  # terms that vary in some cell line
    variation_spatial: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One gene; variation is gathered from its antibodies, since the gene's own part of the file does not give it."""

    protein: str
    ensembl: str
    synonyms: tuple[str, ...] = ()
    release: str = ""  # "18"
    reliability: str = ""  # "Enhanced", "Supported", "Approved" or "Uncertain"
    locations: tuple[Location, ...] = ()  # of the gene, with status
    variation_intensity: tuple[str, ...] = ()
    variation_spatial: tuple[str, ...] = ()
    antibodies: tuple[Antibody, ...] = ()
    cell_cycle: bool = False  # a custom assay found the protein to depend on the cell cycle
    url: str = ""  # the entry's own page, e.g. "http://v18.proteinatlas.org/ENSG00000134057"


@dataclass
class Tally:
    """What `hpa_xml.read_entries` met; filled while it runs."""

    entries: int = 0  # in the file, all genes
    given: int = 0
    without_images: int = 0  # given, but without an image of kind "human"
    duplicates: list[str] = field(default_factory=list)  # Ensembl ids met again and left out
    images: Counter[str] = field(default_factory=Counter)  # of the entries given, by kind of sub-assay
    images_without_address: int = 0  # images of the whole file with no http(s) address; left out
    images_twice: int = 0  # images of the whole file given again in one sub-assay of an antibody; left out
    unknown_locations: Counter[str] = field(default_factory=Counter)  # terms that `hpa_locations` does not know; kept as they are
    found: dict[str, list[str]] = field(default_factory=dict)  # gene asked for -> Ensembl ids with this symbol or id
    by_synonym: dict[str, list[str]] = field(default_factory=dict)  # gene asked for -> Ensembl ids with it as a synonym
    missing: list[str] = field(default_factory=list)  # genes asked for that no entry answers to; known at the end


def variation(locations: Collection[Location]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the terms that vary between single cells in intensity, and those that vary in place, each once."""
    return tuple(dict.fromkeys(x.term for x in locations if x.intensity)), tuple(dict.fromkeys(x.term for x in locations if x.spatial))


def entry_rows(entry: Entry, assays: Collection[str] = (HUMAN,)) -> list[dict[str, str]]:
    """Return one row an immunofluorescence image.

    Parameters
    ----------
    entry : Entry
        From `hpa_xml.read_entries`.
    assays : collection of str
        Kinds of sub-assay. The default is the atlas proper: "sirna" has images of cells in which the protein is
        knocked down and at other magnifications, "mouse" another species, "gfp" and "custom" other stainings.

    Returns
    -------
    list of dict
        Keys ensembl, protein, antibody, cell_line, url, location, go, reliability (the antibody's, else the
        gene's), variation_intensity, variation_spatial, release; all text. Terms are joined by ``;``, GO ids
        too, in the order of the terms and empty for a term without one. An antibody that binds several genes'
        proteins brings the same address under each of them.
    """
    rows = []
    for antibody in entry.antibodies:
        for image in antibody.images:
            if image.assay not in assays:
                continue
            intensity, spatial = variation(image.locations)
            rows.append(
                {
                    "ensembl": entry.ensembl,
                    "protein": entry.protein,
                    "antibody": antibody.id,
                    "cell_line": image.cell_line,
                    "url": image.url,
                    "location": ";".join(x.term for x in image.locations),
                    "go": ";".join(x.go for x in image.locations),
                    "reliability": antibody.reliability or entry.reliability,
                    "variation_intensity": ";".join(intensity),
                    "variation_spatial": ";".join(spatial),
                    "release": entry.release,
                }
            )
    return rows
