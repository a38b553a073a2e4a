"""The frame of the simulators and the optics: the same files for any number of workers, honest noise."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pci_core import recipe
from pci_core.data.simulate import META, field_seed, simulate
from pci_core.data.simulate.optics import expose, smooth_noise, texture
from pci_core.errors import RecipeError, UnknownNameError
from pci_core.recipe import Source

TEN = Source(kind="simulate", organism="human", proteins=5, images_per_protein=2, fields_per_image=1, seed=3)


def _hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("one")
    return folder, simulate(TEN, folder, jobs=1, labels=True, progress=False)


def test_two_workers_write_the_same_bytes_as_one(drawn: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    simulate(TEN, tmp_path, jobs=2, labels=True, progress=False)  # ten fields: more than one chunk, so both workers draw
    assert _hashes(tmp_path) == _hashes(drawn[0])


def test_files_and_field_table_fit_each_other(drawn: tuple[Path, pd.DataFrame]) -> None:
    folder, table = drawn
    read = pd.read_csv(folder / "fields.csv", dtype=str, keep_default_na=False)
    assert len(read) == len(table) == 10 and read["field"].is_unique
    assert set(META) | {"field", "path", "labels", "sim_location"} <= set(read.columns)
    assert all((folder / p).is_file() for p in [*read["path"], *read["labels"]])
    truth = pd.read_parquet(folder / "truth.parquet")
    assert set(truth["field"]) == set(read["field"])
    assert {"y", "x", "sim_cell", "sim_location", "sim_fraction", "sim_phenotype", "sim_focus"} <= set(truth.columns)
    row = read.iloc[0]
    labels = np.asarray(Image.open(folder / row["labels"]))
    assert labels.dtype == np.uint16
    assert set(np.unique(labels)) - {0} == set(truth.loc[truth["field"] == row["field"], "sim_cell"])


def test_another_seed_gives_other_images(drawn: tuple[Path, pd.DataFrame]) -> None:
    assert field_seed(3, "1_A1_1") != field_seed(4, "1_A1_1") != field_seed(4, "1_A1_2")
    assert field_seed(3, "1_A1_1") == 16140534480048298361  # recorded once: files must not change between versions unnoticed


def test_an_unknown_organism_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean human"):
        simulate(Source(kind="simulate", organism="humna", proteins=1), tmp_path)


@pytest.mark.parametrize("key", ["proteins", "images_per_protein", "fields_per_image"])
def test_nothing_to_draw_is_said(key: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=key):
        simulate(recipe.load("simulated-human").replace(source={key: 0}).source, tmp_path)


@pytest.mark.parametrize("draw", [smooth_noise, texture])
@pytest.mark.parametrize("scale", [0.5, 3.0, 12.0])
def test_noise_has_unit_variance_and_its_correlation_length(draw, scale: float) -> None:  # type: ignore[no-untyped-def]
    field = draw((512, 512), scale, np.random.default_rng(0))
    assert field.shape == (512, 512) and field.dtype == np.float32
    # about (512 / 12)² / 2 independent patches at the largest scale: 3 standard errors of the variance are 0.15
    assert field.std() == pytest.approx(1, abs=0.15) and abs(field.mean()) < 0.12
    if scale >= 3:
        lag = round(scale)
        correlation = np.corrcoef(field[lag:].ravel(), field[:-lag].ravel())[0, 1]
        assert correlation == pytest.approx(np.exp(-0.5 * (lag / scale) ** 2), abs=0.06)  # the kernel is cut at 3 sigma


def test_exposure_has_the_noise_it_says() -> None:
    image = expose(np.full((512, 512), 0.5, np.float32), np.random.default_rng(1), photons=200, read_noise=0.02, illumination=0)
    # 262,144 pixels: the standard error of the variance is 0.3 %, of the mean 1e-4
    assert image.dtype == np.float32
    assert image.mean() == pytest.approx(0.52, abs=5e-4)
    assert image.var() == pytest.approx(0.52 / 200 + 0.02**2, rel=0.02)


def test_uneven_light_multiplies_the_signal() -> None:
    flat = np.ones((256, 256), np.float32)
    kwargs = {"photons": 1e6, "read_noise": 0.0, "background": 0.0}
    even = expose(flat, np.random.default_rng(2), illumination=0.0, **kwargs)
    uneven = expose(flat, np.random.default_rng(2), illumination=0.3, **kwargs)
    assert even.std() < 0.01 < 0.03 < uneven.std()  # shot noise alone is 0.001
    assert expose(np.zeros((64, 64)), np.random.default_rng(0)).min() >= 0
