"""`pci check` passes on what is sound, and turns red when a function that makes results is broken."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from forked import Forked
from scipy import stats

from pci_core import check as checks
from pci_core import cli, flags, folds, pooled
from pci_core.analysis import benchmark, enrichment, prepared, scores
from pci_core.analysis import bootstrap as intervals
from pci_core.cells import CellDataset
from pci_core.check import chance, coverage, flips, invariance, leaks, result, spoilt, uniform
from pci_core.check.result import Finding
from pci_core.errors import ParameterError, UnknownNameError
from pci_core.networks import build
from pci_core.recipe import load

SPEC = load("simulated-human")
POPEN = ("DEVNULL", "PIPE", "TimeoutExpired")


def failed(found: list[Finding]) -> list[str]:
    return [f.measured for f in found if not f.passed]


# --- shuffled labels


def test_neighbours_do_no_better_than_guessing() -> None:
    assert not failed(chance.findings("knn", chance.accuracies("knn", range(12))))


def test_a_classifier_that_peeks_at_the_own_image_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    search = prepared.neighbours_each
    monkeypatch.setattr(prepared, "neighbours_each", lambda x, k, ways: search(x, k, [None for _ in ways]))
    assert any("own image left out" in m for m in failed(chance.findings("knn", chance.accuracies("knn", range(6)))))


def test_folds_that_divide_images_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = folds.make_folds
    monkeypatch.setattr(benchmark, "make_folds", lambda code, groups=None, **more: plain(code, None, **more))
    assert any("own image left out" in m for m in failed(chance.findings("logistic", chance.accuracies("logistic", range(2)))))
    monkeypatch.setattr(folds, "make_folds", lambda code, groups=None, **more: plain(code, None, **more))
    assert leaks.divided(np.arange(120) % 2) > 0


# --- shuffled clusters


def test_p_values_of_shuffled_clusters_are_uniform() -> None:
    assert not failed(uniform.findings(uniform.draw(range(80))))


def test_an_overlap_that_counts_one_too_many_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = SimpleNamespace(sf=lambda k, *more: stats.hypergeom.sf(k + 1, *more), pmf=stats.hypergeom.pmf)
    monkeypatch.setattr(enrichment, "stats", SimpleNamespace(hypergeom=wrong, false_discovery_control=stats.false_discovery_control))
    assert any("uniform" in m for m in failed(uniform.findings(uniform.draw(range(80)))))


def test_p_values_that_nobody_corrects_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = SimpleNamespace(hypergeom=stats.hypergeom, false_discovery_control=lambda p, method: p)
    monkeypatch.setattr(enrichment, "stats", plain)
    assert any("FDR" in m for m in failed(uniform.findings(uniform.draw(range(80)))))


# --- intervals


def test_intervals_over_images_hold_the_truth(thorough: bool) -> None:
    n = 1000 if thorough else 150
    held = coverage.repeats(coverage.accuracy_over_images, 10, range(n))
    assert not failed(coverage.findings(10, [held], True))


def over_cells(statistic: Callable[[np.ndarray], float], groups: np.ndarray, **more: Any) -> intervals.Interval:
    return _sound(statistic, np.arange(len(groups)), **more)


_sound, _accuracy = intervals.bootstrap, scores.balanced_accuracy


def test_a_bootstrap_over_cells_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "balanced_accuracy", lambda code, p, groups, **more: _accuracy(code, p, np.arange(len(code)), **more))
    assert failed(coverage.findings(10, [coverage.repeats(coverage.accuracy_over_images, 10, range(150))], True))
    monkeypatch.setattr(intervals, "bootstrap", over_cells)
    monkeypatch.setattr(coverage, "DRAWS", 100)
    assert failed(coverage.findings(30, [coverage.repeats(coverage.mean_over_proteins, 30, range(60))], True))


# --- leaks


def test_planted_leaks_are_told_or_refused(tmp_path: Path) -> None:
    assert not failed(leaks.findings(tmp_path))


def test_a_benchmark_that_does_not_look_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "twins", lambda x, groups: np.zeros(len(x), bool))
    assert leaks.told_by_the_benchmark(leaks.with_a_double(chance.shuffled(0))) == 0


def test_a_users_doubled_image_and_a_group_that_divides_are_told(make_cells: Callable[..., CellDataset]) -> None:
    dataset = make_cells(images=2, cells=4)
    spec = SPEC.replace()
    object.__setattr__(spec, "group", "field")
    found = leaks.of_a_dataset(dataset, spec)
    assert not failed(found) and [f.value for f in found if "divides" in f.measured] == [2]


# --- features


@pytest.fixture
def few(make_cells: Callable[..., CellDataset], monkeypatch: pytest.MonkeyPatch, looked_at_here: None) -> CellDataset:
    monkeypatch.setattr(invariance, "BATCHES", (1, 4))
    return make_cells(images=3, cells=3)


def encoder() -> Any:
    return build("pci", 1, 1, 0.05, seed=0).source


def test_features_depend_on_the_cell_alone(few: CellDataset, tmp_path: Path) -> None:
    assert not failed(invariance.findings(few, encoder(), SPEC, tmp_path))


def test_features_that_depend_on_the_batch_are_found(few: CellDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = pooled.Pooler._pool

    def normalised(self: pooled.Pooler, raw: Any) -> Any:
        return {name: values - 0.01 * values.mean(0) for name, values in sound(self, raw).items()}

    monkeypatch.setattr(pooled.Pooler, "_pool", normalised)
    red = failed(invariance.findings(few, encoder(), SPEC, tmp_path))
    assert any("at a time" in m for m in red) and any("without a third" in m for m in red)


def test_features_that_know_which_way_is_up_are_found(few: CellDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untrained = {0: build("pci", 1, 1, 0.05, seed=1).source, 1: build("pci", 1, 1, 0.05, seed=2).source}
    monkeypatch.setattr(flips, "short_training", lambda dataset, recipe, seed, folder: untrained[seed])
    found = flips.findings(few, encoder(), "never trained", SPEC, tmp_path / "a")
    assert len(found) == 4 and all(np.isfinite(f.value) and f.value > 0 for f in found)

    def corner(dataset: CellDataset, *_: Any) -> dict[str, np.ndarray]:
        return {"conv4": np.asarray(dataset.crops[:, :, :4, :6].reshape(len(dataset), -1), np.float32)}

    monkeypatch.setattr(invariance, "extracted", corner)
    assert failed(flips.findings(few, encoder(), "the upper left corner", SPEC, tmp_path / "b"))


@pytest.mark.slow
def test_two_processes_that_work_together_give_the_same(
    few: CellDataset, tmp_path: Path, thorough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not thorough:  # with it, processes of their own from the start
        own = SimpleNamespace(Popen=lambda command, env, **_: Forked(*command[2:], **env), **{n: getattr(subprocess, n) for n in POPEN})
        monkeypatch.setattr(invariance, "subprocess", own)
    said = {"weights": "", "n_protein": 1, "n_structural": 1, "width": 0.05}
    assert not failed(invariance.of_ranks(few, said, SPEC, tmp_path))


# --- flags


def test_spoilt_cells_are_flagged(few: CellDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    assert not failed(spoilt.findings(few, tmp_path / "a"))
    monkeypatch.setattr(flags, "SATURATED_SHARE", 0.5)
    assert failed(spoilt.findings(few, tmp_path / "b"))


# --- the command


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["pci", "check", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_the_command_says_what_passed_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--draws", "40", "--only", "enrichment", "--jobs", "1", "--quiet"]
    assert run([*few, "--out", str(tmp_path / "c.json")], monkeypatch) == 0
    said = capsys.readouterr().out
    assert "passed" in said and "FAILED" not in said and "6 of 6 passed, 0 reported" in said
    kept = json.loads((tmp_path / "c.json").read_text())
    assert kept["draws"] == 40 and len(kept["findings"]) == 6 and all(f["passed"] for f in kept["findings"])
    monkeypatch.setattr(uniform, "LEAST", 2.0)
    assert run([*few, "--out", str(tmp_path / "c.csv")], monkeypatch) == 1
    assert "FAILED" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "c.csv")["passed"].tolist().count(False) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--draws", "3"], "too few"),
        (["--only", "coverag"], "Did you mean coverage"),
        (["--out", "table.xlsx"], ".json or .csv"),
        (["simulated-humann"], "Did you mean simulated-human"),
    ],
)
def test_wrong_words_are_one_line(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments, monkeypatch) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_a_number_that_could_not_be_had_never_passes() -> None:
    assert not Finding("a", "b", math.nan, 0, 1).passed and Finding("a", "b", math.nan, required=False).passed
    with pytest.raises(ParameterError):
        result.check_ending("x.txt")
    with pytest.raises(UnknownNameError):
        checks.run_checks(only=["nothing"])


@pytest.mark.slow
def test_everything_passes_on_the_defaults(thorough: bool) -> None:
    if not thorough:
        pytest.skip("minutes: with --thorough (make faults)")
    assert not failed(checks.run_checks(quiet=True))


def test_shuffled_cells_are_what_they_say() -> None:
    adata = chance.shuffled(3)
    assert isinstance(adata, anndata.AnnData) and adata.n_obs == chance.IMAGES * chance.CELLS
    assert adata.obs.groupby("image", observed=True)["label"].nunique().max() == 1
