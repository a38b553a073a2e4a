"""Images whose cells vary most, by an earlier network's own score, to be left out of a training (``leave_out_varying``).

A pair of cells of an image teaches most where the protein looks alike in both. Where it does not, as in some cells only, painting
one from the other is guesswork; the paper names leaving such proteins out as a thing to try. Which they are is found without a
label: the same training without this key is made first, its features describe all cells, and images are ranked by ``combined``
of `pci_core.analysis.variability`, which asks how far the cells of an image spread, and whether along one direction, against
images of other proteins that look like it. So a training with this key takes twice the time, once for each earlier network.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from pci_core.analysis.selection import label_text
from pci_core.cells import CellDataset
from pci_core.checkpoint import WEIGHTS
from pci_core.errors import AnalysisNeedsError, DatasetError
from pci_core.features import read_features
from pci_core.pairing import images_with
from pci_core.reading import read_csv, refusing
from pci_core.storage import file_sha256
from pci_core.tables import write_csv
from pci_core.used import Used

if TYPE_CHECKING:
    from pci_core.run import Run

SCORE = "combined"
CODE = 1  # raise it when the scores change


class LeftOut(NamedTuple):
    """Images that a training leaves out.

    Attributes
    ----------
    numbers : ndarray
        (n,) int64, sorted.
    names : list of str
        Their names, in that order.
    features : Path
        Feature set of the earlier network that they were found by.
    """

    numbers: np.ndarray
    names: list[str]
    features: Path


def left_out(run: Run, kind: str) -> LeftOut | None:
    """Return the images that the recipe's ``leave_out_varying`` means, None where it is 0.

    The earlier network, its features and the scores (``varying/<network>.csv`` in the run's folder) are steps of the run: made
    once and reused.

    Parameters
    ----------
    run : Run
    kind : str
        ``"pci"`` or ``"autoencoder"``: the earlier network is of the same kind.

    Raises
    ------
    AnalysisNeedsError
        No image has enough cells to be scored, or all are of one protein.
    """
    share = run.recipe.training.leave_out_varying
    if not share:
        return None
    earlier = run.with_training(leave_out_varying=0.0)
    earlier.sample = None  # trainings see all cells
    earlier.used = Used(run.folder.parent)  # the network's parents are told by its own record, not by all that is made later
    if not run.quiet and not (run.folder / "models" / f"{kind}{earlier.variant}" / WEIGHTS).exists():
        print(f"leave_out_varying = {share:g}: first a network of all images, which tells those whose cells vary most")
    layer = run.recipe.layer
    name = layer if kind == "pci" else f"{kind}_{layer}"
    weights = earlier.train(kind) / WEIGHTS
    features = earlier.feature_files(name)[name]
    dataset = earlier.cells()
    out = run.folder / "varying" / f"{kind}{earlier.variant}.csv"

    def make() -> None:
        from pci_core.analysis.variability import image_scores  # half a second of imports, which no other training needs

        out.parent.mkdir(parents=True, exist_ok=True)
        write_csv(image_scores(read_features(features, dataset, whole=True)).sort_values(SCORE, ascending=False), out)

    inputs = {"weights": file_sha256(weights), "layer": layer, "dataset": dataset.sha256, "code": CODE}
    run.steps.make(f"varying/{out.stem}", inputs, [out], make)
    with refusing(out, DatasetError, "is no readable table of scores", "Delete it and train again."):
        scores = read_csv(out, dtype={"image": str}, keep_default_na=False, na_values={SCORE: [""]})[["image", SCORE]]
    column = run.recipe.training.leave_out
    numbers = most_varying(scores, dataset, share, images_with(dataset, column) if column else np.zeros(0, np.int64))
    return LeftOut(numbers, dataset.table["image"].to_numpy()[dataset.starts[numbers]].tolist(), features)


def most_varying(scores: pd.DataFrame, dataset: CellDataset, share: float, besides: np.ndarray) -> np.ndarray:
    """Return the images that vary most.

    Parameters
    ----------
    scores : DataFrame
        ``image`` and ``combined``, see `pci_core.analysis.variability.image_scores`.
    dataset : CellDataset
    share : float
        In (0, 1): of the images that have a score, rounded, at least one; of these, one is always kept.
    besides : ndarray of int
        Numbers of images that are left out already: they do not count.

    Returns
    -------
    ndarray
        (n,) int64 numbers of images, sorted. Of images of the same score, those that come first in the dataset.

    Raises
    ------
    AnalysisNeedsError
        No image has a score.
    """
    names = label_text(dataset.table["image"]).to_numpy()[dataset.starts[:-1]]
    score = scores.set_index("image")[SCORE].reindex(names).to_numpy(float)
    scored = np.flatnonzero(np.isfinite(score) & ~np.isin(np.arange(len(names)), besides))
    if not len(scored):
        from pci_core.analysis.variability import LEAST

        raise AnalysisNeedsError(
            f"leave_out_varying = {share:g}: none of the {len(names) - len(besides)} images can be scored. It takes {LEAST} cells an "
            "image, and images of at least two proteins. Leave the key out, or name a column of your own in leave_out."
        )
    k = min(max(1, round(share * len(scored))), len(names) - len(besides) - 1)
    return np.sort(scored[np.argsort(-score[scored], kind="stable")[:k]])
