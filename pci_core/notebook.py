"""The frame of an analysis notebook: parameters checked, cells and features at hand, tables and figures kept.

Every analysis notebook has the same beginning:

1. a Markdown cell: title, takeaways, what of the paper it follows;
2. `COLAB_CELL`, which installs the package on Colab and does nothing elsewhere;
3. the cell tagged ``parameters``, literals only: ``recipe``, ``layer``, ``features``, ``seed`` and its own;
4. ``nb = pci.notebook.begin("04_clustering", globals(), needs=["protein"])``.

What it makes lands in the run's folder: ``nb.table`` writes parquet and CSV, ``nb.figure`` PNG and SVG,
``nb.score`` gathers the headline numbers, which ``nb.scores`` writes and shows beside the paper's.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import anndata
import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from pci_core.analysis.join import read_table
from pci_core.analysis.result import save_table
from pci_core.cells import CellDataset
from pci_core.errors import AnalysisNeedsError, CellTableError, ParameterError, unknown_name
from pci_core.names import parse_feature_name
from pci_core.plots.keep import save_figure
from pci_core.plots.style import literal, set_label
from pci_core.run import Run

ADDRESS = "https://github.com/OWNER/REPOSITORY"  # as pyproject.toml has it; `make address` copies it here and into the notebooks
COLAB_CELL = f"""# On Colab only: install the package, with the torch that Colab brings.
import sys

if "google.colab" in sys.modules:
    import subprocess
    from importlib.metadata import version

    wanted = ["pci-core @ git+{ADDRESS}", f"torch=={{version('torch')}}"]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *wanted], check=True)"""
_FILES = (".parquet", ".csv", ".h5ad")
SCORE_COLUMNS = (
    "notebook", "recipe", "simulated", "features", "what", "value", "low", "high", "n_cells", "n_proteins", "unit", "paper",
    "paper_on", "note",
)  # fmt: skip


class Notebook:
    """What an analysis notebook works with; made by `begin`.

    Attributes
    ----------
    name : str
        E.g. ``04_clustering``: what its tables and figures are called after.
    run : Run
        The recipe's run: cells, features, folder.
    chosen : str
        The feature set it looks at, or the path of a user's own.
    seed : int
        Of the analysis' own draws (pairs, bootstrap, maps), not of a training.
    """

    def __init__(self, name: str, run: Run, chosen: str, seed: int = 0) -> None:
        self.name, self.run, self.chosen, self.seed = name, run, chosen, seed
        self._scores: list[dict[str, Any]] = []

    @property
    def own_table(self) -> bool:
        """Whether the features come from a user's own file."""
        return self.chosen.endswith(_FILES)

    @property
    def set_name(self) -> str:
        """Name of the feature set, as in file names and captions."""
        return Path(self.chosen).stem if self.own_table else self.chosen

    @property
    def set_label(self) -> str:
        """Name of the feature set for a title, e.g. ``PCI conv3``."""
        return set_label(self.set_name)

    @property
    def kind(self) -> str:
        """``SIMULATED cells`` or ``real cells``."""
        return "SIMULATED cells" if self.run.recipe.simulated else "real cells"

    @property
    def note(self) -> str:
        """What every figure says under it, namely kind of cells, recipe, feature set."""
        return f"{self.kind}, {self.run.recipe.name}, {self.set_label}"

    @cached_property
    def dataset(self) -> CellDataset:
        """The cells, made on first use."""
        return self.run.cells()

    @cached_property
    def cells(self) -> anndata.AnnData:
        """The chosen features of the cells, made on first use; (cells, features).

        Raises
        ------
        CellTableError
            A user's own table shares no cell with the recipe's cells.
        """
        return self.features(self.chosen)

    def features(self, name: str) -> anndata.AnnData:
        """Return another feature set of the same cells, by name or from a user's file."""
        if not name.endswith(_FILES):
            return self.run.features(name)[name]
        own, table = read_table(name), self.dataset.table.set_index("cell_id", drop=False)
        ids = [i for i in table.index if i in own.obs_names]
        if not ids:
            raise CellTableError(
                f"{name} shares no 'cell_id' with the cells of {self.run.recipe.name}: e.g. {list(own.obs_names[:2])} there, "
                f"{list(table.index[:2])} here. Name the cells as the cell table does."
            )
        own = own[ids].copy()
        own.obs = table.loc[ids].rename_axis(None)
        return own

    # --- what is kept

    def recording(self) -> AbstractContextManager[None]:
        """Let what is written under the block say that it is of this notebook and was made from all that its run has handed out."""
        if self.own_table:
            self.run.used.add(Path(self.chosen))
        return self.run.recording(seed=self.seed, settings={"notebook": self.name, "features": self.set_name})

    @property
    def stem(self) -> str:
        """Beginning of the names of this notebook's files, from its own name and the feature set's."""
        return f"{self.name}_{self.set_name}"

    def table(self, table: pd.DataFrame, name: str) -> pd.DataFrame:
        """Keep a table as parquet and CSV in the run's ``tables/`` and return it for showing."""
        with self.recording():
            save_table(table.reset_index() if table.index.name else table, self.run.folder / "tables" / f"{self.stem}_{name}")
        return table

    def figure(self, figure: Figure, name: str) -> Figure:
        """Keep a figure as PNG and SVG in the run's ``figures/`` and return it for showing."""
        literal(figure)
        with self.recording():
            save_figure(figure, self.run.folder / "figures" / f"{self.stem}_{name}")
        return figure

    def score(
        self,
        what: str,
        value: float,
        low: float = math.nan,
        high: float = math.nan,
        *,
        n_cells: int,
        n_proteins: int | None = None,
        unit: str = "",
        paper: float | None = None,
        paper_on: str = "",
        note: str = "",
    ) -> None:
        """Note a headline number with its interval, what it was computed on, and the paper's figure for it.

        Parameters
        ----------
        what : str
            In words and the same in every run, e.g. ``normalized distance, same location``.
        value, low, high : float
            The number and its 95 % interval, NaN where there is none.
        n_cells : int
        n_proteins : int, optional
        unit : str
        paper : float, optional
            The paper's figure.
        paper_on : str
            On which cells and features the paper's figure was computed.
        note : str
            What must be known to read it.
        """
        facts = {"notebook": self.name, "recipe": self.run.recipe.name, "simulated": self.run.recipe.simulated, "features": self.set_name}
        facts |= {"what": what, "value": float(value), "low": float(low), "high": float(high), "n_cells": int(n_cells)}
        facts |= {"n_proteins": math.nan if n_proteins is None else int(n_proteins), "unit": unit}
        facts |= {"paper": math.nan if paper is None else float(paper), "paper_on": paper_on, "note": note}
        self._scores = [s for s in self._scores if s["what"] != what] + [facts]

    def scores(self) -> pd.DataFrame:
        """Write all headline numbers to ``tables/`` and return them laid out for reading."""
        table = pd.DataFrame(self._scores, columns=list(SCORE_COLUMNS))
        with self.recording():
            save_table(table, self.run.folder / "tables" / f"{self.stem}_scores")
        return laid_out(table)


