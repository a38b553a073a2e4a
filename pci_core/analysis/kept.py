"""Trainings that took hours, kept as two small tables: what `benchmarks/beyond.py` trained, and what every training scored.

The notebook `10_beyond` and the page of results read them here. They lie in a clone of the repository and not in the package, so
outside of a clone there are none, and what needs them says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import pci_core
from pci_core.analysis.variants import COLUMNS
from pci_core.errors import DatasetError, unknown_name
from pci_core.reading import is_file, read_csv, refusing

PLACE = Path("benchmarks/results/beyond")
RUNS, SCORES = "runs.csv", "scores.csv"
ABSENT = (
    f"the kept trainings ({PLACE.as_posix()}) are not here: they are in a clone of the repository, not in the package. Work in a clone, "
    "or name their folder with -p tables FOLDER."
)
BUDGET = ("recipe", "width", "epochs")  # trainings that share them saw equally many cells
_WHERE = ("variant", "recipe", "seed", "width", "epochs")
_RUNS = {"variant": str, "recipe": str, "seed": "int64", "width": "float64", "epochs": "int64", "training": str, "pairs": "float64",
         "cpu_seconds": "float64"}  # fmt: skip
_SCORES = {"recipe": str, "width": "float64", "epochs": "int64", "variant": str, "seed": "int64", "cells": str, "layer": str,
           "measure": str, "value": "float64", "low": "float64", "high": "float64", "better": str, "n_cells": "int64",
           "n_proteins": "int64", "note": str}  # fmt: skip
_AGAIN = "Make it again with benchmarks/beyond.py --collect, or take the repository's own."


@dataclass(frozen=True)
class Kept:
    """Trainings and their scores.

    Attributes
    ----------
    runs : DataFrame
        One row a training: ``variant, recipe`` (trained on), ``seed, width, epochs, training`` (keys that differ from the
        paper's method, as text), ``pairs, cpu_seconds`` (of all cores together).
    scores : DataFrame
        One row a measure of a training: those keys, ``cells`` (recipe scored on), ``layer``, and the columns of
        `pci_core.analysis.beyond.scorecard`.
    files : tuple of Path
        Where both were read.
    """

    runs: pd.DataFrame
    scores: pd.DataFrame
    files: tuple[Path, ...]

    def budgets(self, trained: str) -> pd.DataFrame:
        """Return how long variants were trained on a recipe's cells.

        Parameters
        ----------
        trained : str
            Recipe trained on.

        Returns
        -------
        DataFrame
            One row a width and number of epochs: ``recipe, width, epochs, variants, trainings, pairs`` (in the mean); most variants first.

        Raises
        ------
        UnknownNameError
            Nothing was trained on that recipe; those that are there are named.
        """
        found = self.runs[self.runs["recipe"] == trained]
        if found.empty:
            raise unknown_name("recipe among the kept trainings", trained, sorted(set(self.runs["recipe"])))
        table = found.groupby(list(BUDGET), as_index=False).agg(
            variants=("variant", "nunique"), trainings=("variant", "size"), pairs=("pairs", "mean")
        )
        return table.sort_values(["variants", "trainings", "epochs"], ascending=[False, False, True], ignore_index=True)

    def of(self, budget: pd.Series) -> Kept:
        """Return the trainings of one row of `budgets` alone."""

        def same(table: pd.DataFrame) -> pd.DataFrame:
            return table[(table[list(BUDGET)] == budget[list(BUDGET)].to_numpy()).all(axis=1)].reset_index(drop=True)

        return Kept(same(self.runs), same(self.scores), self.files)

    def cards(self, cells: str, layer: str) -> dict[str, list[pd.DataFrame]]:
        """Return scorecards by variant, as `pci_core.analysis.variants.compare` takes them.

        Parameters
        ----------
        cells : str
            Recipe scored on.
        layer : str
            Feature set.

        Returns
        -------
        dict of str to list of DataFrame
            By variant, in the order of `runs`; each list has one table a seed, the same seeds in the same places: a card without
            rows where a variant was not trained with a seed. Variants that were not scored there are left out.
        """
        found = self.scores[(self.scores["cells"] == cells) & (self.scores["layer"] == layer)]
        seeds = sorted(set(self.runs["seed"]))
        parts = {v: t for v, t in found.groupby("variant", sort=False)}
        out = {}
        for variant in dict.fromkeys(self.runs["variant"]):
            if variant in parts:
                table = parts[variant]
                out[variant] = [table.loc[table["seed"] == s, list(COLUMNS)].reset_index(drop=True) for s in seeds]
        return out

    def counts(self, cells: str) -> dict[str, str]:
        """Return by measure on how many cells, and of how many proteins, it stands: ``"8,192 / 99"``, without proteins ``"558"``."""
        out = {}
        for measure, part in self.scores[self.scores["cells"] == cells].groupby("measure", sort=False):
            n = [f"{part[c].max():,}" for c in ("n_cells", "n_proteins") if part[c].max() > 0]
            out[str(measure)] = " / ".join(n)
        return out

    def costs(self) -> pd.DataFrame:
        """Return what trainings cost in the mean, by variant: ``pairs_per_second`` and ``cpu_hours`` of all cores' time together."""
        table = self.runs.assign(pairs_per_second=self.runs["pairs"] / self.runs["cpu_seconds"], cpu_hours=self.runs["cpu_seconds"] / 3600)
        return table.groupby("variant", sort=False)[["pairs_per_second", "cpu_hours"]].mean()


def find() -> Path | None:
    """Return the folder of the kept tables in the clone that is worked in, or that the package lies in; None where there is none."""
    places = (Path.cwd(), Path(pci_core.__file__).resolve().parent.parent)
    return next((p / PLACE for p in places if all(is_file(p / PLACE / name) for name in (RUNS, SCORES))), None)


def read(folder: str | os.PathLike[str] | None = None) -> Kept | None:
    """Read the kept tables.

    Parameters
    ----------
    folder : path-like, optional
        With ``runs.csv`` and ``scores.csv``; empty: the repository's own.

    Returns
    -------
    Kept or None
        None where no folder was named and the repository's is not there.

    Raises
    ------
    DatasetError
        A table is missing from the folder that was named, damaged, lacks a column or holds text where numbers should be; or one
        measure of a training stands twice.
    """
    place = Path(folder) if folder else find()
    if place is None:
        return None
    runs, scores = _read(place / RUNS, _RUNS), _read(place / SCORES, _SCORES)
    _once(place / RUNS, runs, _WHERE)
    _once(place / SCORES, scores, (*_WHERE, "cells", "layer", "measure"))
    if (bad := ~(runs["cpu_seconds"] > 0)).any():
        raise DatasetError(f"{place / RUNS}: {bad.sum()} trainings that took no time. {_AGAIN}")
    return Kept(runs, scores, (place / RUNS, place / SCORES))


def _read(path: Path, columns: dict[str, object]) -> pd.DataFrame:
    with refusing(path, DatasetError, "is not there or no readable table of kept trainings", _AGAIN):
        table = read_csv(path, keep_default_na=False, na_values=[""])
    if missing := [c for c in columns if c not in table]:
        raise DatasetError(f"{path} is no table of kept trainings: no column {', '.join(missing)}. {_AGAIN}")
    texts = [c for c, kind in columns.items() if kind is str]
    with refusing(path, DatasetError, "holds text where numbers should be, or nothing", _AGAIN):
        return table.assign(**{c: table[c].fillna("") for c in texts}).astype(columns)  # type: ignore[arg-type]


def _once(path: Path, table: pd.DataFrame, key: Sequence[str]) -> None:
    twice = table[table.duplicated(list(key))]
    if len(twice):
        raise DatasetError(f"{path}: {len(twice)} rows stand twice, e.g. {twice.iloc[0][list(key)].to_dict()}. {_AGAIN}")
