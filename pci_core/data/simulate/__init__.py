"""Simulated fields of view whose truth is fully known, in the form of the real ones.

The images are drawn, not measured; every page and figure that shows them must say so. Each organism
is one module with three functions: ``plan(source)`` lists the fields, ``render(plan, source)`` draws one,
``write(rendered, path)`` saves it in the format of the real data.
"""

from __future__ import annotations

import importlib
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from pci_core.data.simulate.frame import META, FieldPlan, RenderedField, field_seed
from pci_core.errors import RecipeError, unknown_name
from pci_core.parallel import in_order
from pci_core.recipe import Source
from pci_core.storage import as_storage_error, atomic_path, sweep_temporaries
from pci_core.tables import write_csv

__all__ = ["META", "FieldPlan", "RenderedField", "field_seed", "simulate"]

ORGANISMS = ("human", "yeast")
_CHUNK = 8  # fields a task: enough to hide the pool's overhead, few enough for a smooth bar


def organism(source: Source) -> Any:
    """Return the module that draws the organism of `source`.

    Raises
    ------
    UnknownNameError
        No simulator for this organism.
    RecipeError
        Fewer than one protein, image or field is asked for.
    """
    if source.organism not in ORGANISMS:
        raise unknown_name("simulated organism", source.organism, ORGANISMS)
    for key in ("proteins", "images_per_protein", "fields_per_image"):
        if getattr(source, key) < 1:
            raise RecipeError(f"[source] {key} must be at least 1 for kind = 'simulate', found {getattr(source, key)}.")
    return importlib.import_module(f"pci_core.data.simulate.{source.organism}")


def plan_fields(source: Source) -> list[FieldPlan]:
    """Return the plan of every field of view that `simulate` draws, without drawing any."""
    plans: list[FieldPlan] = organism(source).plan(source)
    return plans


def simulate(
    source: Source,
    folder: str | os.PathLike[str],
    *,
    jobs: int = -1,
    labels: bool = False,
    progress: bool = True,
    plans: list[FieldPlan] | None = None,
) -> pd.DataFrame:
    """Draw all fields of a recipe into `folder`.

    The same `source` gives the same bytes for any number of workers. The folder is filled file by file;
    pass a temporary one (`pci_core.storage.atomic_path`) to have all or nothing.

    Parameters
    ----------
    source : Source
        ``organism``, ``modality``, ``proteins``, ``images_per_protein``, ``fields_per_image``, ``seed``.
    folder : path-like
        Gets ``images/<filename>``, ``fields.csv``, ``truth.parquet`` (one row a true cell) and, if
        `labels`, ``labels/<field>.png`` (16 bit, 0 = background).
    jobs : int
        Worker processes; -1 = one for each core. Within `pci_core.parallel.on_cluster` the cluster's workers draw.
    labels : bool
        Also write the true label images.
    progress : bool
        Show a progress bar with fields per second.
    plans : list of FieldPlan, optional
        Draw only these of `plan_fields`; each comes out as it does among all.

    Returns
    -------
    DataFrame
        The field table, as in ``fields.csv``: ``field``, ``path`` (and ``labels``) relative to `folder`,
        the columns of `META`, and ``sim_…`` columns known for a field.

    Raises
    ------
    UnknownNameError, RecipeError
        The source asks for something that cannot be drawn.
    StorageError
        The folder cannot be written.
    """
    folder = Path(folder).absolute()  # a cluster's workers start elsewhere
    plans = plan_fields(source) if plans is None else plans
    with as_storage_error(folder):
        for name in ("images", "labels") if labels else ("images",):
            (folder / name).mkdir(parents=True, exist_ok=True)
    chunks = [plans[i : i + _CHUNK] for i in range(0, len(plans), _CHUNK)]
    truth: list[pd.DataFrame] = []
    results = in_order(_render_chunk, ((c, source, folder, labels) for c in chunks), len(chunks), jobs=jobs)
    with closing(results), tqdm(total=len(plans), unit="field", desc=f"simulating {source.organism} fields", disable=not progress) as bar:
        for tables in results:
            truth += tables
            bar.update(len(tables))
    for name in ("images", "labels"):
        sweep_temporaries(folder / name)  # of a worker that died; another has drawn its fields again
    table = _field_table(plans, labels)
    with as_storage_error(folder):
        write_csv(table, folder / "fields.csv")
        pd.concat(truth, ignore_index=True).to_parquet(folder / "truth.parquet")
    return table


def _render_chunk(plans: list[FieldPlan], source: Source, folder: Path, labels: bool) -> list[pd.DataFrame]:
    module = organism(source)
    tables = []
    with threadpool_limits(1), as_storage_error(folder):  # the sums of a matrix product may depend on the number of threads
        for plan in plans:
            rendered: RenderedField = module.render(plan, source)
            module.write(rendered, folder / "images" / plan.filename)
            if labels:
                with atomic_path(folder / "labels" / f"{plan.field}.png") as temporary:
                    Image.fromarray(rendered.labels.astype(np.uint16)).save(temporary)
            tables.append(rendered.truth)
    return tables


def _field_table(plans: list[FieldPlan], labels: bool) -> pd.DataFrame:
    rows = []
    for plan in plans:
        row: dict[str, Any] = {"field": plan.field, "path": f"images/{plan.filename}", **plan.meta}
        if labels:
            row["labels"] = f"labels/{plan.field}.png"
        rows.append(row | {k: v for k, v in plan.extra.items() if k.startswith("sim_")})
    return pd.DataFrame(rows)