def shown(
    table: pd.DataFrame, formats: Mapping[str, Any] | None = None, *, index: bool = False, hyperlinks: str | None = None, **settings: Any
) -> Styler:
    """Lay a table out for a page; no name in it becomes markup, as it would with pandas' own ``style``.

    Parameters
    ----------
    table : DataFrame
    formats : mapping, optional
        How columns are written, see ``Styler.format``.
    index : bool
        Show the index.
    hyperlinks : str, optional
        ``"html"``: addresses in cells become links.
    **settings
        ``precision``, ``na_rep`` of ``Styler.format``.
    """
    styler = table.style if index else table.style.hide(axis="index")
    styler = styler.format(dict(formats) if formats else None, escape="html", hyperlinks=hyperlinks, **settings)
    return styler.format_index(escape="html", axis=0).format_index(escape="html", axis=1)


def laid_out(scores: pd.DataFrame) -> pd.DataFrame:
    """Lay out headline numbers for reading: value with interval, cells and proteins, the paper's figure and its cells."""
    shown = pd.DataFrame({"": scores["what"]})
    shown["ours"] = [as_text(v, a, b, u) for v, a, b, u in scores[["value", "low", "high", "unit"]].itertuples(index=False)]
    shown["cells"] = [f"{n:,}" for n in scores["n_cells"]]
    shown["proteins"] = ["" if n != n else f"{int(n):,}" for n in scores["n_proteins"]]
    if scores["paper"].notna().any():
        pairs = scores[["paper", "paper_on"]].itertuples(index=False)
        shown["paper (other cells)"] = ["" if p != p else f"{_text(p)}{f' ({on})' if on else ''}" for p, on in pairs]
    if (scores["note"] != "").any():
        shown["note"] = scores["note"]
    return shown.set_index("")


def as_text(value: float, low: float, high: float, unit: str = "") -> str:
    """Write a number with its interval, or alone where there is none."""
    text = _text(value) if low != low else f"{_text(value)} ({_text(low)} to {_text(high)})"
    return f"{text} {unit}".strip()


