"""The paper's accuracies as data, and tables of ours with the paper's figure in the next column.

All are balanced accuracies in [0, 1] on 30,889 labelled yeast cells of 17 classes (Chong et al. 2015),
with the cell alone left out. Those cells are not in this project: a figure here that stands beside one of
ours was computed on other cells.
"""

from __future__ import annotations

import math
import re

import pandas as pd

PAPER_K = 11
PAPER_KS = (1, 5, 11, 25, 50)
PAPER_TABLE_1 = {"conv1": 0.4309, "conv2": 0.7052, "conv3": 0.8430, "conv4": 0.8798, "conv5": 0.8189}
PAPER_FIGURE_2A = {
    "designed": 0.6204,
    "cellprofiler": 0.6815,
    "vgg16": 0.6933,
    "autoencoder": 0.4250,
    "pci_conv4": 0.8798,
    "supervised": 0.9239,  # 0.9244 in supplementary table 1
}
PAPER_SUPP_1 = {
    "designed": dict(zip(PAPER_KS, (0.5716, 0.6106, 0.6204, 0.6151, 0.5999), strict=True)),
    "cellprofiler": dict(zip(PAPER_KS, (0.6110, 0.6552, 0.6815, 0.6754, 0.6606), strict=True)),
    "vgg16": dict(zip(PAPER_KS, (0.6470, 0.6889, 0.6933, 0.6743, 0.6502), strict=True)),
    "autoencoder": dict(zip(PAPER_KS, (0.3531, 0.4032, 0.4250, 0.4250, 0.4719), strict=True)),
    "pci_conv4": dict(zip(PAPER_KS, (0.8551, 0.8789, 0.8798, 0.8720, 0.8580), strict=True)),
    "supervised": dict(zip(PAPER_KS, (0.9009, 0.9225, 0.9244, 0.9233, 0.9216), strict=True)),
}
PAPER_SUPP_2 = {
    "logistic": {
        "designed": 0.6917,
        "cellprofiler": 0.8000,
        "vgg16": 0.8377,
        "autoencoder": 0.6333,
        "pci_conv4": 0.9134,
        "supervised": 0.9405,
    },
    "forest": {
        "designed": 0.6980,
        "cellprofiler": 0.7817,
        "vgg16": 0.7229,
        "autoencoder": 0.5641,
        "pci_conv4": 0.8749,
        "supervised": 0.9294,
    },
    "end_to_end": {"supervised": 0.9402},
}
PAPER_VGG16_FC_224 = 0.6564  # kNN, k = 11, from the text: "the final fully-connected layer" at 224 px; it names no strategy
PAPER_LAYER = {
    "vgg16": "block4_conv1, protein channel as grey, at the crop's own size",
    "autoencoder": "its best layer; the paper does not say which",
    "pci_conv4": "conv4, maximum over space",
    "supervised": "last fully connected layer before the classification layer",
}


def paper_family(features: str) -> str:
    """Return the paper's name for a feature set of ours, or an empty text.

    ``conv4`` is ``pci_conv4``; every ``autoencoder_…`` layer is ``autoencoder``, because the paper gives its best
    layer and does not say which; of VGG16 only ``vgg16_block4_conv1_protein`` is the one of the paper's
    tables; ``provided``, the measurements that came with the cells, is the paper's ``cellprofiler``. What follows a ``+``
    (e.g. ``conv4+seed=1``) does not count.
    """
    name = features.split("+")[0]
    if name in ("designed", "cellprofiler", "supervised"):
        return name
    if name == "provided":
        return "cellprofiler"
    if name in ("conv4", "pci_conv4"):
        return "pci_conv4"
    if re.fullmatch(r"autoencoder(_conv[1-5])?", name):
        return "autoencoder"
    return "vgg16" if name == "vgg16_block4_conv1_protein" else ""


