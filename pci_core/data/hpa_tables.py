"""Tables of the Human Protein Atlas (HPA): locations of genes (``subcellular_location.tsv``), and tables of images.

The columns of ``subcellular_location.tsv`` changed between releases: up to 18 one column a reliability
("Validated", "Supported", ...), later also "Main location" and "Additional location", and "Enhanced" for
"Validated". Both forms come out with the same columns here.
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pandas as pd

from pci_core.data.archives import open_zip
from pci_core.data.hpa_locations import canonical, unknown_locations
from pci_core.errors import DatasetError

logger = logging.getLogger(__name__)

_MOST_BYTES = 64 << 20  # unpacked; the real tables have 2 to 4 MB
_ENSEMBL = re.compile(r"ENS[A-Z]*\d{6,}")
_GO = re.compile(r"(?P<term>.*\S)\s*\((?P<go>GO:\d{7})?\)")
_IMAGE_ID = re.compile(r"(?P<plate>[A-Za-z0-9]+)_(?P<well>[A-P]\d{1,2})_(?P<field>\d+)")
_GRADES = ("enhanced", "supported", "approved", "uncertain")
# our column: its names in the releases, in any case; columns of terms are told apart below
_COLUMNS = {
    "ensembl": ("gene",),
    "protein": ("gene name",),
    "reliability": ("reliability",),
    "main": ("main location",),
    "additional": ("additional location",),
    "extracellular": ("extracellular location",),
    "enhanced": ("enhanced", "validated"),
    "supported": ("supported",),
    "approved": ("approved",),
    "uncertain": ("uncertain",),
    "variation_intensity": ("single-cell variation intensity",),
    "variation_spatial": ("single-cell variation spatial",),
    "cell_cycle": ("cell cycle dependency",),
    "go": ("go id",),
}
_TERMS = ("main", "additional", "extracellular", *_GRADES, "variation_intensity", "variation_spatial")
_IMAGE_COLUMNS = {
    "id": ("id",),
    "cell_line": ("cell line", "cellline", "cell_line"),
    "location": ("location", "label_idx"),
    "ensembl": ("gene", "ensembl"),
    "protein": ("gene name", "protein"),
    "antibody": ("antibody id", "antibody"),
    "variation": ("single-cell variation",),
}


def read_locations(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read HPA's table of locations, of any release from 18 on.

    Parameters
    ----------
    path : path-like
        ``subcellular_location.tsv``, plain, ``.gz`` or ``.zip`` (told by content).

    Returns
    -------
    DataFrame
        One row a gene, all text, in the order of the file: ensembl, protein, reliability ("Validated" of
        release 18 reads "Enhanced"), main and additional (empty in release 18), extracellular, enhanced,
        supported, approved, uncertain, variation_intensity, variation_spatial, cell_cycle, location (all
        places inside the cell) and go. Terms are joined by ``;``; ``go`` has one id a term of ``location``, in
        the same order, empty where HPA gives none. Terms that `hpa_locations` does not know stay as they are
        and are named in the log.

    Raises
    ------
    DatasetError
        No such file, damaged or of another form: columns missing, ids that are no Ensembl genes, a gene twice.
    """
    raw = _read(path, "\t")
    names = _match(raw, _COLUMNS)
    grades = [g for g in _GRADES if g in names]
    lacking = [_COLUMNS[n][0] for n in ("ensembl", "protein", "reliability") if n not in names]
    if lacking or not (grades or "main" in names):
        lacking += [] if grades else ["main location"]
        raise DatasetError(
            f"{path} is no table of HPA's locations: no column {', '.join(repr(n) for n in lacking)}; found "
            f"{', '.join(map(str, raw.columns[:20]))}. Give subcellular_location.tsv of release 18 or later."
        )
    table = pd.DataFrame({n: raw[names[n]].str.strip() if n in names else "" for n in _COLUMNS}, index=raw.index)
    _check_genes(table["ensembl"], path)
    go = [_go_ids(cell) for cell in table["go"]]
    for column in _TERMS:
        table[column] = [";".join(_terms(cell)) for cell in table[column]]
    table["reliability"] = table["reliability"].replace("Validated", "Enhanced")
    places = [list(dict.fromkeys(t for cell in row for t in _terms(cell))) for row in table[["main", "additional", *_GRADES]].to_numpy()]
    table["location"] = [";".join(p) for p in places]
    table["go"] = [";".join(ids.get(t, "") for t in p) for p, ids in zip(places, go, strict=True)]
    _report_unknown((t for p in places for t in p), path)
    return table[[*(n for n in _COLUMNS if n != "go"), "location", "go"]]


