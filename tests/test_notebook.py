"""The frame of the notebooks: parameters, needs, what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import write_own_recipe
from matplotlib.figure import Figure

from pci_core import notebook
from pci_core.errors import AnalysisNeedsError, CellTableError, ParameterError, UnknownNameError

DEFAULTS = "# papermill …\nrecipe = 'own'\nlayer = 'conv3'\nfeatures = None  # or a baseline\nseed = 0\nshare = 0.5\nquick = True\n"


def told(given: str, **values: Any) -> dict[str, Any]:
    """A notebook's globals() after its parameters and what papermill put behind them."""
    space = {"recipe": "own", "layer": "conv3", "features": None, "seed": 0, "share": 0.5, "quick": True, **values}
    return {"In": ["", "import sys\n", DEFAULTS, f"# Parameters\n{given}\n", "nb = begin()"], **space}


@pytest.mark.parametrize(
    "given", ["layer = 'conv4'\nseed = 3", "features = 'classic'", "share = 1", "quick = False", "features = None", "layer = None"]
)
def test_right_parameters_pass(given: str) -> None:
    notebook.check_parameters(told(given))


def test_a_misspelt_parameter_stops() -> None:
    with pytest.raises(UnknownNameError, match="unknown parameter 'layr'. Did you mean layer"):
        notebook.check_parameters(told("layr = 'conv4'"))


@pytest.mark.parametrize("given", ["seed = 'one'", "seed = 1.5", "seed = True", "share = 'much'", "quick = 1", "layer = 3"])
def test_a_parameter_of_another_type_stops(given: str) -> None:
    with pytest.raises(ParameterError, match=f"parameter '{given.split()[0]}' is .* it must be"):
        notebook.check_parameters(told(given))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's own recipe, and its runs beside it."""
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PCI_RUNS", str(folder / "runs"))
        yield write_own_recipe(folder / "own")


@pytest.fixture(scope="module")
def nb(recipe: Path) -> notebook.Notebook:
    space = told("layer = 'untrained_conv2'", recipe=str(recipe), layer="untrained_conv2")
    return notebook.begin("04_test", space, needs=["protein"])


def test_what_is_made_is_kept(nb: notebook.Notebook, recipe: Path) -> None:
    kept = recipe.parent.parent / "runs" / "own"
    assert nb.cells.n_obs == 32 and nb.note == "real cells, own, untrained conv2"
    table = nb.table(pd.DataFrame({"a": [1, 2]}), "numbers")
    pd.testing.assert_frame_equal(pd.read_parquet(kept / "tables" / "04_test_untrained_conv2_numbers.parquet"), table)
    figure = Figure()
    assert nb.figure(figure, "empty") is figure
    assert (kept / "figures" / "04_test_untrained_conv2_empty.png").read_bytes()[:4] == b"\x89PNG"
    assert b"<svg" in (kept / "figures" / "04_test_untrained_conv2_empty.svg").read_bytes()
    nb.score("distance", -0.5, -0.6, -0.4, n_cells=32, n_proteins=2, paper=-0.574, paper_on="HPA")
    nb.score("distance", -0.51, -0.6, -0.4, n_cells=32, n_proteins=2, paper=-0.574, paper_on="HPA")  # a cell run twice
    nb.score("agreement", 0.25, n_cells=32, note="few")
    shown = nb.scores()
    assert shown.loc["distance", "ours"] == "-0.51 (-0.60 to -0.40)" and shown.loc["distance", "paper (other cells)"] == "-0.57 (HPA)"
    assert shown.loc["agreement", "ours"] == "0.25" and shown.loc["agreement", "paper (other cells)"] == ""
    saved = pd.read_csv(kept / "tables" / "04_test_untrained_conv2_scores.csv")
    assert saved["what"].tolist() == ["distance", "agreement"] and saved["value"].tolist() == [-0.51, 0.25]


def test_a_needed_column_that_is_not_there(nb: notebook.Notebook) -> None:
    with pytest.raises(AnalysisNeedsError, match="06_pairs needs the column 'cell_line', which the cells of own do not have .*protein"):
        notebook.require_columns("06_pairs", nb.dataset, ["protein", "cell_line"])


def test_a_users_own_table(nb: notebook.Notebook, recipe: Path, tmp_path: Path) -> None:
    ids = nb.dataset.table["cell_id"]
    pd.DataFrame({"cell_id": ids[::-1][:20], "mine": np.arange(20.0)}).to_csv(tmp_path / "mine.csv", index=False)
    own = notebook.begin("04_test", told("", recipe=str(recipe), features=str(tmp_path / "mine.csv")))
    assert own.set_name == "mine" and own.own_table
    assert own.cells.obs["cell_id"].tolist() == ids[12:].tolist() and own.cells.X[:, 0].tolist() == list(np.arange(19.0, -1, -1))
    pd.DataFrame({"cell_id": ["other"], "mine": [1.0]}).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(CellTableError, match="shares no 'cell_id'"):
        own.features(str(tmp_path / "other.csv"))


def test_wrong_names_stop_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCI_RUNS", str(tmp_path / "runs"))
    with pytest.raises(UnknownNameError, match="unknown feature set 'conv9'"):
        notebook.begin("04_test", told("", recipe="simulated-human", layer="conv9"))
    with pytest.raises(UnknownNameError, match="unknown recipe 'simulated-humn'"):
        notebook.begin("04_test", told("", recipe="simulated-humn"))
    assert not (tmp_path / "runs").exists()


def test_without_notebook_parameters_nothing_is_compared() -> None:
    notebook.check_parameters({"recipe": "own"})
