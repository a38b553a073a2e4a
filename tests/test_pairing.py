"""What a training pairs, holds out and leaves out, and that a training with each choice resumes bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import CHANNELS
from test_train import TINY, fit, same

from pci_core import recipe as recipes
from pci_core.cells import CellDataset, CellWriter
from pci_core.checkpoint import CHECKPOINT
from pci_core.errors import CheckpointError, SamplingError, UnknownNameError
from pci_core.pairing import Pairing, images_with
from pci_core.pairs import PairSampler, split_images
from pci_core.recipe import Recipe, Training
from pci_core.step import TrainingStep
from pci_core.train import load_model, train

PROTEINS = ["A", "B", "A", "C", "", "D", "B", "E"]  # of each image: A and B have two, one has none
CELLS = [4, 3, 5, 6, 4, 5, 2, 3]
VARIABLE = ["", "", "", "x", "", "", "", ""]


@pytest.fixture
def dataset(tmp_path: Path) -> CellDataset:
    """Eight images, of whose proteins two are in two images each."""
    return write(tmp_path / "cells", protein=PROTEINS)


def write(folder: Path, cells: list[int] = CELLS, **columns: list[Any]) -> CellDataset:
    rng = np.random.default_rng(0)
    with CellWriter(folder, CHANNELS, 0.5) as writer:
        for i, n in enumerate(cells):
            ids = [f"i{i}_{j}" for j in range(n)]
            more = {name: values[i] for name, values in columns.items()}
            crops = (rng.random((n, 2, 16, 16)) ** 3 * 250).astype(np.uint8)
            writer.add(crops, pd.DataFrame({"cell_id": ids, "image": f"i{i}", **more}))
    return CellDataset(folder)


def spec(**keys: Any) -> Training:
    return recipes.load("authors-toy-yeast").replace(training={**TINY, **keys}).training


def recipe(**keys: Any) -> Recipe:
    return recipes.load("authors-toy-yeast").replace(training={**TINY, **keys})


def test_the_papers_way_is_what_it_was(dataset: CellDataset) -> None:
    pairing = Pairing(dataset, spec())
    train_images, held_images = split_images(8, 0.25, 0)
    assert pairing.train.tolist() == train_images.tolist() and pairing.held.tolist() == held_images.tolist()
    drawn, wanted = pairing.sampler(1, range(1), "cpu").draw(2)[0], PairSampler(dataset.starts, train_images).epoch(0, 2)
    assert all(torch.equal(getattr(drawn, k), getattr(wanted, k)) for k in ("source", "target", "flips", "group"))
    held = PairSampler(dataset.starts, held_images).epoch(0, 0)
    assert pairing.held_pairs is not None and torch.equal(pairing.held_pairs.target, held.target) and not pairing.held_pairs.flips.any()
    assert (pairing.identity, pairing.facts) == ({}, {})
    told = pairing.told(pairing.sampler(1, range(1), "cpu"))
    assert told == [f"{len(drawn)} source cells of 6 images, 2 images held out, 0 with one cell left out"]


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("seed", range(4))
def test_pairs_of_a_protein_across_its_images(dataset: CellDataset, seed: int, chunk: int | None, shards: int) -> None:
    pairing = Pairing(dataset, spec(pair_by="protein", seed=seed))
    protein = dataset.table["protein"].to_numpy()
    image = dataset.table["image"].to_numpy()
    pairs = pairing.sampler(shards, range(shards), "cpu").draw(0, chunk)
    source, target, group = (torch.cat([getattr(p, k) for p in pairs]).numpy() for k in ("source", "target", "group"))
    assert (protein[source] == protein[target]).all() and (source != target).all() and "" not in protein[source]
    held = pairing.held_pairs
    assert held is not None
    seen, unseen = set(protein[source]), set(protein[held.source.numpy()])
    assert not seen & unseen and seen | unseen == set("ABCDE") and len(unseen) == 1
    assert sorted(source) == [row for row in range(len(protein)) if protein[row] in seen]  # each once
    assert pd.Series(group).groupby(protein[source]).nunique().eq(1).all() and len(set(group)) == len(seen)  # masks all of a protein
    if {"A", "B"} & seen:
        assert (image[source] != image[target]).any()
    for part in pairs:
        assert bool(part.chunks) == (chunk is not None)
        ends = [c.begin for c in part.chunks[1:]] + [len(part)] * bool(chunk)
        for c, end in zip(part.chunks, ends, strict=True):  # what is in memory together is all that is asked for
            rows = {row for a, b in c.spans.tolist() for row in range(a, b)}
            assert {*part.source[c.begin : end].tolist(), *part.target[c.begin : end].tolist()} <= rows


def test_what_is_said_and_kept_of_it(dataset: CellDataset) -> None:
    pairing = Pairing(dataset, spec(pair_by="protein", weigh="images"))
    told = pairing.told(pairing.sampler(1, range(1), "cpu"))
    assert told[0] == "cells of the same 'protein' are paired; 4 cells without a value left out"
    assert "of 4 values of 'protein', each as often, 1 values of 'protein' held out" in told[1]
    assert pairing.facts == {"cells_without_set": 4}


def test_no_image_has_cells_on_both_sides(tmp_path: Path) -> None:
    """Fields of view are finer than images, and a plate is coarser: held out is whatever hangs together."""
    dataset = write(tmp_path / "cells", plate=list("aabbccdd"))
    dataset.table["half"] = [f"{image}_{i % 2}" for i, image in enumerate(dataset.table["image"])]
    for column, parts in (("half", 8), ("plate", 4)):
        for seed in range(5):
            pairing = Pairing(dataset, spec(pair_by=column, seed=seed))
            image = dataset.table["image"].to_numpy()
            sides = [set(image[pairing.sets.rows_of(part)]) for part in (pairing.train, pairing.held)]
            assert not sides[0] & sides[1] and len(sides[1]) == round(parts * 0.25) * (8 // parts)
    dataset.table["phase"] = [i % 2 for i in range(len(dataset))]  # both phases in every image: none can be held out
    pairing = Pairing(dataset, spec(pair_by="phase"))
    assert pairing.train.tolist() == [0, 1] and not len(pairing.held) and pairing.held_pairs is None


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["", "yes", " ", "0", "False", "false", "0.0", "no"], [1, 7]),
        ([0, 1, 0, 2, 0, 0, 0, -1], [1, 3, 7]),
        ([np.nan, 0.0, 0.5, np.nan, 0, 0, 0, 0], [2]),
        ([False, True] * 4, [1, 3, 5, 7]),
    ],
)
def test_images_with_a_value_are_left_out(tmp_path: Path, values: list[Any], wanted: list[int]) -> None:
    dataset = write(tmp_path / "cells", variable=values)
    assert images_with(dataset, "variable").tolist() == wanted
    pairing = Pairing(dataset, spec(leave_out="variable"))
    assert sorted([*pairing.train, *pairing.held]) == sorted(set(range(8)) - set(wanted)) and len(pairing.held) >= 1
    assert f"{len(wanted)} of 8 images left out, which have a value in 'variable'" in pairing.told(pairing.sampler(1, range(1), "cpu"))


def test_one_cell_with_a_value_leaves_its_image_out(dataset: CellDataset) -> None:
    dataset.table["odd"] = [""] * 5 + ["x"] + [""] * (len(dataset) - 6)
    assert images_with(dataset, "odd").tolist() == [1]


def test_left_out_images_are_left_out_of_the_sets(dataset: CellDataset) -> None:
    pairing = Pairing(dataset, spec(pair_by="protein", leave_out_varying=0.2), np.array([2, 5]))
    rows = pairing.sets.rows_of(np.arange(len(pairing.sets)))
    assert set(dataset.table["image"].to_numpy()[rows]) == {"i0", "i1", "i3", "i6", "i7"}
    assert pairing.identity == {"left_out_varying": ["i2", "i5"]} and pairing.facts["images_left_out_as_varying"] == 2


@pytest.mark.parametrize(
    ("keys", "error", "told"),
    [
        ({"pair_by": "protien"}, UnknownNameError, "pair_by.*protien.*Did you mean protein"),
        ({"leave_out": "varaible"}, UnknownNameError, "leave_out.*varaible.*Known: cell_id"),
        ({"pair_by": "cell_id"}, SamplingError, "values of 'cell_id' has two cells.*Check the column 'cell_id'"),
        ({"pair_by": "empty"}, SamplingError, "'empty': the column is empty for all 32 cells"),
        ({"leave_out": "image"}, SamplingError, "all 8 images are left out: 8 with a value in the column 'image', 0 as varying"),
        ({"pair_by": "one", "pretext": "contrast"}, SamplingError, "one of the 1 values of 'one'.*learns what tells.*'inpainting'"),
        ({"pair_by": "two", "pretext": "redundancy", "holdout": 0.5}, SamplingError, "one of the 2 values of 'two'.*holdout = 0"),
        ({"leave_out_varying": 0.1}, SamplingError, "score of an earlier network.*pci train"),
    ],
)
def test_what_cannot_be_trained_on_is_told_before_anything_is_written(
    tmp_path: Path, keys: dict[str, Any], error: type[Exception], told: str
) -> None:
    dataset = write(tmp_path / "cells", protein=PROTEINS, empty=[""] * 8, one=["x"] * 8, two=list("aaaabbbb"))
    with pytest.raises(error, match=told):
        train(dataset, recipe(**keys), tmp_path / "m", device="cpu", precision="float32", quiet=True)
    assert not (tmp_path / "m").exists()


def test_an_image_that_is_not_there_is_refused(dataset: CellDataset) -> None:
    with pytest.raises(SamplingError, match=r"number \[3, 8\], and the 8 images have the numbers 0 to 7"):
        Pairing(dataset, spec(), np.array([8, 3]))


def test_one_image_is_enough_for_inpainting(tmp_path: Path) -> None:
    dataset = write(tmp_path / "cells", [9])
    pairing = Pairing(dataset, spec())
    assert "cannot tell proteins apart" in pairing.told(pairing.sampler(1, range(1), "cpu"))[-1]
    with pytest.raises(SamplingError, match="one of the 1 images"):
        Pairing(dataset, spec(pretext="contrast"))


def test_far_targets_are_farther_than_random_ones(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells(images=5, cells=12)
    shapes = Pairing(dataset, spec(targets="far")).drawing.shapes
    assert shapes is not None
    mean = {}
    for targets in ("far", "random"):
        pairs = Pairing(dataset, spec(targets=targets)).sampler(1, range(1), "cpu").draw(0)[0]
        assert ((pairs.source // 12) == (pairs.target // 12)).all() and (pairs.source != pairs.target).all()
        mean[targets] = np.linalg.norm(shapes[pairs.source] - shapes[pairs.target], axis=1).mean()
    # of four random distances the largest: a few tenths above the mean one in six dimensions; fixed seed
    assert mean["far"] > 1.15 * mean["random"]


CHOICES: dict[str, dict[str, Any]] = {
    "pair_by": {"pair_by": "protein"},
    "weigh": {"weigh": "images"},
    "targets": {"targets": "far"},
    "leave_out": {"leave_out": "variable"},
    "leave_out_varying": {"leave_out_varying": 0.2},
    "contrast": {"pair_by": "protein", "weigh": "images", "pretext": "contrast"},
    "all": {"pair_by": "protein", "weigh": "images", "targets": "far", "leave_out": "variable", "leave_out_varying": 0.2},
}


ORDERS: dict[str, dict[str, Any]] = {"whole": {}, "chunked": {"data": "chunked", "chunk": 9}, "shards": {"shards": 2}}


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, torch.Tensor]]:
    """Weights of the paper's way on the same cells in an order, trained once."""
    made: dict[str, dict[str, torch.Tensor]] = {}

    def of(by: str) -> dict[str, torch.Tensor]:
        if by not in made:
            folder = tmp_path_factory.mktemp("papers")
            cells = write(folder / "cells", protein=PROTEINS, variable=VARIABLE)
            made[by] = fit(cells, recipe(batch_size=4, epochs=2), folder / by, **ORDERS[by])
        return made[by]

    return of


