"""Files that others wrote, read without trust: whatever a library makes of damage becomes an error of ours that names the file.

Libraries raise errors of every kind on bytes that nobody foresaw, and other ones in their next version. So `refusing` takes all of
them, and is put around the library's call alone: what our own code does with the content stands outside of it.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from pci_core.errors import PCIError
from pci_core.tables import restored
from pci_core.unpacking import open_gzip

_NOT_DAMAGE = {
    errno.EACCES: "you may not read it; change its permissions",
    errno.EPERM: "you may not read it; change its permissions",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n) or take fewer --jobs",
    errno.ENFILE: "too many files are open on this machine; close some",
    errno.EIO: "the disk or network folder does not answer as it should; copy the file elsewhere",
}
_TOLD = 160  # characters of a library's own words


@contextlib.contextmanager
def refusing(path: str | os.PathLike[str], kind: type[PCIError], what: str, remedy: str) -> Iterator[None]:
    """Turn any error of a library under the block into one of ours: ``<path> <what> (<its words>). <remedy>``.

    Parameters
    ----------
    path : path-like
        The file that is read.
    kind : type of PCIError
        Raised in place of the library's.
    what : str
        What is wrong, e.g. ``"is damaged or no parquet"``.
    remedy : str
        What to do, one or more sentences.

    Raises
    ------
    PCIError
        Of `kind`; errors of this package under the block go through as they are, and so does a library that is not installed.
    """
    try:
        yield
    except (PCIError, ImportError):
        raise
    except OSError as error:
        if error.errno in _NOT_DAMAGE:
            raise kind(f"{path} cannot be read: {_NOT_DAMAGE[error.errno]}.") from error
        raise kind(f"{path} {what} ({in_short(error)}). {remedy}") from error
    except Exception as error:
        raise kind(f"{path} {what} ({in_short(error)}). {remedy}") from error


def is_file(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is there; a name that no file can have (too long, with a byte of zero) is none."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_dir(path: str | os.PathLike[str]) -> bool:
    """Tell whether a folder is there, as `is_file` does."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def in_short(error: BaseException) -> str:
    """Return an error's own words on one line, with its type where the words alone say little."""
    if isinstance(error, MemoryError):
        return "by its header it needs more memory than there is"
    if isinstance(error, RecursionError):
        return "brackets within brackets, far too deep"
    words = " ".join(str(error).split())
    words = words if len(words) <= _TOLD else words[:_TOLD] + "…"
    return words if len(words) > 20 and not isinstance(error, (KeyError, AttributeError, TypeError)) else f"{type(error).__name__}: {words}"


def read_json(path: str | os.PathLike[str], kind: type[PCIError], remedy: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises
    ------
    PCIError
        Of `kind`: not there, damaged, or no object.
    """
    with refusing(path, kind, "is damaged or no JSON", remedy):
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise kind(f"{path} is damaged: it holds {type(content).__name__} where names with values should be. {remedy}")
    return content


def read_note(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read a JSON object that may be lost without harm; None where it is not there or damaged: what it tells of is made again."""
    try:
        return read_json(path, PCIError, "")
    except PCIError:
        return None


def read_csv(path: str | os.PathLike[str], sep: str = ",", **how: Any) -> pd.DataFrame:
    """Read a CSV in UTF-8, plain or gzipped (``.gz``), every row of which has as many values as the header; use under `refusing`.

    pandas alone fills up short rows, takes surplus values of the first row for names of rows, and goes on behind a quote that is not
    closed: a file that is cut off, or lost a comma, would pass with its columns shifted. Costs a second pass over the text.
    The apostrophes that `pci_core.tables` puts before formulas are taken away.

    Parameters
    ----------
    path : path-like
    sep : str
        What stands between values.
    **how
        For `pandas.read_csv`.

    Returns
    -------
    DataFrame

    Raises
    ------
    ValueError, OSError
        And others of pandas and of the decoders.
    """
    packed = Path(path).suffix == ".gz"
    raw = open_gzip(Path(path)) if packed else open(path, "rb")  # noqa: SIM115 closed with the text around it
    with io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as handle:
        rows = csv.reader(handle, delimiter=sep, strict=True)
        width = 0
        for row in rows:
            if not row or (len(row) == 1 and not row[0].strip()):
                continue  # a blank line
            width = width or len(row)
            if len(row) != width:
                raise ValueError(f"line {rows.line_num} has {len(row)} values, the header {width}")
            if any("\0" in value for value in row):
                raise ValueError(f"line {rows.line_num} has bytes of zero in it")
    return restored(pd.read_csv(path, sep=sep, encoding="utf-8-sig", **how))
