"""The supervised upper bound: splits without leaks, a pattern that is learned, chance on permuted labels, errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pci_core.baselines import Measured
from pci_core.baselines.supervised import HIDDEN, Classifier, Split, _turn, split, supervised
from pci_core.cells import CellDataset, CellWriter, Channel
from pci_core.errors import CellTableError, UnknownNameError
from pci_core.features import read_features, write_features
from pci_core.recipe import Preprocess

SPEC = Preprocess()
Write = Callable[..., CellDataset]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write cells of given labels and images; the protein is stripes along or across if the label is a or b."""

    def make(
        labels: list[str], images: list[str], *, side: int = 16, dtype: str = "uint8", name: str = "cells", **columns: object
    ) -> CellDataset:
        rng = np.random.default_rng(0)
        marker = rng.random((len(labels), side, side))
        stripes = np.broadcast_to(np.arange(side) % 4 < 2, (side, side))
        spots = np.add.outer(np.arange(side), np.arange(side)) % 7 == 0
        protein = np.stack([spots if x == "b" else stripes for x in labels]) * (0.5 + 0.5 * rng.random((len(labels), side, side)))
        crops = np.stack([protein, marker], 1)
        with CellWriter(tmp_path / "cells", (Channel("protein", "protein"), Channel("marker", "structural")), 0.5) as writer:
            writer.add(
                (crops * (1 if dtype == "float32" else 200)).astype(dtype),
                pd.DataFrame({"cell_id": [f"c{i}" for i in range(len(labels))], "image": images, "location": labels, **columns}),
            )
        return CellDataset(tmp_path / "cells")

    return make


def many(images: int = 8, cells: int = 8, classes: str = "ab") -> tuple[list[str], list[str]]:
    labels = [classes[i % len(classes)] for i in range(images) for _ in range(cells)]
    return labels, [f"i{i}" for i in range(images) for _ in range(cells)]


def accuracy(measured: Measured, labels: list[str]) -> float:
    truth, fold = np.array(labels), measured.obs["fold"]
    right = measured.obs["supervised_predicted"] == truth
    return float(np.mean([right[(truth == c) & (fold >= 0)].mean() for c in np.unique(truth[fold >= 0])]))


# --- splits