def paper_figure(features: str, classifier: str = "knn", k: int = PAPER_K) -> float:
    """Return the paper's balanced accuracy for a feature set of ours.

    Parameters
    ----------
    features : str
        Name of a feature set, e.g. ``conv3``, ``autoencoder_conv2``, ``vgg16_block4_conv1_protein``, ``designed``.
    classifier : str
        ``"knn"``, ``"logistic"``, ``"forest"`` or ``"end_to_end"``.
    k : int
        Number of neighbours, for ``"knn"``.

    Returns
    -------
    float
        In [0, 1], with the cell alone left out; NaN where the paper has none. k = 11 is figure 2A and table 1,
        other k are supplementary table 1, other classifiers supplementary table 2.
    """
    name, family = features.split("+")[0], paper_family(features)
    if classifier != "knn":
        return PAPER_SUPP_2.get(classifier, {}).get(family, math.nan)
    if k == PAPER_K:
        layer = PAPER_TABLE_1.get(name.removeprefix("pci_"), math.nan)
        if name == "vgg16_fc1_protein":
            return PAPER_VGG16_FC_224
        return PAPER_FIGURE_2A.get(family, layer)
    return PAPER_SUPP_1.get(family, {}).get(k, math.nan)


def with_interval(scores: pd.DataFrame) -> list[str]:
    """Write each row's accuracy with its interval, or alone where there is none."""
    return [f"{a:.2f} ({b:.2f}–{c:.2f})" if b == b else f"{a:.2f}" for a, b, c in scores[["accuracy", "low", "high"]].to_numpy()]


def beside_paper(scores: pd.DataFrame, across: str = "left_out") -> pd.DataFrame:
    """Lay out scores for reading: a row a feature set, the paper's figure in the next column.

    Parameters
    ----------
    scores : DataFrame
        Rows of `pci_core.analysis.benchmark.Benchmark.scores`, e.g. those of one classifier and k; of each
        feature set one row for each value of `across`.
    across : str
        Column whose values become columns: ``left_out``, ``k`` or ``classifier``.

    Returns
    -------
    DataFrame of str
        Accuracy with its interval; the paper's columns only where it has a figure for one of the rows.
        They are always those with the cell alone left out, on the paper's cells; so, unless that is said in the
        head of the column (`across` is ``left_out``), rows that leave out more have none beside them. Only
        for supervised sets, of which there is no other row, the paper's figure stands all the same.

    Raises
    ------
    ValueError
        Several rows for one entry: filter them first.
    """
    head = {"left_out": "own {} left out", "k": "k = {}", "classifier": "{}"}[across]
    doubled = scores.duplicated(["features", across])
    if doubled.any():
        raise ValueError(
            f"several rows for {scores.loc[doubled, ['features', across]].iloc[0].to_dict()}; choose one classifier, k and way."
        )
    told = scores.assign(text=with_interval(scores))
    told["paper"] = [paper_figure(f, c, k) for f, c, k in told[["features", "classifier", "k"]].itertuples(index=False)]
    if across != "left_out":
        told["paper"] = told["paper"].where((told["left_out"] == "cell") | (told["features"].map(paper_family) == "supervised"))
    wide = pd.DataFrame(index=pd.Index(told["features"].unique(), name="features"))
    for value, part in told.groupby(across, sort=False):
        part = part.set_index("features")
        wide[head.format(value)] = part["text"]
        if across != "left_out" and part["paper"].notna().any():
            wide[f"{head.format(value)}, paper"] = part["paper"].dropna().map("{:.2f}".format)
    if across == "left_out":
        paper = told.dropna(subset="paper").drop_duplicates("features").set_index("features")["paper"]
        if len(paper):
            wide["paper (own cell left out, other cells)"] = paper.map("{:.2f}".format)
    return wide.fillna("")


def by_layer(scores: pd.DataFrame) -> pd.DataFrame:
    """Lay out scores, with further columns ``layer`` and ``network``, for reading as the paper's table 1.

    Returns
    -------
    DataFrame of str
        One column a layer; rows: what is left out and the network, at last the paper's Table 1. Each
        entry is the accuracy and its interval, or the accuracy alone where there is no interval.
    """
    named = scores.assign(text=with_interval(scores), left_out="own " + scores["left_out"] + " left out")
    wide = named.pivot(index=["left_out", "network"], columns="layer", values="text")
    wide.loc[("own cell left out", "paper, other cells"), :] = {k: f"{v:.2f}" for k, v in PAPER_TABLE_1.items()}
    return wide.sort_index().rename_axis(columns=None)
