"""Feature sets of different cells brought to the same cells by their id, and a user's own table as one more set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import anndata
import numpy as np
import pandas as pd

from pci_core.cells import TEXT_COLUMNS
from pci_core.errors import CellTableError, unknown_name
from pci_core.hdf5 import check_hdf5
from pci_core.reading import is_file, read_csv, refusing
from pci_core.unpacking import read_h5ad, read_parquet

FeatureSet: TypeAlias = anndata.AnnData | Sequence[anndata.AnnData]
ID_COLUMNS = ("cell_id", "Metadata_cell_id")
_NOT_FEATURES = {*TEXT_COLUMNS, "y", "x", "ImageNumber", "ObjectNumber"}  # where a cell lies and what number it has is no phenotype
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


@dataclass(frozen=True)
class Joined:
    """Feature sets of the same cells in the same order.

    Attributes
    ----------
    feature_sets : dict of str to list of AnnData
        By name, one a training seed; all with the cell table of the run.
    report : DataFrame
        ``features, n_cells, n_joined, n_left_out``: one row a name (of several seeds, the fewest).
    """

    feature_sets: dict[str, list[anndata.AnnData]]
    report: pd.DataFrame

    @property
    def text(self) -> str:
        """The difference in words."""
        n = int(self.report["n_joined"].iloc[0])
        short = self.report[self.report["n_left_out"] > 0]
        if short.empty:
            return f"All {len(self.report)} feature sets have the same {n:,} cells."
        parts = [f"{r.features} {r.n_left_out:,} of {r.n_cells:,}" for r in short.itertuples()]
        return f"{n:,} cells are in every feature set. Left out because another lacks them: {', '.join(parts)}."


def cell_ids(adata: anndata.AnnData, name: str) -> pd.Index:
    """Return the ids of the cells: the column ``cell_id``, or the names of the rows where there is none.

    Raises
    ------
    CellTableError
        An id occurs twice.
    """
    ids = pd.Index(adata.obs["cell_id"].astype(str) if "cell_id" in adata.obs else adata.obs_names.astype(str))
    double = ids[ids.duplicated()]
    if len(double):
        raise CellTableError(
            f"feature set '{name}': {len(double)} cell ids occur more than once, e.g. {double[:3].tolist()}. Give each cell one row."
        )
    return ids


def join(feature_sets: Mapping[str, FeatureSet], label: str) -> Joined:
    """Bring feature sets to the cells that all of them have, in one order and with one cell table.

    Parameters
    ----------
    feature_sets : dict of str to AnnData, or to several (one a training seed)
        By name. Cells are matched by id, see `cell_ids`.
    label : str
        Column to predict later: the first set that has it gives the cell table and the order. Columns
        that only another set has (a fold, a prediction) stay with that set.

    Returns
    -------
    Joined

    Raises
    ------
    CellTableError
        No set, doubled ids, or no cell in common.
    UnknownNameError
        No set has the label.
    """
    lists = {name: list(v) if not isinstance(v, anndata.AnnData) else [v] for name, v in feature_sets.items()}
    everything = [(name, a) for name, sets in lists.items() for a in sets]
    if not everything or not all(lists.values()):
        raise CellTableError("there is no feature set to compare. Name at least one.")
    giver = next(((name, a) for name, a in everything if label in a.obs), None)
    if giver is None:
        raise unknown_name("column", label, dict.fromkeys(c for _, a in everything for c in a.obs.columns))
    ids = {id(a): cell_ids(a, name) for name, a in everything}
    order = ids[id(giver[1])]
    common = np.ones(len(order), bool)
    for name, a in everything:
        here = order.isin(ids[id(a)])
        if not here.any():
            raise CellTableError(
                f"no cell of '{giver[0]}' is in '{name}': ids like {order[:2].tolist()} against {ids[id(a)][:2].tolist()}. "
                "The tables must name the same cells, in a column 'cell_id'."
            )
        common &= here
    if not common.any():
        raise CellTableError(f"no cell is in all of {', '.join(lists)}. Compare fewer feature sets, or make them of the same cells.")
    kept = order[common]
    table = giver[1].obs[common].set_axis(kept)
    out = {name: [_take(a, ids[id(a)], kept, table) for a in sets] for name, sets in lists.items()}
    rows = [{"features": name, "n_cells": min(a.n_obs for a in sets), "n_joined": len(kept)} for name, sets in lists.items()]
    report = pd.DataFrame(rows)
    return Joined(out, report.assign(n_left_out=report["n_cells"] - report["n_joined"]))


def _take(adata: anndata.AnnData, ids: pd.Index, kept: pd.Index, table: pd.DataFrame) -> anndata.AnnData:
    rows = ids.get_indexer(kept)
    if len(rows) < len(ids) or (rows != np.arange(len(rows))).any():
        adata = adata[rows]
    own = adata.obs[[c for c in adata.obs if c not in table]].set_axis(kept)
    obsm = {k: np.asarray(v) for k, v in adata.obsm.items()}
    return anndata.AnnData(adata.X, obs=pd.concat([table, own], axis=1), var=adata.var, uns=dict(adata.uns), obsm=obsm)


def read_table(path: str | os.PathLike[str]) -> anndata.AnnData:
    """Read a user's own table of features as a feature set.

    Parameters
    ----------
    path : path-like
        ``.parquet``, ``.csv``, ``.tsv``, ``.txt`` (tabs), the texts also as ``.gz``, or ``.h5ad``; with a column or an
        index ``cell_id`` or ``Metadata_cell_id``.

    Returns
    -------
    AnnData
        X float32 (cells, features): all numeric columns. Not features: texts, truth values, ``Metadata_…``, the
        columns of the cell table that name things or places (``image``, ``x``, ``y`` …), CellProfiler's
        ``ImageNumber`` and ``ObjectNumber``, and ``sim_…`` (the simulator's answers). Cells without any
        value, then columns that are NaN or infinite for some cell, are left out; ``uns["pci"]``
        counts and names them.

    Raises
    ------
    CellTableError
        The file is not there or cannot be read, has no id column, doubled or missing ids, a column
        twice, or no usable numeric column.
    """
    path = Path(path)
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix not in (".parquet", ".h5ad", *_SEPARATORS):
        raise CellTableError(f"{path}: unknown kind of table '{path.suffix}'. Use .parquet, .csv, .tsv or .h5ad.")
    if not is_file(path):
        raise CellTableError(f"{path} is not there. Give the path of a table with a column 'cell_id'.")
    if suffix == ".h5ad":
        check_hdf5(path, CellTableError, "Write it again, as parquet or CSV.")
    with refusing(path, CellTableError, f"cannot be read as {suffix[1:]}", "Write it again, as parquet or CSV."):
        if suffix == ".parquet":
            table = read_parquet(path)
        elif suffix == ".h5ad":
            table = _frame(read_h5ad(path))
        else:
            table = read_csv(path, sep=_SEPARATORS[suffix], dtype=dict.fromkeys(ID_COLUMNS, str), low_memory=False)
    return _feature_set(table, path)


def _frame(adata: anndata.AnnData) -> pd.DataFrame:
    x = adata.X if isinstance(adata.X, np.ndarray) else adata.X.toarray()  # else a sparse matrix
    found = [adata.obs[c] for c in ID_COLUMNS if c in adata.obs]
    ids = found[0].to_numpy() if found else adata.obs_names.to_numpy()
    return pd.DataFrame(x, columns=adata.var_names).assign(cell_id=ids)


def _feature_set(table: pd.DataFrame, path: Path) -> anndata.AnnData:
    if table.index.name in ID_COLUMNS and table.index.name not in table:
        table = table.reset_index()
    id_column = next((c for c in ID_COLUMNS if c in table), None)
    if id_column is None:
        raise CellTableError(
            f"{path} has no column or index 'cell_id' (nor 'Metadata_cell_id'); found {table.columns[:8].tolist()}. "
            "Add one with the ids of the run's cells, so that rows can be matched."
        )
    twice = table.columns[table.columns.duplicated()].unique()
    if len(twice):
        raise CellTableError(f"{path}: columns {twice[:3].tolist()} occur more than once. Rename them.")
    if table[id_column].isna().any():
        raise CellTableError(f"{path}: {int(table[id_column].isna().sum())} rows have no '{id_column}'. Fill it or drop them.")
    ids = table[id_column].astype(str)
    double = ids[ids.duplicated()]
    if len(double):
        raise CellTableError(
            f"{path}: {len(double)} values of '{id_column}' occur more than once, e.g. {double.iloc[:3].tolist()}. Give each cell one row."
        )
    numbers = [c for c in table if pd.api.types.is_numeric_dtype(table[c]) and not pd.api.types.is_bool_dtype(table[c])]
    features = [c for c in numbers if c not in _NOT_FEATURES and not str(c).startswith(("Metadata_", "sim_"))]
    if not features:
        raise CellTableError(f"{path} has no numeric column to take as a feature; found {table.columns[:8].tolist()}.")
    values = table[features].to_numpy(np.float64, na_value=np.nan)
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32))  # what float32 cannot hold is infinite too
    rows = finite.any(1)
    columns = finite[rows].all(0)
    if not rows.any() or not columns.any():
        raise CellTableError(
            f"{path}: every one of {len(features)} numeric columns is NaN or infinite for some cell. Drop those cells or fill the columns."
        )
    left_out = [str(f) for f, ok in zip(features, columns, strict=True) if not ok]
    facts = {
        "model": "table",
        "file": path.name,
        "cells_without_values": int((~rows).sum()),
        "columns_not_finite": left_out,
        "columns_not_features": [str(c) for c in table if c not in features and c != id_column],
    }
    index = pd.Index(ids.to_numpy()[rows], dtype=object)
    x = values[np.ix_(rows, columns)].astype(np.float32)
    var = pd.DataFrame(index=[str(f) for f, ok in zip(features, columns, strict=True) if ok])
    return anndata.AnnData(x, obs=pd.DataFrame({"cell_id": index}, index=index), var=var, uns={"pci": facts})


def left_out_by_reading(adata: anndata.AnnData) -> str:
    """Say in words what `read_table` left out, or give an empty text."""
    facts = adata.uns.get("pci", {})
    columns = list(facts.get("columns_not_finite", []))
    told = []
    if len(columns):
        told.append(f"{len(columns)} columns that are NaN or infinite for some cell, e.g. {', '.join(columns[:3])}")
    if facts.get("cells_without_values", 0):
        told.append(f"{facts['cells_without_values']} cells without any value")
    return f"Left out of {facts.get('file', 'the table')}: {'; '.join(told)}." if told else ""