def check_split(parts: Split, labels: np.ndarray, groups: np.ndarray) -> None:
    used = parts.fold >= 0
    assert sorted(np.unique(parts.fold[used])) == list(range(parts.folds))
    for g in np.unique(groups):
        assert len(np.unique(parts.fold[used & (groups == g)])) <= 1, f"{g} is on both sides of a split"
    for f in range(parts.folds):
        train, test = used & (parts.fold != f), used & (parts.fold == f)
        assert set(labels[test]) <= set(labels[train]), "a class is tested that was not trained on"
    assert (parts.code >= 0).tolist() == used.tolist()
    assert [parts.classes[c] for c in parts.code[used]] == labels[used].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_no_group_stands_on_both_sides(write: Write, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = np.repeat([f"i{i}" for i in range(30)], rng.integers(1, 9, 30))
    labels = np.array(list("abcde"))[rng.integers(0, 5, 30)][np.unique(images, return_inverse=True)[1]]
    plates = np.array([f"p{hash_ % 11}" for hash_ in np.unique(images, return_inverse=True)[1]])  # several classes share a plate
    dataset = write(labels.tolist(), images.tolist(), plate=plates)
    check_split(split(dataset, "location", "image", seed=seed), labels, images)
    check_split(split(dataset, "location", "plate", seed=seed), labels, plates)


def test_what_is_left_out_is_counted(write: Write) -> None:
    labels, images = many(8, 3)
    labels += ["", "", "a;b", "c", "c", "c"]
    images += ["i8", "i8", "i9", "j0", "j0", "j0"]
    parts = split(write(labels, images), "location", "image", folds=3)
    assert parts.left_out == {"without a label": 2, "of several terms": 1, "of classes with a single image": 3}
    assert parts.classes == ["a", "b"] and (parts.fold[24:] == -1).all() and (parts.fold[:24] >= 0).all() and parts.folds == 3
    check_split(parts, np.array(labels), np.array(images))


def test_fewer_folds_where_classes_have_few_groups(write: Write) -> None:
    labels, images = many(6, 3)
    parts = split(write(labels, images), "location", "image")
    assert parts.folds == 3
    check_split(parts, np.array(labels), np.array(images))


def test_errors(write: Write) -> None:
    labels, images = many(4, 3)
    dataset = write(labels, images, note=[""] * 12, one=["x"] * 12, well=images)
    with pytest.raises(UnknownNameError, match="unknown column 'locaton'. Did you mean location"):
        supervised(dataset, SPEC, "locaton", "image", quiet=True)
    with pytest.raises(UnknownNameError, match="unknown column 'imag'. Did you mean image"):
        supervised(dataset, SPEC, "location", "imag", quiet=True)
    with pytest.raises(CellTableError, match="'note' names a single class for none of the 12 cells"):
        supervised(dataset, SPEC, "note", "image", quiet=True)
    with pytest.raises(CellTableError, match="'one' has fewer than two classes .* {'x': 4}"):
        supervised(dataset, SPEC, "one", "image", quiet=True)
    with pytest.raises(CellTableError, match="'well' has fewer than two classes .*'i0': 1"):
        supervised(dataset, SPEC, "well", "image", quiet=True)
    with pytest.raises(CellTableError, match="at least 2 folds, found 1"):
        supervised(dataset, SPEC, "location", "image", folds=1, quiet=True)


# --- training


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pci_core.baselines.supervised.BATCH", 16)
    monkeypatch.setattr("pci_core.baselines.supervised.STEPS", 40)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_pattern_is_learned(write: Write, dtype: str) -> None:
    labels, images = many()
    labels[5], labels[60] = "", "a;b"
    dataset = write(labels, images, dtype=dtype)
    measured = supervised(dataset, SPEC, "location", "image", folds=2, width=0.1, device="cpu", quiet=True)
    fold = measured.obs["fold"]
    assert accuracy(measured, labels) > 0.95  # stripes against spots; chance is 0.5
    assert measured.facts["folds"] == 2 and measured.facts["label"] == "location" and measured.facts["split_by"] == "image"
    assert measured.facts["left_out"] == "1 without a label; 1 of several terms" and measured.facts["cells_tested"] == 62
    assert np.flatnonzero(fold < 0).tolist() == [5, 60] and fold.dtype == np.int64
    assert measured.obs["supervised_predicted"][[5, 60]].tolist() == ["", ""]
    assert measured.values.shape == (64, HIDDEN) and measured.values.dtype == np.float32
    assert np.isfinite(measured.values).all() and (measured.values >= 0).all()
    assert set(measured.obsm) == {"fold_0", "fold_1"}
    for i in range(64):
        np.testing.assert_array_equal(measured.values[i], measured.obsm[f"fold_{max(fold[i], 0)}"][i])
    assert not np.allclose(measured.obsm["fold_0"], measured.obsm["fold_1"])


@pytest.mark.usefixtures("few_steps")
def test_permuted_labels_give_chance(write: Write) -> None:
    rng = np.random.default_rng(1)
    labels, images = many(24, 6)
    shuffled = np.repeat(rng.permutation(["a", "b"] * 12), 6)  # a label an image, as before, but not the one of its pattern
    dataset = write(labels, images, plate=shuffled)
    measured = supervised(dataset, SPEC, "plate", "image", folds=3, width=0.1, device="cpu", quiet=True)
    # 24 independent images: the standard error of an accuracy of 0.5 is 0.1; a leak of images would give 1
    assert 0.2 < accuracy(measured, shuffled.tolist()) < 0.8


@pytest.mark.usefixtures("few_steps")
def test_the_seed_fixes_the_result(write: Write) -> None:
    labels, images = many(4, 4)
    dataset = write(labels, images)

    def run(seed: int) -> Measured:
        torch.rand(1)  # whatever else was drawn in between
        return supervised(dataset, SPEC, "location", "image", folds=2, epochs=1, width=0.1, seed=seed, device="cpu", quiet=True)

    a, b, c = run(0), run(0), run(1)
    np.testing.assert_array_equal(a.values, b.values)
    assert not np.array_equal(a.values, c.values)


@pytest.mark.usefixtures("few_steps")
def test_the_test_cells_do_not_touch_their_network(write: Write) -> None:
    labels, images = many(4, 6)
    dataset = write(labels, images)
    a = supervised(dataset, SPEC, "location", "image", folds=2, epochs=2, width=0.1, device="cpu", quiet=True)
    fold = a.obs["fold"]
    crops = np.array(dataset.crops)
    crops[fold == 0] = 255 - crops[fold == 0]  # other pictures and the same table: network 0 must be the same one
    with CellWriter(dataset.folder.with_name("changed"), dataset.channels, 0.5) as writer:
        writer.add(crops, dataset.table)
    b = supervised(CellDataset(dataset.folder.with_name("changed")), SPEC, "location", "image", folds=2, epochs=2, width=0.1,
                   device="cpu", quiet=True)  # fmt: skip
    np.testing.assert_array_equal(a.obsm["fold_0"][fold == 1], b.obsm["fold_0"][fold == 1])
    assert not np.array_equal(a.obsm["fold_1"][fold == 1], b.obsm["fold_1"][fold == 1])


@pytest.mark.usefixtures("few_steps")
def test_written_and_read_again(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels, images = many(4, 3)
    labels[0] = ""
    dataset = write(labels, images)
    measured = supervised(dataset, SPEC, "location", "image", folds=2, epochs=1, width=0.1, device="cpu")
    assert "11 cells of 2 classes of 'location', 1 without a label left out" in capsys.readouterr().out
    write_features(dataset, measured, tmp_path / "supervised.h5ad", {"recipe": "made-up"})
    adata = read_features(tmp_path / "supervised.h5ad", dataset)
    np.testing.assert_array_equal(adata.obsm["fold_1"], measured.obsm["fold_1"])
    assert adata.obs["supervised_predicted"].astype(str).tolist() == measured.obs["supervised_predicted"].tolist()
    assert adata.uns["pci"]["split_by"] == "image" and adata.var_names[0] == "supervised_0001"


# --- parts


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_crops_are_turned_in_all_eight_ways(dtype: torch.dtype) -> None:
    crop = torch.arange(9, dtype=torch.float32).reshape(1, 1, 3, 3).to(dtype)
    how = torch.tensor([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], dtype=torch.bool)
    turned = _turn(crop.expand(8, -1, -1, -1).contiguous(), how)
    one = crop[0, 0].numpy().astype(int)
    expected = {m.tobytes() for k in range(4) for m in (np.rot90(one, k).copy(), np.rot90(one.T, k).copy())}
    assert {t.numpy().astype(int).tobytes() for t in turned[:, 0]} == expected and len(expected) == 8
    assert turned.dtype == dtype


def test_crops_that_are_not_square_are_mirrored_only() -> None:
    x = torch.arange(6, dtype=torch.float32).reshape(1, 1, 2, 3)
    assert _turn(x, torch.tensor([[True, False, True]]))[0, 0].tolist() == [[3, 4, 5], [0, 1, 2]]


@pytest.mark.parametrize("side", [8, 13, 64])
def test_crops_of_any_size(side: int) -> None:
    model = Classifier(3, 4).eval()
    assert model(torch.rand(2, 3, side, side)).shape == (2, 4) and model.features(torch.rand(2, 3, side, side)).shape == (2, HIDDEN)
    assert [m.out_channels for m in model.convolutions if isinstance(m, torch.nn.Conv2d)] == [16, 16, 32, 32, 64, 64, 64, 64]
