"""Shuffled labels: whatever classifies must then do no better than guessing.

Cells of one image look alike (each image has a look of its own), and labels are dealt to images by chance. With the own image left
out nothing is left to learn from, so the accuracy is that of guessing. A classifier that sees the own image, or the cell that it is
asked about, finds the image again, and with it the label: with the cell alone left out that is what happens, and it is checked too.
"""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
from scipy import stats

from pci_core.analysis import benchmark as benchmarks
from pci_core.check.result import Finding

CLASSES, IMAGES, CELLS, FEATURES = 2, 48, 4, 40
SLACK = 0.03  # of the mean accuracy: of the own class one image is missing, so that it is guessed a little too rarely
DRAWS = 200  # of the bootstrap of each accuracy
SHORT = 0.15  # share of intervals that may miss chance: they tell how test images differ, not what else might have been learnt


def shuffled(seed: int) -> anndata.AnnData:
    """Draw cells whose features know their image, and labels that nothing knows: each image has one, dealt by chance."""
    rng = np.random.default_rng([seed, 1])
    looks = rng.normal(0, 1, (IMAGES, FEATURES))
    image = np.repeat(np.arange(IMAGES), CELLS)
    x = looks[image] + rng.normal(0, 0.2, (len(image), FEATURES))
    label = rng.permutation(np.r_[np.arange(IMAGES // 2) % CLASSES, rng.integers(0, CLASSES, IMAGES - IMAGES // 2)])
    names = [f"c{i}" for i in range(len(image))]
    obs = pd.DataFrame({"cell_id": names, "image": [f"i{i}" for i in image], "label": [f"l{c}" for c in label[image]]}, index=names)
    return anndata.AnnData(x.astype(np.float32), obs=obs)


def accuracies(kind: str, seeds: range) -> list[tuple[float, float, float, float]]:
    """Return (accuracy, low, high with the own image left out, accuracy with the cell alone left out) for each dealing of labels."""
    out = []
    for seed in seeds:
        found = benchmarks.benchmark(
            {"made-up": shuffled(seed)},
            "label",
            group="image",
            ks=[CELLS - 1],
            classifiers=[kind],
            jobs=1,
            draws=DRAWS,
            seed=seed,
            quiet=True,
        )
        rows = found.scores.set_index("left_out")
        image, cell = rows.loc["image"], rows.loc["cell"]
        out.append((float(image["accuracy"]), float(image["low"]), float(image["high"]), float(cell["accuracy"])))
    return out


def findings(kind: str, found: list[tuple[float, float, float, float]]) -> list[Finding]:
    """Judge the accuracies of one classifier."""
    accuracy, low, high, cell = np.array(found).T
    chance, n = 1 / CLASSES, len(found)
    missed = int(((low > chance) | (high < chance)).sum())
    most = int(stats.binom.ppf(0.999, n, SHORT))
    spread = 4 * np.sqrt(chance * (1 - chance) / IMAGES / n) + SLACK  # the cells of an image are right or wrong together
    what = f"{kind}, labels dealt by chance to {IMAGES} images of {CELLS} cells, own image left out, {n} dealings"
    return [
        Finding("chance", f"{what}: mean accuracy", float(accuracy.mean()), chance - spread, chance + spread),
        Finding("chance", f"{what}: intervals that miss {chance:.3f}", missed, 0, most),
        # the other way round: these cells do hold what a leak would show, or the check could not see one
        Finding("chance", f"{kind}, the same with the cell alone left out: mean accuracy (the leak is there to be seen)",
                float(cell.mean()), (1 + chance) / 2),
    ]  # fmt: skip