@pytest.mark.parametrize(("name", "by"), [*((name, "whole") for name in CHOICES), ("all", "chunked"), ("all", "shards")])
def test_a_training_with_each_choice_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, papers: Callable[[str], dict[str, torch.Tensor]], name: str, by: str
) -> None:
    dataset = write(tmp_path / "cells", protein=PROTEINS, variable=VARIABLE)
    spec = recipe(**CHOICES[name], batch_size=4, epochs=2)
    more = dict(ORDERS[by])
    if spec.training.leave_out_varying:
        more["leave_out"] = np.array([5])
    whole = fit(dataset, spec, tmp_path / "whole", **more)
    assert not same(whole, papers(by))
    shards = more.get("shards", 1)
    steps = Pairing(dataset, spec.training, more.get("leave_out")).sampler(shards, range(shards), "cpu").steps
    original, calls = TrainingStep.__call__, 0

    def cut(self: TrainingStep, *arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == steps + 3:  # in the second epoch
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(TrainingStep, "__call__", cut)
    with pytest.raises(KeyboardInterrupt):
        fit(dataset, spec, tmp_path / "cut", checkpoint_seconds=0.0, **more)
    monkeypatch.setattr(TrainingStep, "__call__", original)
    state = torch.load(tmp_path / "cut" / CHECKPOINT, weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 2)
    assert same(fit(dataset, spec, tmp_path / "cut", **{k: v for k, v in more.items() if k != "chunk"}), whole)  # kept in it
    card = load_model(tmp_path / "cut" / "weights.safetensors")[1]
    if "leave_out" in more:
        assert card["left_out_varying"] == ["i5"] and card["images_left_out_as_varying"] == 1
        with pytest.raises(CheckpointError, match="left_out_varying: "):
            fit(dataset, spec, tmp_path / "cut", **{**more, "leave_out": np.array([4])})
