"""Entries of the Human Protein Atlas (HPA) read from its XML: antibodies, locations and the addresses of immunofluorescence images.

Read as a stream of events, so that memory does not grow with the file: the XML of one gene has some
20,000 lines, nearly all about tissue sections, and the whole atlas is one file of gigabytes. No tree is
built; DTDs, entities and external references are refused (defusedxml). Written against the real entry of
CCNB1 in release 18; what is known of later releases (version 25: a ``subtype`` of sub-assays, four channels,
``imageUrlTif``, another host) comes from public descriptions of their files.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import cast
from xml.sax import SAXParseException

from defusedxml.common import DefusedXmlException
from defusedxml.expatreader import DefusedExpatParser

from pci_core.data.hpa_entry import HUMAN, Antibody, Entry, Image, Location, Tally, entry_rows
from pci_core.data.hpa_events import EntryHandler, FaultError
from pci_core.data.hpa_locations import unknown_locations
from pci_core.errors import DatasetError

__all__ = ["HUMAN", "Antibody", "Entry", "Image", "Location", "Tally", "entry_rows", "read_entries"]

_BLOCK = 1 << 18  # bytes given to the parser at a time
_LONGEST_TOKEN = 2 << 20  # bytes without any event: one tag, text or comment of that size is no atlas


def read_entries(path: str | os.PathLike[str], genes: Collection[str] | None = None, tally: Tally | None = None) -> Iterator[Entry]:
    """Give the entries of an HPA XML file one after another, in constant memory.

    Parameters
    ----------
    path : path-like
        One entry (``ENSG….xml``) or the whole atlas (``proteinatlas.xml``), plain or gzipped (told by content).
    genes : collection of str, optional
        Only entries with one of these as symbol, Ensembl id or synonym, in any case. A synonym of one gene may
        be the symbol of another: both are given then, and `tally` tells which is which.
    tally : Tally, optional
        Filled with counts while the entries are read.

    Yields
    ------
    Entry
        In the order of the file. A second entry of the same Ensembl id is left out and counted. An entry
        without immunofluorescence is given, with no antibody that has images.

    Raises
    ------
    DatasetError
        No such file, not XML, another kind of XML, a DTD or entities, an entry without Ensembl id or name, a
        file that is cut off or damaged. Entries before the fault have been given by then; the message says how many.
    """
    tally = Tally() if tally is None else tally
    wanted: dict[str, list[str]] | None = None if genes is None else {}
    for gene in genes or ():
        cast(dict[str, list[str]], wanted).setdefault(_gene_key(gene), []).append(gene)
    seen: set[str] = set()
    for entry in _stream(Path(path), tally):
        tally.entries += 1
        if entry.ensembl in seen:
            tally.duplicates.append(entry.ensembl)
            continue
        seen.add(entry.ensembl)
        if wanted is not None and not _answers(entry, wanted, tally):
            continue
        kinds = Counter(i.assay for a in entry.antibodies for i in a.images)
        tally.given += 1
        tally.images.update(kinds)
        tally.unknown_locations.update(unknown_locations(_terms(entry)))
        tally.without_images += not kinds[HUMAN]
        yield entry
    if genes is not None:
        tally.missing = [g for g in genes if g not in tally.found and g not in tally.by_synonym]


def _gene_key(gene: str) -> str:
    key = gene.strip().upper()
    return key.partition(".")[0] if key.startswith("ENS") else key  # ENSG00000134057.15 is a version of the same gene


def _terms(entry: Entry) -> set[str]:
    return {x.term for x in entry.locations} | {x.term for a in entry.antibodies for i in a.images for x in i.locations}


def _answers(entry: Entry, wanted: Mapping[str, list[str]], tally: Tally) -> bool:
    direct = {g for key in (entry.ensembl, _gene_key(entry.protein)) for g in wanted.get(key, ())}
    synonyms = {g for key in map(_gene_key, entry.synonyms) for g in wanted.get(key, ())} - direct
    for genes, into in ((direct, tally.found), (synonyms, tally.by_synonym)):
        for gene in genes:
            into.setdefault(gene, []).append(entry.ensembl)
    return bool(direct or synonyms)


def _stream(path: Path, tally: Tally) -> Iterator[Entry]:
    if not path.is_file():
        raise DatasetError(f"{path} is not there. Download the entry or the atlas as XML first.")
    handler = EntryHandler(tally)
    parser = DefusedExpatParser(forbid_dtd=True)
    parser.setContentHandler(handler)
    handler.setDocumentLocator(parser)
    given, silent, fault = 0, 0, ""
    with _open(path) as handle:
        while not fault:
            block, events = b"", handler.events
            try:
                block = handle.read1(_BLOCK)  # of a gzip file that is cut off, all that can be unpacked
                if block:
                    parser.feed(block)
                else:
                    parser.close()
                    fault = "" if handler.events else " is empty. Download it again"
            except SAXParseException as error:
                fault = _broken(error, handler, at_end=not block)
            except DefusedXmlException as error:
                fault = (
                    _page(error, handler)
                    or f" holds a DTD or entities ({error}), which no file of HPA has; it was not read further. Do not use it"
                )
            except EOFError:
                fault = " is a gzip file that is cut off. Download it again"
            except (gzip.BadGzipFile, zlib.error) as error:
                fault = f" is a damaged gzip file ({error}). Download it again"
            except FaultError as error:
                fault = f", {error}"
            silent = 0 if handler.events > events else silent + len(block)
            if silent > _LONGEST_TOKEN:
                fault = (
                    f", line {handler.line()}: a single tag, text or comment of more than {_LONGEST_TOKEN >> 20} MB. This is no file of HPA"
                )
            done, handler.done = handler.done, []
            given += len(done)
            yield from done
            if not block:
                break
    if fault:
        read = f" Entries before that, which were read: {given}." if handler.events else ""
        raise DatasetError(f"{path}{fault}.{read}")


def _open(path: Path) -> BufferedReader | gzip.GzipFile:
    try:
        with open(path, "rb") as handle:
            start = handle.read(2)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}). Check its permissions and the disk.") from error
    if not start:
        raise DatasetError(f"{path} is empty. Download it again.")
    return gzip.GzipFile(path, "rb") if start == b"\x1f\x8b" else open(path, "rb")


def _page(error: DefusedXmlException, handler: EntryHandler) -> str:
    html = not handler.events and getattr(error, "name", "").casefold() == "html"
    return " is an HTML page, no XML of HPA: a server sent a page instead. Check the gene and the address" if html else ""


def _broken(error: SAXParseException, handler: EntryHandler, at_end: bool) -> str:
    where = f"line {error.getLineNumber()}"
    if not handler.events:
        return f" is not XML ({where}: {error.getMessage()}). Look into it: a server may have sent a page or an error instead"
    if at_end:
        return f" is cut off: it ends in {where} before the XML does. Download it again"
    return f" is damaged in {where} ({error.getMessage()}). Download it again"
