"""What a benchmark found, on disk and back: parquet and CSV for each table, and one JSON of everything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pci_core.errors import DatasetError
from pci_core.provenance import CSV_KEY, KEY, record, text_sha256
from pci_core.reading import read_json, refusing
from pci_core.storage import atomic_path, write_json, write_text
from pci_core.tables import to_csv

SCORES = (
    "features", "classifier", "k", "left_out", "accuracy", "low", "high", "n_cells", "n_classes", "n_groups", "n_features", "n_seeds",
)  # fmt: skip
RECALLS = ("features", "classifier", "k", "left_out", "label", "recall", "n_cells")
_TABLES = ("scores", "recalls", "omitted")


@dataclass(frozen=True)
class Benchmark:
    """What `pci_core.analysis.benchmark.benchmark` found.

    Attributes
    ----------
    scores : DataFrame
        ``features, classifier, k`` (0 where there is none), ``left_out`` (``cell``, or the column whose cells
        were left out together), ``accuracy, low, high`` (balanced, [0, 1]), ``n_cells, n_classes, n_groups,
        n_features, n_seeds``.
    recalls : DataFrame
        ``features, classifier, k, left_out, label, recall, n_cells``.
    confusion : dict of (str, str) to DataFrame
        By name and what is left out: counts for kNN with k = 11, or the nearest k asked for. With
        several seeds every cell counts once a seed.
    omitted : DataFrame
        ``what, n_cells, why``: what was left out, and what a reader must know of the rest.
    settings : dict
        Label, group, k, classes, seeds, version.
    """

    scores: pd.DataFrame
    recalls: pd.DataFrame
    confusion: dict[tuple[str, str], pd.DataFrame]
    omitted: pd.DataFrame
    settings: dict[str, Any]

    def save(self, folder: str | os.PathLike[str], stem: str) -> Path:
        """Write ``<stem>_scores``, ``_recalls`` and ``_omitted`` as parquet and CSV, and all of it as ``<stem>.json``."""
        folder = Path(folder)
        for name in _TABLES:
            save_table(getattr(self, name), folder / f"{stem}_{name}")
        content: dict[str, Any] = {"settings": self.settings, **{name: _records(getattr(self, name)) for name in _TABLES}}
        content["confusion"] = [
            {"features": f, "left_out": w, "rows": t.index.tolist(), "columns": t.columns.tolist(), "counts": t.to_numpy().tolist()}
            for (f, w), t in self.confusion.items()
        ]
        content["provenance"] = record("table", stem).plain()
        write_json(folder / f"{stem}.json", content)
        return folder / f"{stem}.json"

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Benchmark:
        """Read the JSON that `save` wrote.

        Raises
        ------
        DatasetError
            It is not there, or is none.
        """
        again = "Make it again with 'pci benchmark'."
        content = read_json(path, DatasetError, again)
        with refusing(path, DatasetError, "is no readable benchmark", again):
            # an interval that is missing in every row comes back as NaN, not as None
            tables = {n: pd.DataFrame(content[n]["rows"], columns=content[n]["columns"]).astype(content[n]["types"]) for n in _TABLES}
            confusion = {
                (c["features"], c["left_out"]): pd.DataFrame(
                    c["counts"], index=pd.Index(c["rows"], name="label"), columns=pd.Index(c["columns"], name="predicted")
                )
                for c in content["confusion"]
            }
            settings = dict(content["settings"])
        return cls(**tables, confusion=confusion, settings=settings)


def save_table(table: pd.DataFrame, stem: str | os.PathLike[str]) -> None:
    """Write a table as parquet and CSV under one name; the parquet says where both come from, see `pci_core.provenance`."""
    stem = Path(stem)
    text = to_csv(table)
    content = pa.Table.from_pandas(table, preserve_index=False)
    known = {KEY: record("table", stem.name).text(), CSV_KEY: text_sha256(text)}
    with atomic_path(stem.with_name(stem.name + ".parquet")) as temporary:
        pq.write_table(content.replace_schema_metadata({**(content.schema.metadata or {}), **known}), temporary)
    write_text(stem.with_name(stem.name + ".csv"), text)


def _records(table: pd.DataFrame) -> dict[str, Any]:
    rows = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    return {"columns": table.columns.tolist(), "types": {c: str(t) for c, t in table.dtypes.items()}, "rows": rows}