def join_locations(
    table: pd.DataFrame, locations: pd.DataFrame, how: Literal["left", "inner"] = "left", prefix: str = "gene_"
) -> tuple[pd.DataFrame, list[str]]:
    """Join what HPA knows of the gene to any table with a column ``ensembl``.

    Parameters
    ----------
    table : DataFrame
        Cells, images or proteins; its index and order stay. Versions of ids (``ENSG00000134057.15``) do not matter.
    locations : DataFrame
        From `read_locations`.
    how : {"left", "inner"}
        Keep rows whose gene is not in `locations`, with empty text, or leave them out.
    prefix : str
        Before the name of each column that comes in, since `table` may have its own ``location`` (the image's).

    Returns
    -------
    joined : DataFrame
        `table` with the columns of `locations`.
    missing : list of str
        Genes that are not in `locations`, sorted; their number is also logged.

    Raises
    ------
    DatasetError
        No column ``ensembl``, an unknown `how`, or a column that is there already.
    """
    if how not in ("left", "inner"):
        raise DatasetError(f"how = {how!r} is unknown. Use 'left' (keep rows of unknown genes) or 'inner' (leave them out).")
    if "ensembl" not in locations.columns or locations["ensembl"].duplicated().any():
        raise DatasetError("the locations must have a column 'ensembl' with each gene once. Take them from read_locations.")
    if "ensembl" not in table.columns:
        raise DatasetError(f"the table has no column 'ensembl' to join by; found {', '.join(map(str, table.columns[:20]))}. Add it.")
    keys = table["ensembl"].astype(str).str.strip().str.partition(".")[0]
    facts = locations.set_index("ensembl").add_prefix(prefix)
    taken = [c for c in facts.columns if c in table.columns]
    if taken:
        raise DatasetError(f"the table already has {', '.join(taken)}. Drop them first, or give another prefix.")
    known = keys.isin(facts.index)
    missing = sorted(set(keys[~known]))
    if missing:
        rows = int((~known).sum())
        logger.warning("%d of %d genes (%d rows) are not in HPA's table of locations", len(missing), keys.nunique(), rows)
    joined = pd.concat([table, facts.reindex(keys).fillna("").set_axis(table.index)], axis=1)
    return (joined[known] if how == "inner" else joined), missing


def read_image_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of HPA images named ``<plate>_<well>_<field>``, for those who have images but no XML.

    Parameters
    ----------
    path : path-like
        CSV, plain, ``.gz`` or ``.zip``, as published with image sets drawn from HPA: a column ``ID``, and any of
        ``Cell line`` / ``Cellline``, ``Location`` (terms joined by ``;``) / ``Label_idx`` (by ``,``), ``Gene``, ``Gene
        name``, ``Antibody id``, ``Single-cell variation``.

    Returns
    -------
    DataFrame
        All text, one row each of the file: id, plate, well, field, cell_line, location, ensembl, protein, antibody,
        variation ("true", "false" or ""); empty where the file has no such column. An image occurs once for each
        gene that its antibody stands for.

    Raises
    ------
    DatasetError
        No such file, damaged, no column ``ID``, or ids of another form.
    """
    raw = _read(path, ",")
    names = _match(raw, _IMAGE_COLUMNS)
    if "id" not in names:
        raise DatasetError(f"{path} is no table of HPA images: no column 'ID'; found {', '.join(map(str, raw.columns[:20]))}.")
    ids = raw[names["id"]].str.strip()
    parts = ids.str.extract(f"^{_IMAGE_ID.pattern}$")
    if (bad := ids[parts["plate"].isna()]).size:
        raise DatasetError(
            f"{path}: {bad.size} ids are not <plate>_<well>_<field>, e.g. {', '.join(map(repr, bad[:5]))} (line {bad.index[0] + 2}). "
            "Give the images' own names without channel or suffix."
        )
    table = pd.DataFrame({n: raw[names[n]].str.strip() if n in names else "" for n in _IMAGE_COLUMNS}, index=raw.index)
    comma = "location" in names and names["location"].strip().casefold() == "label_idx"
    table["location"] = [";".join(_terms(cell.replace(",", ";") if comma else cell)) for cell in table["location"]]
    table["variation"] = table["variation"].str.casefold()
    _report_unknown((t for cell in table["location"] for t in cell.split(";")), path)
    return pd.concat([table[["id"]], parts, table.drop(columns="id")], axis=1)


def _match(raw: pd.DataFrame, known: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Find which column of the file is which of ours; the first name that is there counts."""
    there = {str(c).strip().casefold(): str(c) for c in raw.columns}
    return {ours: there[name] for ours, names in known.items() for name in reversed(names) if name in there}


