"""The same image in train and test: splits keep images whole, and an image that is there twice under two names is told."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from pci_core import flags, folds, recipe
from pci_core.analysis import benchmark as benchmarks
from pci_core.analysis import join
from pci_core.analysis.selection import shared
from pci_core.cells import CellDataset, CellWriter, Channel
from pci_core.check.chance import shuffled
from pci_core.check.result import Finding
from pci_core.errors import CellTableError, PCIError
from pci_core.tables import write_csv

PLANTED = 4  # cells of the image that is put in twice


def divided(code: np.ndarray) -> int:
    """Count groups that stand in two folds, over many ways of grouping."""
    found = 0
    for seed in range(20):
        rng = np.random.default_rng([seed, 4])
        groups = rng.integers(0, 30, len(code))
        fold = folds.make_folds(code, groups, seed=seed)
        found += int((pd.Series(fold).groupby(groups).nunique() > 1).sum())
    return found


def told_by_the_benchmark(adata: anndata.AnnData) -> int:
    """Return how many cells the benchmark tells to be in two images."""
    found = benchmarks.benchmark({"made-up": adata}, "label", group="image", ks=[3], classifiers=["knn"], jobs=1, draws=0, quiet=True)
    return int(found.omitted.loc[found.omitted["why"].str.startswith("LEAK"), "n_cells"].sum())


def with_a_double(adata: anndata.AnnData) -> anndata.AnnData:
    """Put the first image in again under another name, as a folder does that holds a file twice."""
    first = adata[adata.obs["image"] == adata.obs["image"].iloc[0]].copy()
    first.obs["image"] = "again"
    first.obs["cell_id"] = [f"again{i}" for i in range(first.n_obs)]
    first.obs_names = first.obs["cell_id"].astype(str)
    return anndata.concat([adata, first])


def refused(what: str, folder: Path) -> bool:
    """Try what must be refused: ``"image"`` as the label, or a user's table that names a cell twice."""
    try:
        if what == "image":
            benchmarks.benchmark({"made-up": shuffled(0)}, "image", ks=[3], classifiers=["knn"], jobs=1, draws=0, quiet=True)
        else:
            table = pd.DataFrame({"cell_id": ["a", "b", "a"], "one": [1.0, 2.0, 3.0]})
            write_csv(table, folder / "own.csv")
            join.read_table(folder / "own.csv")
    except CellTableError:
        return True
    return False


def doubled_crops(folder: Path) -> int:
    """Write cells with an image that is there twice; return how many doubled crops ``dataset.json`` tells of."""
    rng = np.random.default_rng(5)
    channels = (Channel("protein", "protein"), Channel("marker", "structural"))
    with CellWriter(folder / "double", channels, None) as writer:
        crops = rng.integers(0, 255, (3 * PLANTED, 2, 8, 8), dtype=np.uint8)
        crops[2 * PLANTED :] = crops[:PLANTED]
        names = [f"c{i}" for i in range(3 * PLANTED)]
        writer.add(crops, pd.DataFrame({"cell_id": names, "image": [f"i{i // PLANTED}" for i in range(3 * PLANTED)]}))
    return int(CellDataset(folder / "double").info["flagged"]["doubled"])


def findings(folder: Path) -> list[Finding]:
    """Plant leaks, and look whether they are told or refused."""
    sound = shuffled(0)
    code = pd.factorize(sound.obs["label"])[0]
    table = pd.DataFrame({"image": list("aabbcc"), "protein": list("ppqqpr")})
    joined = shared(table, "image", "protein")
    apart = sum(int((pd.Series(joined).groupby(table[c].to_numpy()).nunique() > 1).sum()) for c in table)
    return [
        Finding("leaks", "cross-validation: groups that stand in two folds, 20 groupings", divided(code), 0, 0),
        Finding("leaks", "groups of images and proteins: values that stand in two of them", apart, 0, 0),
        Finding("leaks", f"benchmark: cells told to be in two images, {PLANTED} planted",
                told_by_the_benchmark(with_a_double(sound)), 2 * PLANTED, 2 * PLANTED),
        Finding("leaks", "benchmark: the same without a planted one", told_by_the_benchmark(sound), 0, 0),
        Finding("leaks", f"cell dataset: crops told to be in two images, {PLANTED} planted", doubled_crops(folder), PLANTED, PLANTED),
        Finding("leaks", "benchmark --label image: refused (1)", refused("image", folder), 1, 1),
        Finding("leaks", "a table of features that names a cell twice: refused (1)", refused("table", folder), 1, 1),
    ]  # fmt: skip


def of_a_dataset(dataset: CellDataset, spec: recipe.Recipe) -> list[Finding]:
    """Look for doubled and flagged crops in a user's own cells, and tell what the recipe's group divides."""
    gate = flags.Gate(flags.Rule(), dataset.n_protein)
    for start in range(0, len(dataset), 1024):
        rows = np.arange(start, min(start + 1024, len(dataset)))
        gate.pass_through(dataset.read(rows), dataset.table.iloc[rows])
    out = [Finding("leaks", f"{spec.name}: crops that stand in two images, of {len(dataset)} cells", len(gate.doubled()), 0, 0)]
    out += [
        Finding("flags", f"{spec.name}: cells flagged '{term}', of {len(dataset)}", n, required=False) for term, n in gate.counts.items()
    ]
    if spec.group and spec.group != "image":
        if spec.group not in dataset.table:
            raise PCIError(f"{spec.name}: 'group' names the column '{spec.group}', which its cells do not have.")
        parts = dataset.table.groupby("image")[spec.group].nunique()
        what = f"{spec.name}: images that 'group' = '{spec.group}' divides: their cells stand on both sides of a split"
        out.append(Finding("leaks", what, int((parts > 1).sum()), required=False))
    return out
