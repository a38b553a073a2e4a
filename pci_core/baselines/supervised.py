"""A convolutional classifier trained with labels, after DeepLoc (Kraus et al. 2017): the upper bound.

Cross-validated by groups: the network that describes or names a cell for scoring never saw any cell of
its image. Features are the last hidden layer.

DeepLoc has eight 3x3 convolutions of 64 to 256 filters with ReLU, BatchNorm and three poolings, then
fully connected layers of 512, 512 and the classes. Here, so that five trainings take minutes on two
cores: a quarter of the filters; the crop enters as squares of 2x2 px side by side, which halves its
side at once; the last pooling is the mean over all space, which fits crops of any size; the hidden
layers have 256 units and dropout; AdamW with one cycle of the learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from pci_core import device as devices
from pci_core.baselines import Measured, numbered
from pci_core.cells import CellDataset
from pci_core.encoders import scaled
from pci_core.errors import CellTableError, unknown_name
from pci_core.feed import Feed
from pci_core.folds import make_folds, unlearnable
from pci_core.preprocess import flip, preprocess
from pci_core.recipe import Preprocess

FILTERS = (64, 64, 128, 128, 256, 256, 256, 256)
POOL_AFTER = (1, 3)
HIDDEN = 256
EPOCHS, STEPS = 12, 500  # small sets: more epochs, until there were this many steps
BATCH = 128
LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 4e-3, 0.01, 0.3
RESIDENT_BYTES = 1 << 30  # crops up to this size are held in memory on the CPU as well


class Classifier(nn.Module):
    """Map crops to class scores.

    Parameters
    ----------
    channels, classes : int
    width : float
        Factor on DeepLoc's numbers of filters.
    """

    def __init__(self, channels: int, classes: int, width: float = 0.25) -> None:
        super().__init__()
        sizes = [4 * channels, *(scaled(f, width) for f in FILTERS)]
        layers: list[nn.Module] = []
        for i in range(len(FILTERS)):
            layers += [nn.Conv2d(sizes[i], sizes[i + 1], 3, padding=1, bias=False), nn.BatchNorm2d(sizes[i + 1]), nn.ReLU(inplace=True)]
            if i in POOL_AFTER:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.convolutions = nn.Sequential(*layers)
        hidden: list[nn.Module] = []
        for inputs in (sizes[-1], HIDDEN):
            hidden += [nn.Linear(inputs, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT)]
        self.hidden = nn.Sequential(*hidden)
        self.out = nn.Linear(HIDDEN, classes)

    def features(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) in [0, 1] to the ReLU output of the last hidden layer, (N, 256)."""
        x = F.pixel_unshuffle(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)), 2)
        out: Tensor = self.hidden(self.convolutions(x).float().mean((2, 3)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) in [0, 1] to (N, classes), before softmax."""
        out: Tensor = self.out(self.features(x))
        return out


@dataclass(frozen=True)
class Split:
    """Which cell is tested by which network.

    Attributes
    ----------
    classes : list of str
    code, fold : ndarray
        (cells,) int64 class and fold; -1 for cells that are neither trained on nor tested.
    folds : int
    left_out : dict of str to int
        Why cells are left out, and how many.
    """

    classes: list[str]
    code: np.ndarray
    fold: np.ndarray
    folds: int
    left_out: dict[str, int]


def split(dataset: CellDataset, label: str, group: str, folds: int = 5, seed: int = 0) -> Split:
    """Divide the labelled cells into folds, each group on one side, the classes as alike as can be.

    Parameters
    ----------
    dataset : CellDataset
        Its table needs both columns.
    label : str
        What to learn. Cells where it is empty or names several terms (with ``;``) are left out.
    group : str
        Column whose values are never divided, e.g. ``image``. A class of a single group is left out: it
        could not be both trained on and tested.
    folds : int
        At least 2; fewer where no class has so many groups.
    seed : int
        Of the shuffling.

    Raises
    ------
    UnknownNameError
        There is no such column.
    CellTableError
        No labels, fewer than two classes that can be tested, or fewer than two folds asked for.
    """
    for column in (label, group):
        if column not in dataset.table:
            raise unknown_name("column", column, dataset.table.columns)
    if folds < 2:
        raise CellTableError(f"cross-validation needs at least 2 folds, found {folds}.")
    where = f"{dataset.folder}: column '{label}'"
    values = dataset.table[label].astype(object)
    text = values.where(values.notna(), "").astype(str)
    empty, several = (text == "").to_numpy(), text.str.contains(";", regex=False).to_numpy()
    left_out = {"without a label": int(empty.sum()), "of several terms": int(several.sum())}
    used = ~(empty | several)
    if not used.any():
        raise CellTableError(
            f"{where} names a single class for none of the {len(used)} cells, and a supervised network cannot be trained without. "
            "Name another column as label, or leave this feature set out."
        )
    groups, of_group = np.unique(dataset.table[group].astype(str), return_inverse=True)
    classes, code = np.unique(text, return_inverse=True)
    pairs = np.unique(np.stack([code[used], of_group[used]]), axis=1)
    n_groups = np.bincount(pairs[0], minlength=len(classes))
    single = used & (n_groups[code] == 1)
    left_out[f"of classes with a single {group}"] = int(single.sum())
    used &= ~single
    fold = np.full(len(code), -1, np.int64)
    if used.any():
        n = min(folds, int(n_groups[code[used]].max()))
        fold[used] = make_folds(code[used], of_group[used], n, seed)
        stuck = used & np.isin(code, unlearnable(code[used], fold[used]))
        left_out["of classes that fall into one fold"] = int(stuck.sum())
        used &= ~stuck
        fold[~used] = -1
    if len(np.unique(code[used])) < 2:
        found = {str(classes[c]): int(n_groups[c]) for c in np.flatnonzero(n_groups)[:10]}
        raise CellTableError(
            f"{where} has fewer than two classes that can be trained on and tested: classes and their number of values of '{group}' "
            f"are {found}. A supervised network needs two classes of two each; name another label or group, or leave this feature set out."
        )
    fold[used] = np.unique(fold[used], return_inverse=True)[1]
    names, code[used] = np.unique(classes[code[used]], return_inverse=True)
    code = np.where(used, code, -1)
    return Split([str(n) for n in names], code, fold, int(fold.max()) + 1, {why: n for why, n in left_out.items() if n})


def supervised(
    dataset: CellDataset,
    spec: Preprocess,
    label: str,
    group: str,
    *,
    folds: int = 5,
    epochs: int | None = None,
    width: float = 0.25,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    quiet: bool = False,
) -> Measured:
    """Train one classifier a fold and describe every cell by each of them.

    Parameters
    ----------
    dataset : CellDataset
        (N, C, H, W) crops; all channels are used.
    spec : Preprocess
        As for the other networks.
    label, group, folds
        See `split`.
    epochs : int, optional
        By default 12, and more on small sets until there were 500 steps.
    width : float
        Factor on DeepLoc's numbers of filters.
    seed : int
        Of the folds, weights, order and augmentation. The same seed gives the same result on the same machine.
    device, precision : str
        See `pci_core.device`.
    quiet : bool
        No printed lines and no progress bar.

    Returns
    -------
    Measured
        values: (N, 256) float32, each cell under the network that never saw its group (network 0 where it is in no
        test set). ``obs``: ``fold`` (-1 where in no test set) and ``supervised_predicted`` (class, empty where in no
        test set). ``obsm``: ``fold_0`` …, (N, 256) float32, all cells under the network of that fold.

    Raises
    ------
    UnknownNameError, CellTableError
        See `split`.
    """
    parts = split(dataset, label, group, folds, seed)
    where = devices.choose_device(device)
    dtype = devices.choose_precision(where, precision)
    devices.tune(where)
    feed = Feed(dataset, where, "resident" if where.type == "cpu" and dataset.crops.nbytes <= RESIDENT_BYTES else "auto")
    tested = int((parts.fold >= 0).sum())
    per_fold = tested * (parts.folds - 1) / parts.folds
    epochs = epochs or max(EPOCHS, round(STEPS / -(-per_fold // BATCH)))
    if not quiet:
        print(
            f"Training supervised ({parts.folds} folds by {group}, {epochs} epochs) on {devices.describe(where, dtype)}; crops {feed.told}"
        )
        told = "".join(f", {n} {why} left out" for why, n in parts.left_out.items())
        print(f"  {tested} cells of {len(parts.classes)} classes of '{label}'{told}")

    n = len(dataset)
    code = torch.from_numpy(parts.code)
    obsm = {f"fold_{f}": np.empty((n, HIDDEN), np.float32) for f in range(parts.folds)}
    predicted = np.full(n, -1, np.int64)
    with tqdm(total=epochs * tested * (parts.folds - 1) + parts.folds * n, unit=" cells", disable=quiet) as bar:
        for f in range(parts.folds):
            rows = torch.from_numpy(np.flatnonzero((parts.fold >= 0) & (parts.fold != f)))
            model = _train(feed, rows, code, spec, dtype, epochs=epochs, width=width, seed=(seed, f), bar=bar)
            said = _describe(model, feed, spec, dtype, obsm[f"fold_{f}"], bar)
            mine = parts.fold == f
            predicted[mine] = said[mine]
    own = np.stack(list(obsm.values()))[np.maximum(parts.fold, 0), np.arange(n)]
    facts: dict[str, Any] = {
        "model": "supervised",
        "folds": parts.folds,
        "label": label,
        "split_by": group,
        "classes": len(parts.classes),
        "cells_tested": tested,
        "left_out": "; ".join(f"{k} {why}" for why, k in parts.left_out.items()),
        "epochs": epochs,
        "width": width,
        "seed": seed,
        "precision": str(dtype).removeprefix("torch."),
        "torch": str(torch.__version__),
    }
    names = np.array([*parts.classes, ""], dtype=object)
    obs = {"fold": parts.fold, "supervised_predicted": names[predicted]}
    return Measured(own, numbered("supervised", HIDDEN), facts, obs, obsm)


def _train(
    feed: Feed,
    rows: Tensor,
    code: Tensor,
    spec: Preprocess,
    dtype: torch.dtype,
    *,
    epochs: int,
    width: float,
    seed: tuple[int, int],
    bar: Any,
) -> Classifier:
    """Train on the cells of `rows`, whose classes are ``code[rows]``, every class with the same weight in the loss."""
    where, dataset = feed.device, feed.dataset
    classes = int(code.max()) + 1
    state = int(np.random.SeedSequence(seed).generate_state(1)[0])
    draw = torch.Generator().manual_seed(state)
    steps = -(-len(rows) // BATCH)
    weight = (len(rows) / (classes * torch.bincount(code[rows], minlength=classes))).to(where)
    code = code.to(where)
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(state)
        model = Classifier(dataset.crops.shape[1], classes, width)
        model.to(where, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * steps, pct_start=0.25)
        scaler = torch.amp.GradScaler(where.type, enabled=dtype == torch.float16)
        for _ in range(epochs):
            # parts of nearly one size: the rest of a division could be a single cell, of which BatchNorm knows no variance
            batches = rows[torch.randperm(len(rows), generator=draw)].tensor_split(steps)
            for index, raw in zip(batches, feed.batches(batches), strict=True):
                turned = _turn(raw, torch.rand(len(index), 3, generator=draw).to(where) < 0.5)
                x = preprocess(turned, spec, dataset.n_protein).contiguous(memory_format=torch.channels_last)
                with devices.autocast(where, dtype):
                    scores = model(x)
                loss = F.cross_entropy(scores.float(), code[index.to(where)], weight=weight)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
                bar.update(len(index))
    return model.eval()


def _turn(raw: Tensor, how: Tensor) -> Tensor:
    """Mirror each crop as `how`, (N, 3) bool, says: vertically, horizontally, and, where crops are square, along the diagonal.

    Together these are the eight ways to turn and mirror a square; the stored integers are turned, a quarter of the bytes.
    """
    if raw.dtype == torch.uint16:  # torch cannot choose between such tensors; the bits are the same
        return _turn(raw.view(torch.int16), how).view(torch.uint16)
    raw = flip(raw, how[:, :2])
    return torch.where(how[:, 2, None, None, None], raw.transpose(2, 3), raw) if raw.shape[2] == raw.shape[3] else raw


@torch.inference_mode()
def _describe(model: Classifier, feed: Feed, spec: Preprocess, dtype: torch.dtype, out: np.ndarray, bar: Any) -> np.ndarray:
    """Write the features of all cells to `out`; return the class that the network gives each, (N,) int64."""
    said = np.empty(len(out), np.int64)
    for index, raw in feed.in_order(4 * BATCH):
        x = preprocess(raw, spec, feed.dataset.n_protein).contiguous(memory_format=torch.channels_last)
        with devices.autocast(feed.device, dtype):
            features = model.features(x)
            scores = model.out(features)
        block = slice(int(index[0]), int(index[-1]) + 1)
        out[block] = features.float().cpu().numpy()
        said[block] = scores.argmax(1).cpu().numpy()
        bar.update(len(index))
    return said
