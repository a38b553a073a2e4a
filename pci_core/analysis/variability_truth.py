"""What is known of variation from cell to cell, and how well scores and dendrograms find it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import anndata
import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

from pci_core.analysis.bootstrap import Interval, bootstrap
from pci_core.analysis.fractions import Ranks
from pci_core.analysis.selection import label_text, require
from pci_core.analysis.trees import grow
from pci_core.analysis.variability import SCORES, branches, image_scores, protein_scores, standardised
from pci_core.errors import ParameterError

_NO = ("", "0", "0.0", "no", "false", "nan", "none", "homogeneous")
_NO_PATTERN = ("", "dead", "diffuse")  # simulated cells that do not show the protein's pattern
PAPER_SHARES = {"cytosol and nucleoplasm": 0.6, "nucleoli and nucleoplasm": 0.5}  # of the top 10, annotated before (HPA v18)
_KINDS = {"two phenotypes": "location", "two levels": "intensity"}


def known_variation(obs: pd.DataFrame, by: str = "protein") -> pd.Series | None:
    """Return what is known of variation: one text a protein (or image), empty where it does not vary.

    Simulated: ``location`` (cells show one pattern or another) or ``intensity`` (bright and dim cells). Else from a column
    ``variable`` or one that begins with ``single_cell_variation`` (as the Human Protein Atlas has), any text but no, false or 0.

    Returns
    -------
    Series or None
        By the values of `by`; None where nothing is known.
    """
    require(obs, by)
    names = label_text(obs[by])
    if "sim_variation" in obs:
        told = label_text(obs["sim_variation"])
    elif "sim_kind" in obs:
        told = label_text(obs["sim_kind"]).map(_KINDS).fillna("")
    else:
        columns = [c for c in obs if _plain(c) == "variable" or _plain(c).startswith("single_cell_variation")]
        if not columns:
            return None
        found = np.zeros(len(obs), bool)
        for column in columns:
            found |= ~label_text(obs[column]).str.strip().str.casefold().isin(_NO).to_numpy()
        told = pd.Series(np.where(found, "variable", ""), index=obs.index)
    return told.groupby(names.to_numpy()).agg(lambda c: next((t for t in c if t), ""))


def _plain(column: object) -> str:
    return str(column).strip().casefold().replace("-", "_").replace(" ", "_")


def known_phenotype(obs: pd.DataFrame) -> np.ndarray | None:
    """Return the simulated phenotype of each cell, empty where it is not known; None for real cells."""
    if "sim_phenotype" not in obs:
        return None
    out = label_text(obs["sim_phenotype"]).to_numpy().astype(object)
    none = np.isin(out.astype(str), _NO_PATTERN)
    if "sim_low" in obs:
        out = np.where(label_text(obs["sim_low"]).str.casefold().isin(("true", "1", "1.0")), out + ", dim", out)
    if "sim_matched" in obs:
        none |= ~obs["sim_matched"].astype(bool).to_numpy()
    out[none] = ""
    return np.asarray(out.astype(str))


def detection(
    scores: pd.DataFrame, truth: pd.Series, *, names: Sequence[str] = tuple(SCORES), draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Compare the scores with known variation.

    Parameters
    ----------
    scores : DataFrame
        From `pci_core.analysis.variability.protein_scores`.
    truth : Series
        From `known_variation`, by protein.
    names : sequence of str
        Which scores.
    draws, seed : int
        Of the bootstrap over proteins.

    Returns
    -------
    DataFrame
        ``score, kind, ap, low, high, auroc, auroc_low, auroc_high, chance, n_variable, n_proteins``: average precision and area under
        the ROC curve with 95 % intervals; ``chance`` is the share of variable proteins, what guessing gets for the first (0.5
        for the second). ``kind``: ``any``, or one kind of variation against proteins that do not vary, the other kinds left out.
    """
    known = scores[scores.iloc[:, 0].isin(truth.index)]
    what = truth.reindex(known.iloc[:, 0]).to_numpy()
    kinds = [k for k in np.unique(what) if k]
    rows = []
    for kind in ["any", *(kinds if len(kinds) > 1 else [])]:
        kept = np.ones(len(what), bool) if kind == "any" else (what == "") | (what == kind)
        y = what[kept] != ""
        for name in names:
            s = known[name].to_numpy()[kept]
            good = np.isfinite(s)
            s, yes = s[good], y[good]
            if yes.all() or not yes.any():
                continue
            ap = bootstrap(lambda i, a=s, b=yes: _precision(b[i], a[i]), np.arange(len(s)), draws=draws, seed=seed)  # type: ignore[misc]
            roc = bootstrap(_area(yes, s), np.arange(len(s)), draws=draws, seed=seed)
            row = (name, kind, ap.value, ap.low, ap.high, roc.value, roc.low, roc.high, yes.mean(), int(yes.sum()), len(yes))
            rows.append(row)
    columns = ["score", "kind", "ap", "low", "high", "auroc", "auroc_low", "auroc_high", "chance", "n_variable", "n_proteins"]
    return pd.DataFrame(rows, columns=columns)