def _text(value: float) -> str:
    if value != value:
        return "–"
    return (
        f"{value:,.0f}"
        if abs(value) >= 100 or value == int(value) and abs(value) >= 10
        else f"{value:.3g}"
        if abs(value) < 0.01
        else f"{value:.2f}"
    )


def begin(name: str, namespace: Mapping[str, Any], needs: Sequence[str] = (), layer: str = "conv3") -> Notebook:
    """Check the parameters of a notebook and give it its cells.

    Parameters
    ----------
    name : str
        Of the notebook, without its ending.
    namespace : mapping
        ``globals()`` of the notebook.
    needs : sequence of str
        Columns of the cell table without which this analysis has no sense.
    layer : str
        Feature set where neither ``layer`` nor ``features`` is given; the paper's human analyses take conv3.

    Returns
    -------
    Notebook

    Raises
    ------
    ParameterError, UnknownNameError
        A parameter of a name that the notebook does not have, or of another type than its default; an unknown recipe
        or feature set.
    AnalysisNeedsError
        The cell table has no such column, or it is empty.
    """
    check_parameters(namespace)
    chosen = namespace.get("features") or namespace.get("layer") or layer
    if not isinstance(chosen, str):
        raise ParameterError(f"parameter 'features' is {str(chosen)[:80]}; it must be a text: the name of a feature set, or a file.")
    if not chosen.endswith(_FILES):
        parse_feature_name(chosen)
    seed = int(namespace.get("seed", 0))
    if not 0 <= seed < 2**32:
        raise ParameterError(f"parameter 'seed' is {seed}; it must be a whole number from 0 to {2**32 - 1:,}.")
    nb = Notebook(name, Run(namespace["recipe"]), chosen, seed)
    require_columns(name, nb.dataset, needs)
    return nb


def require_columns(name: str, dataset: CellDataset, needs: Sequence[str]) -> None:
    """Raise `AnalysisNeedsError` unless the cell table has values in these columns."""
    for column in needs:
        if column not in dataset.table or (dataset.table[column].astype(str) == "").all():
            held = [c for c in dataset.table if not (dataset.table[c].astype(str) == "").all()]
            raise AnalysisNeedsError(
                f"{name} needs the column '{column}', which the cells of {dataset.info.get('recipe', dataset.folder)} do not have "
                f"(they have: {', '.join(held)}). Add it to your field table, or take another recipe."
            )


def check_parameters(namespace: Mapping[str, Any]) -> None:
    """Compare what papermill gave with the notebook's own parameters: papermill itself only warns.

    The notebook's own stand in the first cell that assigns ``recipe``; papermill's in the cell it adds behind, which
    begins with ``# Parameters``.
    """
    defaults: dict[str, Any] = {}
    given: dict[str, Any] = {}
    for source in namespace.get("In", []):
        if source.lstrip().startswith("# Parameters"):
            found = _literals(source)
            if not found and any(not line.lstrip().startswith("#") for line in source.splitlines() if line.strip()):
                raise ParameterError("the parameters that were given are no plain values: texts, numbers, True, False, lists of them.")
            given |= found
        elif not defaults:
            found = _literals(source)
            defaults = found if "recipe" in found else {}
    for parameter, value in given.items():
        if parameter not in defaults:
            raise unknown_name("parameter", parameter, defaults)
        _check_type(parameter, value, defaults[parameter])


def _literals(source: str) -> dict[str, Any]:
    """Return the names that a cell assigns literals to; nothing where it holds anything else."""
    out = {}
    try:
        for node in ast.parse(source).body:
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
                return {}
            out[node.targets[0].id] = _literal(node.value)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last for brackets within brackets
        return {}
    return out


def _literal(node: ast.expr) -> Any:
    """Return a literal, or what papermill writes for NaN and the infinite: ``float('nan')``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float" and len(node.args) == 1:
        return float(ast.literal_eval(node.args[0]))
    return ast.literal_eval(node)


def _check_type(name: str, value: Any, default: Any) -> None:
    if default is None or (value is None and name in ("layer", "features", "width")):
        return
    right = (bool,) if isinstance(default, bool) else (int, float) if isinstance(default, float) else (type(default),)
    finite = not isinstance(value, (int, float)) or abs(value) < 2**63  # NaN is not
    if not isinstance(value, right) or (isinstance(value, bool) and not isinstance(default, bool)) or not finite:
        shown = repr(value) if not isinstance(value, int) or finite else "a number of more than 18 digits"
        shown = shown if len(shown) <= 80 else shown[:80] + "…"
        wanted = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "True or False"}.get(type(default).__name__, "")
        raise ParameterError(f"parameter '{name}' is {shown}; it must be {wanted or type(default).__name__}, as its default {default!r}.")
