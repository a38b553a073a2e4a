"""A feature set made ready for classifiers: the chosen cells, checked, and a space of its own for each fold if it saw labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anndata
import numpy as np
import pandas as pd

from pci_core.analysis.crossval import cross_validate, each_fold
from pci_core.analysis.knn import neighbours_each, neighbours_in, standardise, votes
from pci_core.analysis.selection import label_text
from pci_core.errors import CellTableError

Predicted = dict[tuple[int, str], np.ndarray]  # (k, what is left out) -> (cells,) codes
Ways = Mapping[str, np.ndarray | None]  # what is left out -> codes of the cells; None: the cell alone


class Prepared:
    """One feature set of one seed, the chosen cells only; a supervised one has a space of its own for each fold."""

    def __init__(self, name: str, adata: anndata.AnnData, used: np.ndarray, label: str) -> None:
        facts = adata.uns.get("pci", {})
        self.n_features, self.fold, self.end_to_end = adata.n_vars, None, None
        if not is_supervised(adata):
            self.spaces = [_values(name, adata.X, used, adata.var_names)]
            return
        if str(facts.get("label", label)) != label:
            raise CellTableError(f"'{name}' was trained on '{facts['label']}', not on '{label}'. Leave it out, or train it anew.")
        self.fold = adata.obs["fold"].to_numpy(np.int64)[used]
        self.split_by = str(facts.get("split_by", "its own groups"))
        self.end_to_end = label_text(adata.obs["supervised_predicted"]).to_numpy()[used]
        self.spaces = [_values(name, adata.obsm[f"fold_{f}"], used, adata.var_names) for f in range(int(facts["folds"]))]

    def ways(self, ways: Ways) -> list[str]:
        """Return the ways of leaving out that this set can be scored with."""
        if self.fold is None:
            return list(ways)
        return [w for w, codes in ways.items() if codes is not None and pd.Series(self.fold).groupby(codes).nunique().max() == 1]

    def own_predictions(self, names: np.ndarray, ways: Ways) -> Predicted:
        """Return what the supervised network itself said of the cells that it never saw."""
        where = {str(name): i for i, name in enumerate(names)}
        said = np.array([where.get(str(p), -1) for p in self.end_to_end])  # type: ignore[union-attr]
        return {(0, w): said for w in self.ways(ways)}

    def knn(self, code: np.ndarray, ks: Sequence[int], ways: Ways) -> Predicted:
        """Predict by neighbours, for every k and way of leaving out."""
        mine = self.ways(ways)
        if self.fold is None:
            found = neighbours_each(standardise(self.spaces[0]), max(ks), [ways[w] for w in mine])
        else:
            near = np.full((len(code), max(ks)), -1, np.int64)
            for f, train, test in each_fold(self.fold):
                x = self.spaces[f]
                index = neighbours_in(standardise(x[test], x[train]), standardise(x[train]), max(ks))
                near[test] = np.where(index < 0, -1, train[index])
            found = [near] * len(mine)
        return {(k, w): p for w, near in zip(mine, found, strict=True) for k, p in votes(near, code, ks).items()}

    def crossed(self, kind: str, code: np.ndarray, folds: Mapping[str, np.ndarray], ways: Ways, seed: int, jobs: int) -> Predicted:
        """Predict under cross-validation, in the folds given for each way or, where the set saw labels, in its own."""
        if self.fold is None:
            return {(0, w): cross_validate(kind, self.spaces[0], code, folds[w], seed=seed, jobs=jobs) for w in ways}
        mine = self.ways(ways)
        once = cross_validate(kind, self.spaces, code, self.fold, seed=seed, jobs=jobs) if mine else None
        return {(0, w): once for w in mine if once is not None}


def is_supervised(adata: anndata.AnnData) -> bool:
    """Tell whether a feature set has a space of its own for each fold, because its network saw labels."""
    return "folds" in adata.uns.get("pci", {}) and "fold_0" in adata.obsm


def _values(name: str, values: Any, used: np.ndarray, names: Sequence[str]) -> np.ndarray:
    x = np.asarray(values.toarray() if hasattr(values, "toarray") else values)[used]  # else sparse
    finite = np.isfinite(x)
    if not finite.all():
        bad = np.flatnonzero(~finite.all(0))
        told = [str(names[i]) for i in bad[:3]] if len(names) == x.shape[1] else bad[:3].tolist()
        raise CellTableError(
            f"feature set '{name}' holds NaN or infinite values: {len(bad)} features, e.g. {told}, of {int((~finite.all(1)).sum())} cells. "
            "Leave out those columns or cells first."
        )
    out: np.ndarray = x
    return out