def compare_sets(sets: Mapping[str, anndata.AnnData], name: str, by: str = "protein", *, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Do what `detection` does for several feature sets of the same cells, with one score.

    Returns
    -------
    DataFrame
        ``features, kind, measure, value, low, high, chance, n_proteins``; ``measure`` is ``average precision`` or ``area under
        the ROC curve``. Empty where nothing is known of variation.
    """
    rows = []
    for features, adata in sets.items():
        truth = known_variation(adata.obs, by)
        if truth is None:
            continue
        found = detection(protein_scores(image_scores(adata), name), truth, names=[name], draws=draws, seed=seed)
        for r in found.itertuples():
            rows.append((features, r.kind, "average precision", r.ap, r.low, r.high, r.chance, r.n_proteins))
            rows.append((features, r.kind, "area under the ROC curve", r.auroc, r.auroc_low, r.auroc_high, 0.5, r.n_proteins))
    return pd.DataFrame(rows, columns=["features", "kind", "measure", "value", "low", "high", "chance", "n_proteins"])


def _precision(yes: np.ndarray, s: np.ndarray) -> float:
    """Return the average precision as scikit-learn does, ties as one step; many times faster, which the bootstrap needs."""
    if not yes.any():
        return float("nan")
    order = np.argsort(-s, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(s[order])), len(s) - 1)
    found = np.cumsum(yes[order])[ends]
    return float((np.diff(found, prepend=0) * found / (ends + 1)).sum() / found[-1])


def _area(yes: np.ndarray, s: np.ndarray) -> Callable[[np.ndarray], float]:
    """Return what gives the area under the ROC curve of some rows."""
    ranks = Ranks(s)

    def of_rows(rows: np.ndarray) -> float:
        found = yes[rows]
        n = int(found.sum())
        return float((ranks(rows)[found].sum() - n * (n + 1) / 2) / (n * (len(rows) - n))) if 0 < n < len(rows) else float("nan")

    return of_rows


def chosen_on_half(scores: pd.DataFrame, truth: pd.Series, *, splits: int = 200, seed: int = 0) -> pd.DataFrame:
    """Choose the score on a random half of the proteins and measure it on the other half, many times.

    So the figure owes nothing to having picked the best of several scores on the proteins it is told of.

    Returns
    -------
    DataFrame
        One row a split: ``chosen`` (score of the highest average precision on one half), ``ap`` (of it on the other half) and
        ``chance`` (share of variable proteins there). Both halves hold half of the variable proteins; empty with fewer than four.
    """
    known = scores[scores.iloc[:, 0].isin(truth.index)]
    yes = (truth.reindex(known.iloc[:, 0]) != "").to_numpy()
    values = {n: known[n].to_numpy() for n in SCORES if np.isfinite(known[n]).all()}
    rng, rows = np.random.default_rng(seed), []
    for _ in range(splits if min(yes.sum(), (~yes).sum()) >= 4 else 0):
        half = np.zeros(len(yes), bool)
        for group in (np.flatnonzero(yes), np.flatnonzero(~yes)):
            half[rng.permutation(group)[: (len(group) + rng.integers(2)) // 2]] = True
        chosen = max(values, key=lambda n: _precision(yes[half], values[n][half]))
        rows.append((chosen, _precision(yes[~half], values[chosen][~half]), yes[~half].mean()))
    return pd.DataFrame(rows, columns=["chosen", "ap", "chance"])


def share_of_top(table: pd.DataFrame, truth: pd.Series, n: int = 10, *, draws: int = 1000, seed: int = 0) -> tuple[Interval, float]:
    """Return which share of the n images of the highest ``sd`` vary, and the share among all images of the table.

    Parameters
    ----------
    table : DataFrame
        From `pci_core.analysis.variability.location_spread`, one pair.
    truth : Series
        From `known_variation`, by image.
    n : int
        How many are looked at; all where there are fewer.
    draws, seed : int
        Of the bootstrap over proteins (images where the table has none).

    Raises
    ------
    ParameterError
        `n` below 1, or no image.
    """
    if n < 1 or not len(table):
        raise ParameterError(f"the top {n} of {len(table)} images are none; ask for at least one of at least one.")
    yes = (truth.reindex(table["image"]).fillna("") != "").to_numpy()
    sd = table["sd"].to_numpy()
    groups = table["protein" if "protein" in table else "image"].to_numpy()
    found = bootstrap(lambda i: float(yes[i[np.argsort(-sd[i], kind="stable")[:n]]].mean()), groups, draws=draws, seed=seed)
    return found, float(yes.mean())


def branch_agreement(
    adata: anndata.AnnData, phenotype: np.ndarray, images: Sequence[str], *, n: int = 2, min_size: int = 3, linkage: str = "ward"
) -> pd.DataFrame:
    """Compare the branches of each image's dendrogram with the known phenotypes of its cells.

    Parameters
    ----------
    adata : AnnData
        (cells, features).
    phenotype : ndarray of str
        (cells,) from `known_phenotype`; cells without one are clustered but not scored.
    images : sequence of str
        Images to look at; those whose scored cells are of one phenotype are left out.
    n, min_size, linkage
        See `pci_core.analysis.variability.branches` and `cell_tree`.

    Returns
    -------
    DataFrame
        ``image, protein, ari, n_cells, n_phenotypes``; the adjusted Rand index is 1 for the same division and 0 on average for
        random ones. An image that cannot be cut into so many branches counts as one branch.
    """
    x, image = standardised(adata), label_text(adata.obs["image"]).to_numpy()
    protein = label_text(adata.obs["protein"]).to_numpy() if "protein" in adata.obs else image
    rows = []
    for name in images:
        own = np.flatnonzero(image == name)
        scored = phenotype[own] != ""
        if len(np.unique(phenotype[own][scored])) < 2:
            continue
        tree = grow(x[own], [str(r) for r in own], linkage=linkage)
        try:
            found = branches(tree, n, min_size=min_size)
        except ParameterError:  # too few cells for so many branches
            found = np.zeros(len(own), np.int64)
        ari = adjusted_rand_score(phenotype[own][scored], found[scored])
        rows.append((name, protein[own[0]], ari, int(scored.sum()), len(np.unique(phenotype[own][scored]))))
    return pd.DataFrame(rows, columns=["image", "protein", "ari", "n_cells", "n_phenotypes"])


def mean_agreement(table: pd.DataFrame, *, draws: int = 1000, seed: int = 0) -> Interval:
    """Return the mean adjusted Rand index over images with its interval over proteins."""
    if not len(table):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    ari = table["ari"].to_numpy()
    return bootstrap(lambda i: float(ari[i].mean()), table["protein"].to_numpy(), draws=draws, seed=seed)
