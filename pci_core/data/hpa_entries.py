"""Which genes of the Human Protein Atlas (HPA) are meant, and the rows of their entries: one row an image of cells.

For a few genes the entries are fetched one by one, for many or all the whole atlas in one file. Both lie under
``<folder>/entries/<release>``; what is there is not fetched again.
"""

from __future__ import annotations

import difflib
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from tqdm import tqdm

from pci_core.data.hpa_addresses import Release
from pci_core.data.hpa_tables import read_locations
from pci_core.data.hpa_xml import entry_rows, read_entries
from pci_core.data.polite import NotThere, PoliteSession
from pci_core.data.side_by_side import side_by_side
from pci_core.errors import DownloadError, UnknownNameError
from pci_core.storage import atomic_path
from pci_core.tables import read_rows, write_rows

WHOLE_ATLAS_FROM = 500  # genes: an entry has about 1 MB, the whole atlas about 700 MB in gzip
ROW = ("ensembl", "protein", "antibody", "cell_line", "url", "location", "go", "reliability", "variation_intensity", "variation_spatial",
       "release")  # fmt: skip
_ENSEMBL = re.compile(r"ENSG\d{11}")
_NEAR = 20  # unknown genes for which near misses are looked up


class Entries:
    """The entries of one release in a folder.

    Parameters
    ----------
    folder : Path
        The download's folder.
    release : Release
    session : PoliteSession
    progress : bool
        Progress bars on stderr.
    """

    def __init__(self, folder: Path, release: Release, session: PoliteSession, progress: bool = False) -> None:
        self.release, self.session, self.progress = release, session, progress
        self.folder = folder / "entries" / release.name
        self.whole_file = self.folder / "proteinatlas.xml.gz"

    def known_genes(self) -> dict[str, list[str]]:
        """Return the Ensembl ids of every gene name in the release's table of locations, and of every id itself; upper case.

        Raises
        ------
        DownloadError
            The table could not be had or has other columns.
        """
        path = self.folder / "subcellular_location.tsv.zip"
        if not path.is_file():
            self.session.download(self.release.locations, path, check=lambda p: None if _table(p) else None, limit=64 << 20)
        out: dict[str, list[str]] = {}
        for ensembl, name in _table(path):
            out.setdefault(ensembl, [ensembl])
            if name and ensembl not in out.setdefault(name.upper(), []):
                out[name.upper()].append(ensembl)
        return out

    def resolve(self, genes: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the Ensembl ids of genes given by name or id, and the genes that the release does not know.

        An id that the table does not have may still have an entry; for few genes, that turns out when it is fetched.
        """
        wanted = list(dict.fromkeys(g.strip() for g in genes if g.strip()))
        if not wanted:
            raise UnknownNameError("no gene was named. Give gene names or Ensembl ids, or ask for all.")
        few = len(wanted) <= WHOLE_ATLAS_FROM
        keys = {g: g.upper().partition(".")[0] if g.upper().startswith("ENSG") else g.upper() for g in wanted}  # no version of an id
        if few and all(_ENSEMBL.fullmatch(key) for key in keys.values()):
            return list(dict.fromkeys(keys.values())), []
        known = self.known_genes()
        ids, unknown = [], []
        for gene, key in keys.items():
            if key in known:
                ids += known[key]
            elif few and _ENSEMBL.fullmatch(key):
                ids.append(key)
            else:
                unknown.append(gene)
        return list(dict.fromkeys(ids)), unknown

    def unknown(self, genes: Sequence[str], asked: int) -> UnknownNameError:
        """Build the error for genes that the release does not have, with near misses."""
        table = self.folder / "subcellular_location.tsv.zip"
        names = sorted({name for _, name in _table(table)}) if table.is_file() else []
        upper = {n.upper(): n for n in names}
        told = []
        for i, gene in enumerate(genes):
            near = difflib.get_close_matches(gene.upper(), upper, n=3, cutoff=0.7) if i < _NEAR else []
            told.append(f"{gene} (near: {', '.join(upper[n] for n in near)})" if near else gene)
        return UnknownNameError(
            f"{len(genes)} of {asked} genes are not among those of which release {self.release.name} of the Human Protein Atlas has "
            f"images of cells: {', '.join(told)}. Nothing was downloaded for the others; correct the names (current gene symbols or "
            "Ensembl ids), or leave the unknown ones out with --skip-unknown."
        )

    # --- rows

    def rows(self, ids: Sequence[str] | None) -> Iterator[dict[str, str]]:
        """Yield the rows (`ROW`) of the genes `ids`, or of all; genes without an entry are listed in `missing`.

        Raises
        ------
        DownloadError
            An entry could not be had or is damaged.
        """
        self.missing: list[str] = []
        if ids is None or len(ids) > WHOLE_ATLAS_FROM:
            wanted = None if ids is None else set(ids)
            yield from (row for row in self._whole() if wanted is None or row["ensembl"] in wanted)
            return
        paths = {i: self.folder / f"{i}.xml" for i in ids}
        self._fetch([i for i, path in paths.items() if not path.is_file()])
        for ensembl, path in paths.items():
            if ensembl not in self.missing:
                yield from _rows_of(path)

    def _fetch(self, ids: list[str]) -> None:
        def one(ensembl: str) -> None:
            self.session.download(
                self.release.entry(ensembl),
                self.folder / f"{ensembl}.xml",
                check=partial(_is_entry, ensembl=ensembl),
                limit=256 << 20,
                compressed=True,
            )

        work = side_by_side(ids, one, self.session.manners.connections, self.session.stop)
        with closing(work), tqdm(total=len(ids), desc="entries", unit=" genes", disable=not self.progress or not ids) as bar:
            for ensembl, result in work:
                bar.update()
                if isinstance(result, NotThere):
                    self.missing.append(ensembl)
                elif isinstance(result, Exception):
                    raise result

    def newer_addresses(self, ensembl: str) -> list[str]:
        """Return the image addresses of one gene's entry in this release, none where there is no entry."""
        path = self.folder / f"{ensembl}.xml"
        if not path.is_file():
            try:
                self.session.download(
                    self.release.entry(ensembl), path, check=partial(_is_entry, ensembl=ensembl), limit=256 << 20, compressed=True
                )
            except NotThere:
                return []
        return [row["url"] for row in _rows_of(path)]

    def _whole(self) -> Iterator[dict[str, str]]:
        table = self.folder / "all_images.csv"
        if not self.whole_file.is_file():
            self.session.download(self.release.whole_atlas, self.whole_file, check=_is_gzip, limit=16 << 30)
            table.unlink(missing_ok=True)
        if not table.is_file():  # reading 20 GB of XML takes many minutes: done once
            with atomic_path(table) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
                entries = tqdm(read_entries(self.whole_file), desc="reading the atlas", unit=" genes", disable=not self.progress)
                write_rows(handle, ROW, (row for entry in entries for row in entry_rows(entry)))
        with open(table, newline="", encoding="utf-8") as handle:
            yield from read_rows(handle)


def _rows_of(path: Path) -> list[dict[str, str]]:
    return [row for entry in read_entries(path) for row in entry_rows(entry)]


def _is_entry(path: Path, ensembl: str) -> None:
    found = [entry.ensembl for entry in read_entries(path)]
    if found != [ensembl]:
        raise DownloadError(f"expected the entry of {ensembl}, found {', '.join(found[:3]) or 'none'}")


def _is_gzip(path: Path) -> None:
    with open(path, "rb") as handle:
        if handle.read(2) != b"\x1f\x8b":
            raise DownloadError("no gzip file")
    try:
        with gzip.open(path) as stream:
            stream.read(64)
    except (OSError, EOFError, zlib.error) as error:
        raise DownloadError(f"no gzip file ({error})") from error


def _table(path: Path) -> list[tuple[str, str]]:
    """Return Ensembl id and name of every gene of a table of locations."""
    table = read_locations(path)
    return list(zip(table["ensembl"], table["protein"], strict=True))
