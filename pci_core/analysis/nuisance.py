"""How well features tell what they should not know: staining, noise, light and focus of a field of view.

Cells of one image share more than a protein, and a network that learns from pairs of one image may learn that instead. The simulator
stores what it drew for every field; here a linear regression tries to read it from the mean features of a field whose protein it
never saw. Features that know nothing at all do best at that, so `location_accuracy` reads the location the same way: both belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anndata
import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from pci_core.analysis.bootstrap import bootstrap
from pci_core.analysis.crossval import cross_validate, make_folds, unlearnable
from pci_core.analysis.scores import Score, balanced_accuracy
from pci_core.analysis.selection import has_one_term, label_text, require
from pci_core.errors import AnalysisNeedsError, CellTableError, unknown_name
from pci_core.features import aggregate
from pci_core.folds import FOLDS

NUISANCES = ("sim_strength", "sim_haze", "sim_brightness", "sim_background", "sim_photons", "sim_light", "sim_blur")
LOGARITHMIC = ("sim_strength", "sim_brightness", "sim_photons")  # drawn over a wide range, where ratios count
ALPHAS = 10.0 ** np.arange(-1, 6)  # of the ridge, for features of unit variance and some hundred fields
_COLUMNS = ["what", "r2", "low", "high", "n_fields", "n_proteins"]


def known_nuisances(obs: pd.DataFrame) -> list[str]:
    """Return the columns of `NUISANCES` that the cell table has, as numbers that differ between cells."""
    return [c for c in NUISANCES if c in obs and _numbers(obs[c]).nunique() > 1]


def nuisance(adata: anndata.AnnData, columns: Sequence[str] | None = None, *, seed: int = 0, draws: int = 1000) -> pd.DataFrame:
    """Predict nuisances of fields of view by ridge regression, tested on proteins that took no part in the fit.

    The penalty is chosen, and features are centred and scaled, on the training proteins alone, in folds of their own.

    Parameters
    ----------
    adata : AnnData
        (cells, features) with ``field`` and ``protein`` in obs; the features of a field's cells are averaged.
    columns : sequence of str, optional
        Columns of numbers, one value a field (of several the mean); by default `known_nuisances`. Those of `LOGARITHMIC` are
        predicted as logarithms. Fields where any of them is missing are left out.
    seed, draws : int
        Of the folds, and of the bootstrap over proteins.

    Returns
    -------
    DataFrame
        One row a column: ``what``, ``r2, low, high`` (cross-validated R² with its 95 % interval: 1 is all of the variance, 0 what the
        mean of all fields tells, less where the regression misleads), ``n_fields, n_proteins``. The interval knows proteins alone: of
        a nuisance that few plates share, as `sim_light`, it is too narrow. ``attrs["n_cells"]``: cells of these fields.

    Raises
    ------
    AnalysisNeedsError
        The cells have no such column, or fewer than five proteins.
    UnknownNameError
        No column ``field`` or ``protein``, or one of `columns` that is not there.
    CellTableError
        NaN or infinite features, fields of several proteins, columns of one value, or not above 0 where a logarithm is taken.
    """
    obs = adata.obs
    require(obs, "field", "protein")
    wanted = known_nuisances(obs) if columns is None else list(dict.fromkeys(columns))
    if not wanted:
        raise AnalysisNeedsError(
            f"how well features predict nuisances needs one of the columns {', '.join(NUISANCES)} with more than one value, as "
            f"simulated cells have; there is: {', '.join(map(str, obs.columns))}. Name other columns of numbers that differ between fields."
        )
    if missing := [c for c in wanted if c not in obs]:
        raise unknown_name("column" if len(missing) == 1 else "columns", ", ".join(missing), obs.columns)
    fields = _fields(adata)
    values = pd.DataFrame({c: _numbers(obs[c]) for c in wanted}, index=obs.index).groupby(label_text(obs["field"]).to_numpy()).mean()
    values = values.loc[fields.obs_names]
    known = np.isfinite(values).all(axis=1).to_numpy()
    if constant := [c for c in wanted if values.loc[known, c].nunique() < 2]:
        raise CellTableError(f"columns with fewer than two values over fields: {', '.join(constant)}. There is nothing to predict.")
    logs = [c for c in wanted if c in LOGARITHMIC]
    if bad := [c for c in logs if values.loc[known, c].min() <= 0]:
        raise CellTableError(f"columns that are predicted as logarithms hold values that are not above 0: {', '.join(bad)}.")
    values[logs] = np.log(values[logs].where(values[logs] > 0))
    x, y = np.asarray(fields.X, np.float64)[known], values.to_numpy()[known]
    protein = pd.factorize(fields.obs["protein"].astype(str).to_numpy()[known])[0]
    told = _predicted(x, y, protein, seed)
    rows = []
    for i, column in enumerate(wanted):
        found = bootstrap(_r2(y[:, i], told[:, i]), protein, draws=draws, seed=seed)
        rows.append((column, found.value, found.low, found.high, len(x), found.n_groups))
    out = pd.DataFrame(rows, columns=_COLUMNS)
    out.attrs["n_cells"] = int(fields.obs["n_cells"].to_numpy()[known].sum())
    return out


def location_accuracy(adata: anndata.AnnData, label: str = "location", *, seed: int = 0, draws: int = 1000) -> Score:
    """Predict the location of fields of view by logistic regression, tested on proteins that took no part in the fit.

    Parameters
    ----------
    adata : AnnData
        As for `nuisance`; also `label` in obs.
    label : str
        Fields without one term, and of terms of a single protein, are left out.
    seed, draws : int
        Of folds and regression, and of the bootstrap over proteins within each location.

    Returns
    -------
    Score
        Balanced accuracy in [0, 1]; its ``n_cells`` are fields, its groups are proteins.

    Raises
    ------
    AnalysisNeedsError
        Fewer than two locations with two proteins each.
    UnknownNameError
        No column ``field``, ``protein`` or `label`.
    CellTableError
        NaN or infinite features, or fields of several proteins or locations.
    """
    require(adata.obs, "field", "protein", label)
    used = readable(adata.obs, label)
    terms = label_text(adata.obs[label])[used].nunique()
    if terms < 2:
        raise AnalysisNeedsError(
            f"reading '{label}' from fields of other proteins needs two values of it with two proteins each; found {terms}. "
            "Take more proteins, or another label."
        )
    fields = _fields(adata[used], label)
    names, code = np.unique(fields.obs[label].astype(str).to_numpy(), return_inverse=True)
    group = pd.factorize(fields.obs["protein"].astype(str).to_numpy())[0]
    fold = make_folds(code, group, seed=seed)
    if lost := [str(names[c]) for c in unlearnable(code, fold)]:
        raise AnalysisNeedsError(f"all proteins of {', '.join(lost)} came into one fold: they cannot be learned. Take more proteins.")
    predicted = cross_validate("logistic", np.asarray(fields.X), code, fold, seed=seed, jobs=1)
    return balanced_accuracy(code, predicted, group, draws, seed)


def readable(obs: pd.DataFrame, label: str) -> np.ndarray:
    """Tell which cells have one term of `label` that several proteins have, so that it can be learned from others: (cells,) bool."""
    require(obs, "protein", label)
    text, protein = label_text(obs[label]), label_text(obs["protein"])
    one = has_one_term(obs[label]) & (protein != "").to_numpy()
    several = protein[one].groupby(text[one].to_numpy()).nunique()
    return np.asarray(one & text.isin(several.index[several > 1]).to_numpy())


def _numbers(column: pd.Series) -> pd.Series:
    return pd.to_numeric(column.astype(object), errors="coerce").astype(np.float64).replace([np.inf, -np.inf], np.nan)


def _fields(adata: anndata.AnnData, *labels: str) -> anndata.AnnData:
    """Average the cells of each field: (fields, features), obs with ``protein`` and the labels."""
    x = np.asarray(adata.X)
    if not np.isfinite(x).all():
        raise CellTableError("the features hold NaN or infinite values, which have no mean. Leave those cells or columns out.")
    obs = pd.DataFrame({c: label_text(adata.obs[c]) for c in dict.fromkeys(("field", "protein", *labels))}, index=adata.obs.index)
    named = ((obs["protein"] != "") & (obs["field"] != "")).to_numpy()
    if not named.any():
        raise AnalysisNeedsError("no cell has both a field and a protein, so nothing can be tested by protein. Fill these columns.")
    fields = aggregate(anndata.AnnData(x[named], obs=obs[named]), by="field")
    for column in obs.columns:
        if column not in fields.obs and column != "field":
            raise CellTableError(f"fields whose cells differ in '{column}' cannot be averaged; give each such part a field of its own.")
    return fields


def _predicted(x: np.ndarray, y: np.ndarray, protein: np.ndarray, seed: int) -> np.ndarray:
    """Predict every field by a regression on the proteins of the other folds: (fields, nuisances)."""
    n = len(np.unique(protein))
    if n < FOLDS:
        raise AnalysisNeedsError(f"testing on proteins that were not learned from needs at least {FOLDS} proteins; found {n}.")
    out = np.empty_like(y)
    for train, test in _split(protein, seed):
        inner = list(_split(protein[train], seed))
        error = np.zeros((len(ALPHAS), y.shape[1]))
        for learn, check in inner:
            a, b = _scaled(x[train[learn]], x[train[check]])
            target = y[train[learn]]
            for i, alpha in enumerate(ALPHAS):
                error[i] += ((Ridge(alpha).fit(a, target).predict(b).reshape(len(b), -1) - y[train[check]]) ** 2).sum(0)
        a, b = _scaled(x[train], x[test])
        best = ALPHAS[error.argmin(0)]
        out[test] = Ridge(best).fit(a, y[train]).predict(b).reshape(len(b), -1)
    return out


def _split(protein: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    folds = GroupKFold(min(FOLDS, len(np.unique(protein))), shuffle=True, random_state=seed)
    return list(folds.split(protein[:, None], groups=protein))


def _scaled(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test)


def _r2(y: np.ndarray, told: np.ndarray) -> Callable[[np.ndarray], float]:
    """Return what gives R² of some rows against their own mean; NaN where they have one value."""
    off = (y - told) ** 2

    def of_rows(rows: np.ndarray) -> float:
        spread = ((y[rows] - y[rows].mean()) ** 2).sum()
        return float(1 - off[rows].sum() / spread) if spread > 0 else float("nan")

    return of_rows
