"""Measurements that came with ready crops: what their columns are, and the file beside the cells that keeps them."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pci_core.cells import CellDataset
from pci_core.errors import DatasetError
from pci_core.reading import refusing
from pci_core.storage import atomic_path, file_sha256

PROVIDED = "provided.parquet"

# What tells where a cell came from, by its name without case, spaces and signs. The long ones are those of DeepLoc's SQL_data.csv.
_TOLD = {
    "protein": ("protein", "proteinname", "gene", "genename", "genesymbol", "standardname"),
    "orf": ("orf", "orfname", "systematicname"),
    "screen": ("screen", "cscreen"),
    "plate": ("plate", "plateid", "platename", "platenumber"),
    "well": ("well", "wellid", "wellname", "nwellidf"),
    "site": ("imagefilenamegfp", "filenamegfp", "imagefilename", "filename", "imagename", "imagenumber", "imageid"),
    "x": ("cellslocationcenterx", "locationcenterx", "centerx", "x"),
    "y": ("cellslocationcentery", "locationcentery", "centery", "y"),
}
_ROLE = {name: role for role, names in _TOLD.items() for name in names}
# where a cell lies and how it was counted is no property of the cell, and what belongs to an image gives the image away
_NO_FEATURE = re.compile(
    r"(^|_)(image|metadata|filename|pathname|url|parent|children|tablenumber|origindex|unnamed|index|id|row|col|column|plate|well|field|site"
    r"|screen|orf|gene|protein|class|label)(_|\d|$)|imagenumber|objectnumber|object_number|location_|center_[xyz](_|$)|boundingbox",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Columns:
    """What columns of measurements are.

    Attributes
    ----------
    told : dict of str to str
        Column by what it tells: ``protein``, ``orf``, ``screen``, ``plate``, ``well``, ``site``, ``x``, ``y``.
    features : list of str
        Properties of the cell.
    others : list of str
        Numbers that are none: coordinates, identifiers, counters.
    """

    told: dict[str, str] = field(default_factory=dict)
    features: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def sort_columns(names: list[str], text: set[str]) -> Columns:
    """Tell what columns are by their names; those in `text` hold texts and are no features."""
    told: dict[str, str] = {}
    for name in names:
        role = _ROLE.get(re.sub(r"[^a-z0-9]", "", name.lower()))
        if role and (role not in told or (role == "site" and told[role] not in text and name in text)):
            told[role] = name
    numeric = [n for n in names if n not in text]
    features = [n for n in numeric if n not in told.values() and not _NO_FEATURE.search(n)]
    return Columns(told, features, [n for n in numeric if n not in features])


def pack(table: pd.DataFrame) -> tuple[bytes, dict[str, Any]]:
    """Return measurements as the bytes of ``provided.parquet`` and what ``dataset.json`` says of them."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    content = buffer.getvalue()
    return content, {"columns": table.shape[1] - 1, "sha256": hashlib.sha256(content).hexdigest()}


def write_provided(folder: Path, content: bytes) -> None:
    """Put ``provided.parquet`` beside the cells."""
    with atomic_path(folder / PROVIDED) as temporary:
        temporary.write_bytes(content)


def read_provided(dataset: CellDataset) -> pd.DataFrame:
    """Read the measurements that came with a dataset's cells.

    Returns
    -------
    DataFrame
        One row a cell in the order of the dataset; numeric columns, which may hold NaN.

    Raises
    ------
    DatasetError
        Nothing came with them, or the file is not the one that was written.
    """
    known = dataset.info.get("provided")
    if not isinstance(known, dict):
        raise DatasetError(
            f"{dataset.folder}: no measurements came with these cells ({known or 'their source has none'}). The feature set 'provided' is "
            "for sources that hand some out, such as the recipe chong. For others use cellprofiler, or your own table with --table."
        )
    # a sample of the cells lies beside all of them
    path = next((p for p in (dataset.folder / PROVIDED, dataset.folder.parent / "cells" / PROVIDED) if p.is_file()), None)
    if path is None or file_sha256(path) != known["sha256"]:
        raise DatasetError(
            f"{dataset.folder / PROVIDED} is gone or was changed after it was written. Delete {dataset.folder} and run 'pci cells' again."
        )
    with refusing(path, DatasetError, "cannot be read", f"Delete {dataset.folder} and run 'pci cells' again."):
        table = pd.read_parquet(path).set_index("cell_id")
    rows = dataset.table["cell_id"]
    if missing := int((~rows.isin(table.index)).sum()):
        raise DatasetError(f"{path} lacks {missing} of {len(rows)} cells. Delete {dataset.folder} and run 'pci cells' again.")
    return table.loc[rows]
