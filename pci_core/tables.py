"""CSV for people and for our own readers: a text that a spreadsheet would run as a formula gets an apostrophe in front.

A name such as ``=HYPERLINK(…)`` in somebody's table of genes is a text to pandas and a program to a spreadsheet. The rule, for
all tables that this package writes as CSV: a text that begins with ``=``, ``+``, ``-``, ``@`` (also the wide forms of these), a
tab or a line break, whatever apostrophes stand before it, gets one more apostrophe; numbers stay as they are, also those that are
kept as text. `pci_core.reading.read_csv` takes it away again, so that every text comes back as it was. Parquet, which no
spreadsheet opens, holds the texts themselves.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import pandas as pd

from pci_core.storage import atomic_path

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def guarded(value: Any) -> Any:
    """Return a text with an apostrophe in front where a spreadsheet would take it for a formula; anything else as it is."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value


def unguarded(value: Any) -> Any:
    """Return what `guarded` was given."""
    return value[1:] if isinstance(value, str) and value.startswith("'") and _FORMULA.match(value) else value


def to_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV without its index, texts and names of columns guarded."""
    shown = table.copy(deep=False)
    for place, dtype in enumerate(table.dtypes):
        if not (pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_datetime64_any_dtype(dtype)):
            shown.isetitem(place, table.iloc[:, place].astype(object).map(guarded))
    shown.columns = pd.Index([guarded(c) for c in table.columns], dtype=object)
    # a bare carriage return would end the row for a reader: Python's csv quotes it only where it is told that it ends lines
    stream = io.StringIO()
    quoted = csv.QUOTE_NONNUMERIC if any(_breaks(shown.iloc[:, i]) for i in range(shown.shape[1])) else csv.QUOTE_MINIMAL
    shown.to_csv(stream, index=False, quoting=quoted, lineterminator="\n")
    return stream.getvalue()


def _breaks(column: pd.Series) -> bool:
    return column.dtype == object and any(isinstance(v, str) and "\r" in v for v in column)


def write_csv(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table as CSV in UTF-8, whole or not at all, see `to_csv`."""
    text = to_csv(table)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as handle:
        handle.write(text)


def write_rows(handle: IO[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]], head: bool = True) -> None:
    """Write rows as CSV to a file that is open for text with ``newline=""``; what a row has beyond `columns` is left out.

    Parameters
    ----------
    handle : file
    columns : sequence of str
    rows : iterable of mapping
        Written one by one, so that memory stays flat.
    head : bool
        Write the names of the columns first.
    """
    writer = csv.DictWriter(handle, columns, extrasaction="ignore")
    if head:
        writer.writeheader()
    writer.writerows({key: guarded(value) for key, value in row.items()} for row in rows)


def read_rows(handle: IO[str]) -> Iterable[dict[str, str]]:
    """Yield the rows that `write_rows` wrote."""
    for row in csv.DictReader(handle):
        yield {key: unguarded(value) for key, value in row.items()}


def restored(table: pd.DataFrame) -> pd.DataFrame:
    """Take the apostrophes of `guarded` away from a table that was read from a CSV of ours, or a user's own; in place."""
    for place, dtype in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(dtype):
            table.isetitem(place, table.iloc[:, place].map(unguarded, na_action="ignore"))
    table.columns = pd.Index([unguarded(c) for c in table.columns])
    return table
