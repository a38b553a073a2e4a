"""CellDataset -> AnnData, one for each feature set, all layers in one pass and in constant memory.

X is float32 (cells, features); obs is the cell table; ``uns["pci"]`` says what made it. The same as
parquet with ``Metadata_`` columns is for pycytominer and other tables-first tools.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from anndata.io import write_elem
from tqdm.auto import tqdm

import pci_core
from pci_core import device as devices
from pci_core import distributed, memory
from pci_core.baselines import Measured, numbered
from pci_core.cells import CellDataset
from pci_core.encoders import Encoder, check_layer
from pci_core.errors import DatasetError, StaleError, unknown_name
from pci_core.feed import Feed
from pci_core.hdf5 import check_hdf5
from pci_core.logs import read_log, split, write_log
from pci_core.parts import Part, own_rows, put_together
from pci_core.pooled import Pooler, arrays
from pci_core.pretrained.fit import check_channels as check_channels
from pci_core.provenance import KEY, record
from pci_core.reading import refusing
from pci_core.recipe import Preprocess
from pci_core.storage import atomic_path, content_hash
from pci_core.unpacking import read_h5ad

BATCH = {"cuda": 2048}  # cells at a time, where memory allows; 256 elsewhere, where larger batches leave the caches
METADATA = "Metadata_"  # pycytominer's mark of what is no feature


@dataclass(frozen=True)
class Extracted:
    """What an extraction cost: the pass over the cells, and the whole with its files; compiling counts to neither."""

    cells: int
    seconds: float
    device: str
    pass_seconds: float
    waited: float = 0.0  # seconds of them that the work stood still for crops

    @property
    def cells_per_second(self) -> float:
        """Cells a second, reading and writing included."""
        return self.cells / self.seconds

    @property
    def pass_cells_per_second(self) -> float:
        """Cells a second while the network ran: read, described, X written; without the cell table and the parquet."""
        return self.cells / self.pass_seconds


@distributed.together
@memory.told_when_out("extraction", "batch_size")
def extract(
    dataset: CellDataset,
    encoder: Encoder,
    outputs: dict[str, Path],
    spec: Preprocess,
    facts: dict[str, Any],
    *,
    pooling: str = "max",
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    data: str = "auto",
    compile: str = "auto",
    quiet: bool = False,
    prefix: str = "pci",
) -> Extracted:
    """Write the pooled features of one or more layers, each as ``.h5ad`` and ``.parquet``.

    Several processes (see `pci_core.distributed`) describe a range of the cells each and rank 0 puts them together; the
    batches, and so the values, are those of one process.

    Parameters
    ----------
    dataset : CellDataset
        Cells to describe.
    encoder : Encoder
        Trained or not.
    outputs : dict of str to Path
        The ``.h5ad`` to write for each layer name; the parquet takes the same stem.
    spec : Preprocess
        As in training.
    facts : dict
        For ``uns["pci"]``: model, weights sha256, recipe. Layer, pooling, versions are added here.
    pooling : str
        ``"max"`` or ``"mean"`` over space.
    batch_size : int, optional
        Cells at a time, by default 256 on the CPU and 2,048 on a GPU, or as many as fit into memory; the result does not depend
        on it beyond rounding.
    device, precision, data, compile : str
        See `pci_core.device` and `pci_core.feed`. Compiled features are those of the plain network within rounding.
    quiet : bool
        No progress bar.
    prefix : str
        First part of the feature names, e.g. ``pci_conv3_0001``.

    Returns
    -------
    Extracted

    Raises
    ------
    DeviceError
        A batch does not fit into memory; nothing was written.
    """
    where = devices.choose_device(device)
    dtype = devices.choose_precision(where, precision)
    devices.tune(where)
    mode = devices.compile_mode(where, compile)
    world = distributed.world()
    quiet = quiet or not world.is_first
    if world.size > 1:
        world.agree({"dataset": dataset.sha256, "precision": str(dtype), "encoder": _encoder_hash(encoder), "layers": list(outputs)})
    encoder = encoder.to(where, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    for layer in outputs:
        check_layer(layer)
    crops = dataset.crops
    need = memory.extraction_need(encoder, crops.shape[1:], crops.itemsize, where, dtype)
    size = batch_size or world.first(lambda: max(1, min(BATCH.get(where.type, 256), need.largest(memory.available(where)))))
    memory.check_batch(need, min(batch_size or 1, len(dataset)), where, "extraction", "cells", "batch_size")
    feed = Feed(dataset, where, data, use="once", reserve=need.batch(size))
    told = devices.describe(where, dtype)
    pool = Pooler(encoder, spec, dataset.n_protein, tuple(outputs), pooling, where, dtype)
    if not quiet:
        shared = f"; {world.size} processes" if world.size > 1 else ""
        print(f"Extracting {', '.join(outputs)} of {len(dataset)} cells on {told}; crops {feed.told}, {size} at a time{shared}")
    if mode and len(dataset) >= size:
        compiled = pool.compile(mode, devices.blank((size, *crops.shape[1:]), crops.dtype.name, where))
        if not quiet:
            print(f"  {compiled}")
    facts = {**facts, "pooling": pooling, "precision": str(dtype).removeprefix("torch."), "dataset": dataset.sha256}
    cost: dict[str, Any] = {"hardware": told, "seconds": 0.0, "cells_per_second": 0.0}  # of the whole pass, set when it ends
    began = time.perf_counter()
    with contextlib.ExitStack() as stack, torch.inference_mode():
        writers: dict[str, h5py.Dataset | Part] = {}
        mine = own_rows(len(dataset), size, world.rank, world.size)
        for layer, path in outputs.items():
            if world.is_first:
                names = numbered(f"{prefix}_{layer}", encoder.dims[layer])
                writers[layer] = stack.enter_context(_writing(path, dataset, names, [facts, {"layer": layer}, cost]))
            else:
                writers[layer] = stack.enter_context(Part(path, mine.start, encoder.dims[layer]))
        bar = stack.enter_context(tqdm(total=len(mine), unit=" cells", desc="share of rank 0" if world.size > 1 else None, disable=quiet))
        at = mine.start
        for step, pooled in enumerate(arrays(pool, (raw for _, raw in feed.in_order(size, mine))), 1):
            n = len(next(iter(pooled.values())))
            for layer, values in pooled.items():
                writers[layer][at : at + n] = values
            at += n
            bar.update(n)
            if not quiet and step % 20 == 0 and (slow := feed.slow(time.perf_counter() - began, step)):
                bar.write(slow)
        if world.size > 1:
            put_together(world, writers)
        cost["seconds"] = time.perf_counter() - began
        cost["cells_per_second"] = len(dataset) / cost["seconds"]
    world.first(lambda: None)  # the files are there when this returns anywhere
    return Extracted(len(dataset), time.perf_counter() - began, told, cost["seconds"], feed.waited)


def _encoder_hash(encoder: Encoder) -> str:
    return content_hash({name: hashlib.sha256(t.cpu().numpy().tobytes()).hexdigest() for name, t in encoder.state_dict().items()})


def write_features(dataset: CellDataset, measured: Measured, path: str | os.PathLike[str], facts: dict[str, Any]) -> None:
    """Write a feature set that was measured by a baseline in the same form as `extract`.

    Parameters
    ----------
    dataset : CellDataset
        The cells, in row order.
    measured : Measured
        Values, names and what made them.
    path : path-like
        The ``.h5ad`` to write; the parquet takes the same stem.
    facts : dict
        For ``uns["pci"]``, beside those of `measured`.

    Raises
    ------
    DatasetError
        Not one row a cell, or values that are not finite.
    """
    values = np.asarray(measured.values)
    if values.ndim != 2 or values.shape != (len(dataset), len(measured.names)):
        raise DatasetError(f"{path}: values of shape {values.shape}, expected ({len(dataset)}, {len(measured.names)}).")
    if not np.isfinite(values).all():
        bad = [n for n, ok in zip(measured.names, np.isfinite(values).all(0), strict=True) if not ok]
        raise DatasetError(f"{path}: {len(bad)} features hold NaN or infinite values, e.g. {bad[:3]}; nothing was written.")
    parts = [measured.facts, facts, {"dataset": dataset.sha256}]
    with _writing(Path(path), dataset, measured.names, parts, measured.obs, measured.obsm) as x:
        x[:] = values


@contextlib.contextmanager
def _writing(
    path: Path,
    dataset: CellDataset,
    names: list[str],
    facts: list[dict[str, Any]],
    more_obs: dict[str, np.ndarray] | None = None,
    more_obsm: dict[str, np.ndarray] | None = None,
) -> Iterator[h5py.Dataset]:
    """Open X of a new .h5ad for writing by blocks; at the end both files appear under their names."""
    n = len(names)
    with atomic_path(path.with_suffix(".parquet")) as parquet, atomic_path(path) as h5ad, h5py.File(h5ad, "w") as store:
        cells = pd.Index(dataset.table["cell_id"], name=None)
        anndata.AnnData(obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=names))  # names are checked here, before the long work
        store.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        x = store.create_dataset(
            "X", (len(dataset), n), "float32", chunks=(min(len(dataset), 256), n), fletcher32=True
        )  # a check sum of each chunk
        x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        yield x
        table = dataset.table.assign(**(more_obs or {})).set_index("cell_id", drop=False).rename_axis(None)  # not held during the work
        write_elem(store, "obs", table)
        write_elem(store, "var", pd.DataFrame(index=names))
        # read now: what the work cost is known at its end; it goes beside the file, which is the same every time
        known, measured = split({k: v for part in facts for k, v in part.items() if v is not None})
        settings = {k: known[k] for k in ("model", "pretext", "encoder", "layer", "pooling", "precision", "pretrained") if known.get(k)}
        facts_of = {"recipe": str(known.get("recipe", "")), "weights": str(known.get("weights", "")), "data": dataset.sha256}
        made = record("features", path.stem, settings=settings, **facts_of).text()
        uns = {"pci": {**known, "version": pci_core.__version__, "provenance": made}}
        write_elem(store, "uns", uns)
        spatial = {"spatial": table[["x", "y"]].to_numpy("float64")} if {"x", "y"} <= set(table) else {}
        for empty in ("layers", "obsp", "varp", "varm"):
            write_elem(store, empty, {})
        write_elem(store, "obsm", {**spatial, **(more_obsm or {})})
        _write_parquet(parquet, table, x, names, made)
        write_log(path, measured)


def _write_parquet(path: Path, table: pd.DataFrame, x: h5py.Dataset, names: list[str], made: str, block: int = 8192) -> None:
    columns_of = [*((f"{METADATA}{c}", pa.string()) for c in table), *((n, pa.float32()) for n in names)]
    schema = pa.schema(columns_of, metadata={KEY: made})
    with pq.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        for i in range(0, len(table), block):
            # numbers in the cell table become texts: pycytominer takes every numeric column for a feature
            part = table.iloc[i : i + block].astype(str)
            values = x[i : i + block]
            columns = [pa.array(part[c], pa.string()) for c in part] + [pa.array(values[:, j]) for j in range(len(names))]
            writer.write_table(pa.table(columns, schema=schema))


def feature_columns(parquet: str | os.PathLike[str]) -> list[str]:
    """Return the names of the features in a parquet written here, in order: every column that is no ``Metadata_…``.

    pycytominer guesses features by CellProfiler's prefixes (``Cells_``, ``Nuclei_``, ``Cytoplasm_``), which ours do not have, so
    hand it the list: ``pycytominer.normalize(profiles, features=feature_columns(path), meta_features=…)``. Only the names are read.

    Raises
    ------
    DatasetError
        The file cannot be read, or a column is neither ``Metadata_…`` text nor a number.
    """
    if not Path(parquet).is_file():
        raise DatasetError(f"{parquet} is not there. Make it with 'pci features'.")
    with refusing(parquet, DatasetError, "is no readable parquet", "Make it again with 'pci features'."):
        schema = pq.read_schema(parquet)
    names = [field.name for field in schema if not field.name.startswith(METADATA)]
    wrong = [n for n in names if not pa.types.is_floating(schema.field(n).type)]
    if wrong or not names:
        raise DatasetError(f"{parquet} is no feature set of ours: {wrong[:5] or 'no column'} should hold features as decimal numbers.")
    return names


def read_features(path: str | os.PathLike[str], dataset: CellDataset | None = None, *, whole: bool = False) -> anndata.AnnData:
    """Read a feature set, and refuse it if the cells it was made of have changed since.

    Parameters
    ----------
    path : path-like
        The ``.h5ad``.
    dataset : CellDataset, optional
        The cells at hand.
    whole : bool
        The file is known to be what was written, by its hash: it is not looked at in a process of its own first.

    Raises
    ------
    DatasetError
        The file cannot be read.
    StaleError
        The dataset is not the one the features were made from.
    """
    if not Path(path).is_file():
        raise DatasetError(f"{path} is not there. Make it with 'pci features'.")
    again = "Delete it and make it again with 'pci features'."
    if not whole:
        check_hdf5(path, DatasetError, again)
    with refusing(path, DatasetError, "is no readable feature set", again):
        adata = read_h5ad(path)
        made_from = str(adata.uns["pci"]["dataset"])
        adata.uns["pci"] = {**read_log(path), **adata.uns["pci"]}
    if dataset is not None and made_from != dataset.sha256:
        raise StaleError(
            f"{path} was made from another version of the cells (sha256 {made_from[:12]}…, now {dataset.sha256[:12]}…). "
            "Make it again with 'pci features'."
        )
    return adata


def aggregate(adata: anndata.AnnData, by: str = "protein") -> anndata.AnnData:
    """Average the features of the cells that share a value of `by` (the paper's protein level).

    Parameters
    ----------
    adata : AnnData
        (cells, features).
    by : str
        Column of obs; cells where it is empty are left out.

    Returns
    -------
    AnnData
        (groups, features), X float32 means; obs holds ``n_cells`` and every column that has one
        value within each group. Sorted by the group's name.

    Raises
    ------
    UnknownNameError
        There is no such column.
    """
    if by not in adata.obs:
        raise unknown_name("column", by, adata.obs.columns)
    labels = adata.obs[by].astype(str).to_numpy()
    used = np.flatnonzero(labels != "")
    groups, code = np.unique(labels[used], return_inverse=True)
    counts = np.bincount(code, minlength=len(groups))
    sums = np.zeros((len(groups), adata.n_vars))
    np.add.at(sums, code, np.asarray(adata.X)[used])
    constant = adata.obs.iloc[used].groupby(labels[used], observed=True).agg(lambda c: c.iloc[0] if c.nunique(dropna=False) == 1 else None)
    obs = constant.loc[groups].dropna(axis=1)
    obs = obs.drop(columns=[c for c in ("cell_id",) if c in obs]).assign(n_cells=counts)
    uns = {"pci": {**adata.uns.get("pci", {}), "aggregated_by": by}}
    return anndata.AnnData((sums / counts[:, None]).astype(np.float32), obs=obs, var=adata.var.copy(), uns=uns)
