"""Every feature set and classifier on the same cells: scores with intervals, recall by class, confusion, what was left out.

Beside the paper's way (the cell alone is left out) stands always the one without leaks: neighbours of
the cell's own image, or another column, are not counted, and cross-validation keeps its cells in one fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import anndata
import joblib
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

import pci_core
from pci_core.analysis.crossval import FOLDS, make_folds, unlearnable
from pci_core.analysis.join import FeatureSet, join
from pci_core.analysis.knn import constant_features
from pci_core.analysis.paper import PAPER_K
from pci_core.analysis.prepared import Predicted, Prepared, Ways, is_supervised
from pci_core.analysis.result import RECALLS, SCORES, Benchmark
from pci_core.analysis.scores import balanced_accuracy, confusion_matrix, recalls
from pci_core.analysis.selection import Omitted, has_one_term, independent_groups, label_text, require, select, shared
from pci_core.analysis.twins import twins
from pci_core.errors import CellTableError, UnknownNameError, unknown_name

CLASSIFIERS = ("knn", "logistic", "forest")
KS = (1, 5, 11, 25, 50)
END_TO_END = "end_to_end"


def benchmark(
    feature_sets: Mapping[str, FeatureSet],
    label: str,
    *,
    group: str = "",
    ks: Iterable[int] = KS,
    classifiers: Iterable[str] = CLASSIFIERS,
    leave_out_protein: bool = False,
    jobs: int = -1,
    seed: int = 0,
    draws: int = 1000,
    quiet: bool = False,
) -> Benchmark:
    """Score feature sets with every classifier, all on the same cells.

    Parameters
    ----------
    feature_sets : dict of str to AnnData, or to several
        By name; several are one feature set from several training seeds, whose mean is scored. Sets of
        different cells are joined by id. A supervised set (see `is_supervised`) is scored only with
        the cells of a fold as queries in the space of the network that never saw them.
    label : str
        Column of obs to predict. Cells without one term are left out and counted, and so are classes of no more
        than 11 cells (or the largest k, if that is smaller) and classes of a single group. A class may
        be smaller than some k: the row is computed, and `omitted` says so.
    group : str
        Column whose cells are left out together and drawn by the bootstrap; by default see `independent_groups`.
    ks : iterable of int
        Numbers of neighbours; one search serves all.
    classifiers : iterable of str
        Of ``knn``, ``logistic``, ``forest``; the last two under 5-fold cross-validation.
    leave_out_protein : bool
        Score a third way: whatever shares the group or the protein is left out together.
    jobs : int
        Processes or threads for cross-validation, -1 = all cores; the result does not depend on it.
    seed, draws : int
        Of folds and classifiers, and of the bootstrap.
    quiet : bool
        No progress bar, no line at the start.

    Returns
    -------
    Benchmark

    Raises
    ------
    CellTableError
        Fewer than two classes can be scored, NaN or infinite values, no cell in common.
    UnknownNameError
        No such column or classifier, or a k below 1.
    """
    ks, kinds = sorted(set(ks)), list(dict.fromkeys(classifiers))
    for kind in kinds:
        if kind not in CLASSIFIERS:
            raise unknown_name("classifier", kind, CLASSIFIERS)
    if ks and ks[0] < 1:
        raise UnknownNameError(f"k = {ks[0]} is no number of neighbours. Use 1 or more.")
    kinds = [kind for kind in kinds if kind != "knn" or ks]
    joined, omitted = join(feature_sets, label), Omitted()
    for row in joined.report.itertuples():
        omitted.add(f"cells of '{row.features}'", row.n_left_out, "not in every feature set")
    sets = joined.feature_sets
    obs = next(iter(sets.values()))[0].obs
    group = group or independent_groups(obs[has_one_term(obs[label])], label)
    require(obs, group, *(["protein"] if leave_out_protein else []))
    crossed = [kind for kind in kinds if kind != "knn"]
    more_than = max(min(PAPER_K, max(ks, default=PAPER_K)), FOLDS - 1 if crossed else 1)
    all_ways = {group: shared(obs, group)} | ({"protein": shared(obs, group, "protein")} if leave_out_protein else {})
    used = _select(sets, obs, label, all_ways, more_than, omitted)
    names, code = np.unique(label_text(obs[label]).to_numpy()[used], return_inverse=True)
    ways: dict[str, np.ndarray | None] = {"cell": None, **{w: codes[used] for w, codes in all_ways.items()}}
    ks = _usable(ks, names, np.bincount(code), omitted) if "knn" in kinds else []
    kinds = [kind for kind in kinds if kind != "knn" or ks]
    folds = _folds(code, ways, names, seed, omitted) if crossed else {}
    if not quiet:
        processes = joblib.cpu_count() if jobs == -1 else jobs
        left_out = ", ".join(f"own {way}" for way in ways)
        print(
            f"Scoring {', '.join(sets)}: {len(code):,} cells in {len(names)} classes of '{label}'; left out: {left_out}; "
            f"{', '.join(kinds)} with {processes} processes"
        )
    table = _Rows(code, [str(n) for n in names], ways, group, draws, seed, min(ks, key=lambda k: abs(k - PAPER_K)) if ks else 0)
    with tqdm(total=len(sets) * len(kinds), unit=" fits", disable=quiet) as bar:
        for name, seeds in sets.items():
            parts = [Prepared(name, adata, used, label) for adata in seeds]
            _note(name, parts[0], ways, omitted)
            told = twins(parts[0].spaces[0], np.asarray(ways[group]))
            if told.any():
                why = (
                    f"LEAK: the same features stand in two values of '{group}': one image under two names? Scores with the own {group} "
                    "left out are too high; take one of them out"
                )
                omitted.add(f"cells of '{name}', e.g. {', '.join(obs.index[used][told][:2])}", int(told.sum()), why)
            for kind in kinds:
                bar.set_postfix_str(f"{name}, {kind}", refresh=True)
                run = [p.knn(code, ks, ways) if kind == "knn" else p.crossed(kind, code, folds, ways, seed, jobs) for p in parts]
                table.add(name, kind, parts[0].n_features, run)
                bar.update()
            if all(p.end_to_end is not None for p in parts):
                table.add(name, END_TO_END, parts[0].n_features, [p.own_predictions(names, ways) for p in parts])
    settings = {"label": label, "group": group, "classes": table.names, "n_cells": len(code), "ks": ks, "classifiers": kinds,
                "confusion_k": table.shown, "seed": seed, "draws": draws, "version": pci_core.__version__}  # fmt: skip
    return Benchmark(
        pd.DataFrame(table.scores, columns=list(SCORES)),
        pd.DataFrame(table.recalls, columns=list(RECALLS)),
        table.confusion,
        omitted.table(),
        settings,
    )


class _Rows:
    """Turns predictions into the rows of the tables."""

    def __init__(self, code: np.ndarray, names: list[str], ways: Ways, group: str, draws: int, seed: int, shown: int) -> None:
        self.code, self.names, self.ways, self.group, self.draws, self.seed, self.shown = code, names, ways, group, draws, seed, shown
        self.sizes = np.bincount(code)
        self.scores: list[dict[str, Any]] = []
        self.recalls: list[dict[str, Any]] = []
        self.confusion: dict[tuple[str, str], pd.DataFrame] = {}

    def add(self, name: str, kind: str, n_features: int, seeds: Sequence[Predicted]) -> None:
        for k, way in (key for key in seeds[0] if all(key in s for s in seeds)):
            predicted = np.stack([s[k, way] for s in seeds])
            drawn = self.ways[self.group if way == "cell" else way]
            assert drawn is not None  # only the cell alone has no groups
            score = balanced_accuracy(self.code, predicted, drawn, self.draws, self.seed)
            head = {"features": name, "classifier": kind, "k": k, "left_out": way}
            self.scores.append({**head, **asdict(score), "n_features": n_features})
            found = zip(self.names, recalls(self.code, predicted), self.sizes, strict=True)
            self.recalls += [{**head, "label": c, "recall": float(r), "n_cells": int(n)} for c, r, n in found]
            if kind == "knn" and k == self.shown:
                self.confusion[name, way] = confusion_matrix(self.code, predicted, self.names)


def _select(
    sets: Mapping[str, list[anndata.AnnData]],
    obs: pd.DataFrame,
    label: str,
    ways: Mapping[str, np.ndarray],
    more_than: int,
    omitted: Omitted,
) -> np.ndarray:
    keep = np.ones(len(obs), bool)
    labelled = has_one_term(obs[label])
    for name, seeds in sets.items():
        for adata in seeds:
            if is_supervised(adata):
                never = keep & labelled & (adata.obs["fold"].to_numpy() < 0)
                omitted.add(f"cells that '{name}' never tested", never.sum(), "in no test set of the supervised network")
                keep &= ~never
    used = np.zeros(len(obs), bool)
    used[keep] = select(obs[keep], label, {w: codes[keep] for w, codes in ways.items()}, more_than, omitted)
    return used


def _note(name: str, part: Prepared, ways: Ways, omitted: Omitted) -> None:
    n, width = part.spaces[0].shape
    constant = int(constant_features(part.spaces[0]).sum())
    if constant == width:
        raise CellTableError(
            f"feature set '{name}': all {width} features are the same for all {n} cells; nothing can be told apart by them."
        )
    omitted.add(
        f"{constant} of {width} features of '{name}'", n if constant else 0, "constant over the cells scored: they count for nothing"
    )
    if part.fold is not None:
        for way in set(ways) - {"cell", *part.ways(ways)}:
            omitted.add(f"'{name}' with the own {way} left out", n, f"its networks were split by '{part.split_by}', which divides a {way}")


def _usable(ks: Sequence[int], names: np.ndarray, sizes: np.ndarray, omitted: Omitted) -> list[int]:
    n = int(sizes.sum())
    for k in ks:
        small = sizes <= k
        if k >= n:
            omitted.add(f"k = {k}", n, f"there are only {n} cells")
        elif small.any():
            why = f"row computed, but {int(small.sum())} classes have no more than k cells, e.g. '{names[small][0]}' ({sizes[small][0]})"
            omitted.add(f"k = {k}", int(sizes[small].sum()), why)
    return [k for k in ks if k < n]


def _folds(
    code: np.ndarray, ways: Mapping[str, np.ndarray | None], names: np.ndarray, seed: int, omitted: Omitted
) -> dict[str, np.ndarray]:
    out = {}
    for way, groups in ways.items():
        out[way] = make_folds(code, groups, seed=seed)
        for c in unlearnable(code, out[way]):
            why = f"all in one fold when whole {way}s are left out: logistic regression and forest cannot find it"
            omitted.add(f"class '{names[c]}'", int((code == c).sum()), why)
    return out
