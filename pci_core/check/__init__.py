"""A statistical self-check that anyone can run: ``pci check``. It calls the functions that make the results, on data whose answer is known.

Each check has a module: `chance` (shuffled labels), `uniform` (shuffled clusters), `coverage` (intervals), `leaks` (one image on both
sides of a split), `invariance` (features depend on the cell alone), `flips` (mirror images), `spoilt` (flagged cells).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from pci_core import recipe as recipes
from pci_core.check import chance, coverage, flips, invariance, leaks, sample, spoilt, uniform
from pci_core.check.result import Finding, check_ending, save, table, text
from pci_core.errors import ParameterError, unknown_name
from pci_core.parallel import in_order
from pci_core.pretrained import choice
from pci_core.recipe import Recipe
from pci_core.run import Run

__all__ = ["CHECKS", "Finding", "check_ending", "run_checks", "save", "table", "text"]

CHECKS = ("chance", "enrichment", "coverage", "leaks", "invariance", "flips", "flags")
FEWEST = 10  # draws: with fewer nothing is told apart
DEALINGS = {"knn": 0.2, "logistic": 0.05, "forest": 0.005}  # of labels, as a share of the draws: a forest takes seconds
_SECONDS = {"knn": 0.08, "logistic": 0.2, "forest": 8.0, "enrichment": 0.006, "coverage": 0.015, "cells": 8.0}  # for the bar's ETA only


@dataclass(frozen=True)
class _Part:
    """Some of the draws of one check."""

    key: tuple[str, Any, int, bool]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    seconds: float


def run_checks(
    recipe: str | os.PathLike[str] | None = None,
    *,
    draws: int = 1000,
    only: Sequence[str] = (),
    runs: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    jobs: int = -1,
    quiet: bool = False,
) -> list[Finding]:
    """Check this installation, and the cells of a recipe where one is named.

    Parameters
    ----------
    recipe : str or path-like, optional
        Its cells are made first where they are not there. Without one a few cells are simulated and thrown away.
    draws : int
        Shuffles and repeats of the checks `chance`, `enrichment` and `coverage`.
    only : sequence of str
        Of `CHECKS`; by default all.
    runs, data : path-like, optional
        See `pci_core.run.Run`.
    jobs : int
        Processes for shuffles and repeats; the result does not depend on it.
    quiet : bool
        No progress bar.

    Returns
    -------
    list of Finding
        The installation is sound, as far as this can tell, where all of them passed.

    Raises
    ------
    ParameterError
        Fewer than `FEWEST` draws.
    UnknownNameError
        No such check or recipe.
    """
    for name in only:
        if name not in CHECKS:
            raise unknown_name("check", name, CHECKS)
    if draws < FEWEST:
        raise ParameterError(f"--draws {draws} is too few to tell anything apart; use {FEWEST} or more (the default is 1000).")
    wanted = [c for c in CHECKS if not only or c in only]
    spec = recipes.load(recipe) if recipe is not None else sample.small()  # a wrong name is told now
    parts = _parts(wanted, draws)
    cells = [c for c in wanted if c in ("leaks", "invariance", "flips", "flags")]
    total = sum(p.seconds for p in parts) + _SECONDS["cells"] * len(cells)
    out: list[Finding] = []
    with tqdm(total=total, disable=quiet, bar_format="{desc}: {percentage:3.0f}% |{bar}| {elapsed}, about {remaining} left") as bar:
        out += _statistics(parts, jobs, bar)
        if cells:
            with tempfile.TemporaryDirectory(prefix="pci-check-") as folder:
                out += _with_cells(cells, spec, recipe is not None, Path(folder), runs, data, bar)
    return sorted(out, key=lambda f: CHECKS.index(f.check))


def _parts(wanted: Sequence[str], draws: int) -> list[_Part]:
    """Divide the draws into parts of some seconds, which processes can share."""
    out: list[_Part] = []

    def add(key: tuple[str, Any, int, bool], function: Callable[..., Any], arguments: tuple[Any, ...], n: int, each: float) -> None:
        step = max(1, int(2 / each))
        out.extend(_Part(key, function, (*arguments, range(i, min(i + step, n))), each * min(step, n - i)) for i in range(0, n, step))

    if "chance" in wanted:
        for kind, share in DEALINGS.items():
            add(("chance", kind, 0, True), chance.accuracies, (kind,), max(2, round(draws * share)), _SECONDS[kind])
    if "enrichment" in wanted:
        add(("enrichment", "", 0, True), uniform.draw, (), draws, _SECONDS["enrichment"])
    if "coverage" in wanted:
        for drawn, (required, reported) in coverage.KINDS.items():
            for n in (*reported, *required):
                must = n in required
                repeats = draws if must else max(FEWEST, round(draws * coverage.REPORTED_SHARE))
                add(("coverage", drawn, n, must), coverage.repeats, (drawn, n), repeats, _SECONDS["coverage"])
    return out


def _statistics(parts: list[_Part], jobs: int, bar: Any) -> list[Finding]:
    found: dict[tuple[str, Any, int, bool], list[Any]] = {}
    with closing(in_order(_call, ((p.function, p.arguments) for p in parts), len(parts), jobs=jobs, local=True)) as results:
        for part in parts:
            bar.set_description_str(part.key[0], refresh=True)
            found.setdefault(part.key, []).append(next(results))
            bar.update(part.seconds)
    out: list[Finding] = []
    for (check, kind, n, required), got in found.items():
        if check == "chance":
            out += chance.findings(kind, [row for part in got for row in part])
        elif check == "enrichment":
            out += uniform.findings([row for part in got for row in part])
        else:
            out += coverage.findings(n, got, required)
    return out


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments)


def _with_cells(
    wanted: Sequence[str],
    spec: Recipe,
    own: bool,
    folder: Path,
    runs: str | os.PathLike[str] | None,
    data: str | os.PathLike[str] | None,
    bar: Any,
) -> list[Finding]:
    bar.set_description_str("cells", refresh=True)
    run = Run(spec, runs if own else folder / "runs", data=data if own else None, device="cpu", precision="float32", jobs=1, quiet=True)
    few = sample.some(run, folder / "some")
    weights = choice.weights_of(spec, "pci")
    said: dict[str, Any] = {"weights": str(weights.path) if weights else "", "n_protein": few.n_protein, "n_structural": few.n_structural}
    said["width"] = spec.training.width
    encoder = invariance.network(**said)
    told = f"network '{weights.name}'" if weights else "a network that was never trained"
    out: list[Finding] = []
    for check in wanted:
        bar.set_description_str(check, refresh=True)
        place = folder / check
        place.mkdir()
        if check == "leaks":
            out += leaks.findings(place)
        elif check == "invariance":
            out += invariance.findings(few, encoder, spec, place) + invariance.of_jobs(few, spec, place)
            out += invariance.of_ranks(few, said, spec, place)
        elif check == "flips":
            out += flips.findings(few, encoder, told, spec, place)
        else:
            out += spoilt.findings(few, place)
        bar.update(_SECONDS["cells"])
    if own:
        out += [f for f in leaks.of_a_dataset(run.cells(), spec) if f.check in wanted]
    return out