def _terms(cell: str) -> list[str]:
    return [canonical(t) for t in cell.split(";") if t.strip()]


def _go_ids(cell: str) -> dict[str, str]:
    found = (_GO.fullmatch(part.strip()) for part in cell.split(";"))
    return {canonical(m["term"]): m["go"] or "" for m in found if m}


def _report_unknown(terms: Iterable[str], path: str | os.PathLike[str]) -> None:
    if unknown := unknown_locations(set(terms)):
        logger.warning("%s: %d location names are not known and kept as they are: %s", path, len(unknown), ", ".join(unknown[:20]))


def _check_genes(ids: pd.Series, path: str | os.PathLike[str]) -> None:
    bad = ids[~ids.str.fullmatch(_ENSEMBL)]
    if bad.size:
        raise DatasetError(
            f"{path}: {bad.size} rows without an Ensembl gene id in column 'Gene', e.g. {bad.iloc[0]!r} in line {bad.index[0] + 2}. "
            "Give the table as HPA hands it out."
        )
    twice = ids[ids.duplicated()]
    if twice.size:
        raise DatasetError(f"{path}: {twice.nunique()} genes occur more than once, e.g. {twice.iloc[0]} in line {twice.index[0] + 2}.")


def _read(path: str | os.PathLike[str], separator: str) -> pd.DataFrame:
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"{path} is not there. Download the table first.")
    try:
        rows = list(csv.reader(io.StringIO(_bytes(path).decode("utf-8-sig"), newline=""), delimiter=separator, strict=True))
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is no UTF-8 text ({error.reason} at byte {error.start}). Give the table as HPA hands it out."
        ) from error
    except csv.Error as error:
        raise DatasetError(f"{path} cannot be read as a table: {error}. Download it again.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(f"{path} is a gzip file that is cut off or damaged ({error}). Download it again.") from error
    while rows and not rows[-1]:  # empty lines at the end
        rows.pop()
    if len(rows) < 2:
        raise DatasetError(f"{path} has no rows below its header. Download it again.")
    if len(set(rows[0])) < (width := len(rows[0])):
        raise DatasetError(f"{path} has a column twice in its header: {', '.join(rows[0][:20])}. Give the table as HPA hands it out.")
    odd = [n for n, row in enumerate(rows, start=1) if len(row) != width]
    if odd:  # pandas would fill up rows that are cut off
        raise DatasetError(
            f"{path}: {len(odd)} rows do not have the {width} columns of the header, the first in line {odd[0]} with "
            f"{len(rows[odd[0] - 1])}. The file is cut off, damaged or no table of HPA; download it again."
        )
    return pd.DataFrame(rows[1:], columns=rows[0], dtype=str)


def _bytes(path: Path) -> bytes:
    """Return the content of a plain, gzipped or zipped table; what unpacks to more than a table can have is refused."""
    with open(path, "rb") as handle:
        start = handle.read(4)
    if start == b"PK\x03\x04":
        with open_zip(path) as archive:  # bounds what it unpacks, too
            tables = [n for n in archive.names if n.casefold().endswith((".tsv", ".csv", ".txt"))]
            if len(tables) != 1:
                raise DatasetError(
                    f"{path} holds {len(tables)} tables, expected one: {', '.join(archive.names[:10])}. Unpack it and name one."
                )
            return archive.read(tables[0])
    with gzip.open(path, "rb") if start[:2] == b"\x1f\x8b" else open(path, "rb") as handle:
        content = handle.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise DatasetError(f"{path} has more than {_MOST_BYTES >> 20} MB of text. This is no table of HPA's locations or images.")
    return content
