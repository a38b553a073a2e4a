"""Where a file comes from, read back from every kind of file; parents that changed or are gone; files that say nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from pci_core import lineage, pretrained
from pci_core.analysis.result import save_table
from pci_core.cli import app
from pci_core.errors import ProvenanceError
from pci_core.notebook import Notebook
from pci_core.plots import training_curve
from pci_core.provenance import in_html, record
from pci_core.run import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with cells, weights, features, a table and a figure, made once for all tests of this module."""
    from faults import everything

    folder = tmp_path_factory.mktemp("lineage")
    recipe = everything.write_images(folder / "own")
    run = Run(recipe, folder / "runs", device="cpu", precision="float32", jobs=1, quiet=True)
    run.feature_files("conv1")
    nb = Notebook("04_test", run, "conv1", seed=3)
    nb.table(run.losses(), "losses")
    nb.figure(training_curve(run.losses(), "a curve"), "curve")
    return folder / "runs"


@pytest.fixture
def own(runs: Path, tmp_path: Path) -> Path:
    """A copy of it that may be spoiled."""
    shutil.copytree(runs, tmp_path / "runs")
    return tmp_path / "runs" / "own"


def test_every_kind_of_file_says_what_it_was_made_from(own: Path) -> None:
    files = ["features/conv1.h5ad", "features/conv1.parquet", "tables/04_test_conv1_losses.csv", "tables/04_test_conv1_losses.parquet"]
    files += ["figures/04_test_conv1_curve.png", "figures/04_test_conv1_curve.svg"]
    for name in files:
        found = lineage.read(own / name)
        parents = {p.path for _, p, _, _ in lineage.walk(found, own / name)}
        assert found.recipe == "own" and found.code and len(found.recipe_sha256) == 64, name
        assert {"own/cells", "own/models/pci/weights.safetensors", "fields.csv"} <= parents, name
    figure = lineage.read(own / files[-1])
    assert figure.seed == 3 and {p.path for p in figure.parents} >= {"own/features/conv1.h5ad"}
    weights, cells = lineage.read(own / "models/pci/weights.safetensors"), lineage.read(own / "cells")
    assert (weights.kind, weights.seed, weights.data) == ("weights", 0, cells.data) and cells.kind == "cells"


def test_a_tree_with_the_state_of_each_parent(own: Path) -> None:
    path = own / "figures" / "04_test_conv1_curve.png"
    text = lineage.describe(path)
    assert "as installed here" in text and "changed since" not in text and "gone" not in text and text.count("unchanged") >= 3
    assert "fields.csv" in text and "elsewhere" in text  # a user's own table is known by name and hash alone
    with open(own / "models" / "pci" / "weights.safetensors", "ab") as handle:
        handle.write(b"x")
    (own / "features" / "conv1.h5ad").unlink()
    lines = lineage.describe(path).splitlines()
    state = {line.split()[0]: line for line in lines if line.startswith("    ")}
    assert state["own/features/conv1.h5ad"].endswith("gone")
    assert "changed since: was" in state["own/models/pci/weights.safetensors"] and state["own/cells"].endswith("unchanged")
    plain = lineage.as_plain(path)
    assert {f["state"] for f in plain["files"].values()} == {"unchanged", "changed since", "gone", "elsewhere"}


def test_crops_changed_by_hand_are_seen(own: Path) -> None:
    crops = own / "cells" / "crops.npy"
    content = bytearray(crops.read_bytes())
    content[-1] ^= 1
    crops.write_bytes(content)
    states = {p.path: s for _, p, s, _ in lineage.walk(lineage.read(own / "features" / "conv1.h5ad"), own / "features" / "conv1.h5ad")}
    assert states["own/cells"] == "changed since"


def test_a_file_that_was_moved_still_answers(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mail").mkdir()
    moved = str(shutil.copy(own / "figures" / "04_test_conv1_curve.svg", tmp_path / "mail" / "curve.svg"))
    monkeypatch.chdir(tmp_path / "mail")
    done = CliRunner().invoke(app, ["provenance", moved, "--runs", str(own.parent)])
    assert done.exit_code == 0 and "own/cells" in done.output and "gone" not in done.output
    found = json.loads(CliRunner().invoke(app, ["provenance", moved, "--json"]).output)
    assert found["kind"] == "figure" and found["recipe"] == "own"


def test_a_csv_is_known_by_the_table_beside_it(own: Path) -> None:
    path = own / "tables" / "04_test_conv1_losses.csv"
    path.write_text(path.read_text().replace("1", "2", 1))
    with pytest.raises(ProvenanceError, match=r"losses\.csv is not the file that 04_test_conv1_losses\.parquet beside it speaks of"):
        lineage.read(path)
    path.with_suffix(".parquet").unlink()
    with pytest.raises(ProvenanceError, match="does not say where it comes from"):
        lineage.read(path)


def test_shipped_weights_answer_without_parents() -> None:
    path = pretrained.path_of("simulated-human")
    found = lineage.read(path)
    assert found.kind == "weights" and found.recipe == "simulated-human-large" and len(found.data) == 64 and not found.parents
    assert "no file" in lineage.describe(path) and "hash not known" in lineage.describe(path)


def test_pages_notebooks_and_kept_results(tmp_path: Path) -> None:
    made = record("page", "a")
    (tmp_path / "a.html").write_text(in_html("<html><head></head></html>", made))
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [], "metadata": {"pci_provenance": made.plain()}}))
    assert lineage.read(tmp_path / "a.html") == lineage.read(tmp_path / "a.ipynb") == made
    kept = Path(__file__).parent.parent / "book" / "results" / "hpa-duloc" / "06_multilocalization.csv"
    assert lineage.read(kept).settings["command"].startswith("pci results hpa-duloc")


def test_a_file_that_says_nothing_or_is_none(tmp_path: Path, own: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "a.parquet")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "a.html").write_text("<html>")
    (tmp_path / "a.json").write_text("[]")
    for kind in ("parquet", "png", "svg", "html", "json"):
        with pytest.raises(ProvenanceError, match=rf"a\.{kind} does not say where it comes from.* read are feature sets"):
            lineage.read(tmp_path / f"a.{kind}")
    for kind in ("h5ad", "parquet", "png", "svg", "json", "ipynb", "safetensors", "html"):
        (tmp_path / f"b.{kind}").write_bytes(b"\x89PNG\r\n\x1a\n\xff" + bytes(range(40)))
        with pytest.raises(ProvenanceError, match=rf"b\.{kind} (cannot be read|does not say)"):
            lineage.read(tmp_path / f"b.{kind}")
    for name, told in (("none.png", "is not there"), ("a.txt", "cannot be read. Read are"), (".", "is a folder without dataset.json")):
        (tmp_path / "a.txt").touch()
        with pytest.raises(ProvenanceError, match=told):
            lineage.read(tmp_path / name)
    for path in (own / "features").glob("conv1.*"):  # cut in the middle
        path.write_bytes(path.read_bytes()[:-40] if path.suffix == ".parquet" else path.read_bytes()[:500])
    for kind in ("h5ad", "parquet"):
        with pytest.raises(ProvenanceError, match=rf"conv1\.{kind} cannot be read"):
            lineage.read(own / "features" / f"conv1.{kind}")


def test_a_table_is_read_as_before(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [0.5, float("nan")]})
    save_table(table, tmp_path / "t")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), table)
    assert (tmp_path / "t.csv").read_text() == table.to_csv(index=False)
