"""Results that took long, kept as small tables, and the page that shows every published figure beside ours.

``pci results RECIPE`` runs the analysis notebooks on several feature sets and keeps their headline numbers
under ``book/results/<recipe>/``, one CSV a notebook, with ``provenance.json``: command, cells, versions, and where each
CSV comes from; what it cost is in the log beside it. No pixel of a cell is kept. The page is filled from them, and from
what the reader's own build found.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import pci_core
from pci_core import device as devices
from pci_core.analysis import kept as trainings
from pci_core.analysis import overview
from pci_core.analysis.goals import LAST, PAPER_LAYER, PAPERS
from pci_core.analysis.paper import paper_figure
from pci_core.errors import AnalysisNeedsError, BookError, DatasetError, unknown_name
from pci_core.executing import execute, recipe_argument
from pci_core.logs import read_log, write_log
from pci_core.notebook import SCORE_COLUMNS, as_text
from pci_core.plots.style import set_label
from pci_core.provenance import Record, record
from pci_core.reading import read_csv, read_json, read_note, refusing
from pci_core.recipe import load
from pci_core.run import Run
from pci_core.storage import file_sha256, locked, write_json
from pci_core.tables import write_csv

PAGE, FOLDER, PROVENANCE = "results.md", "results", "provenance.json"
SETS = ("conv3", "conv4", "autoencoder_conv4", "classic", "untrained_conv3")
_MARKER = re.compile(r"^<!-- results: (\w+) -->$", re.MULTILINE)
_FEATURES = re.compile(r'(?:"|\\n)features = ')  # the parameter, in the JSON of a notebook
_BENCHMARK = {
    "features": str, "classifier": str, "k": "int64", "left_out": str, "accuracy": "float64", "low": "float64", "high": "float64",
    "n_cells": "int64",
}  # fmt: skip
_WIDE = 6  # feature sets that fit beside one another on a page
_BENCHMARKS = Path("benchmarks/results/feature_sets")


def keep(root: Path, recipe: str, features: Sequence[str] = SETS, only: Sequence[str] | None = None) -> list[Path]:
    """Run the analysis notebooks on feature sets of a recipe and keep their headline numbers.

    Parameters
    ----------
    root : Path
        Root of the repository.
    recipe : str
        Name of an embedded recipe or path of a TOML file.
    features : sequence of str
        Feature sets, see `pci_core.names.feature_names`.
    only : sequence of str, optional
        Beginnings of notebook names, e.g. ``["03", "06"]``; all with a ``features`` parameter by default.

    Returns
    -------
    list of Path
        The CSVs under ``book/results/<recipe>/``.

    Raises
    ------
    AnalysisNeedsError
        The cells allow none of these analyses.
    BookError, UnknownNameError
        A notebook fails, or there is none of that name.
    """
    root, run = Path(root).resolve(), Run(recipe)
    templates = _templates(root, only)
    tables, written, left_out = run.folder / "tables", [], {}
    for template in templates:
        found, began = [], time.perf_counter()
        for name in features:
            executed = root / "_build" / "results" / run.recipe.name / name / template.name
            try:
                execute(root, template, executed, {"recipe": recipe_argument(recipe), "features": name})
            except AnalysisNeedsError as needs:
                left_out[template.stem] = str(needs)
                print(f"{template.name}: left out: {needs}", flush=True)
                break
            found.append(_read(tables / f"{template.stem}_{name}_scores.csv"))
        if found:
            out = root / "book" / FOLDER / run.recipe.name / f"{template.stem}.csv"
            table = pd.concat(found, ignore_index=True)
            write_csv(table.round(6), out)
            command = f"pci results {Path(recipe).name} --only {template.stem[:2]} --features {','.join(features)}"
            with run.recording([tables / f"{template.stem}_{name}_scores.parquet" for name in features]):
                made = record("result", template.stem)
            _note(out, run, command, made, time.perf_counter() - began)
            written.append(out)
    if not written:
        raise AnalysisNeedsError("nothing to keep: " + " ".join(left_out.values()))
    return written


def _templates(root: Path, only: Sequence[str] | None) -> list[Path]:
    known = [p for p in sorted((root / "notebooks").glob("*.ipynb")) if _FEATURES.search(p.read_text(encoding="utf-8"))]
    if not known:
        raise BookError(f"{root / 'notebooks'} holds no analysis notebook. Run this in a clone of the repository.")
    for prefix in only or []:
        if not any(p.name.startswith(prefix) for p in known):
            raise unknown_name("notebook", prefix, [p.stem for p in known])
    return [p for p in known if not only or any(p.name.startswith(prefix) for prefix in only)]


def _note(out: Path, run: Run, command: str, made: Record, seconds: float) -> None:
    """Write where a table came from beside it, keeping what is known of the others."""
    path = out.with_name(PROVENANCE)
    dataset, where = run.cells(), devices.choose_device("auto")
    with locked(run.folder / "log" / "results.lock"):  # another process may keep another notebook's numbers at the same time
        _add(path, out.stem, {
            "command": command,
            "cells": len(dataset),
            "dataset": dataset.sha256,
            "simulated": run.recipe.simulated,
            "encoder": Path(run.recipe.training.pretrained).name or "trained on these cells",
            "version": pci_core.__version__,
            "sha256": file_sha256(out),
            "provenance": made.plain(),
        })  # fmt: skip
    write_log(out, {"seconds": round(seconds), "hardware": devices.describe(where, devices.choose_precision(where, "auto"))})


def _add(path: Path, name: str, facts: dict[str, Any]) -> None:
    known = read_note(path) or {}
    known[name] = facts
    write_json(path, dict(sorted(known.items())))


def _read(path: Path) -> pd.DataFrame:
    again = "Run its notebook again."
    with refusing(path, DatasetError, "is no readable table of scores", again):
        table = read_csv(path)
    if missing := [c for c in SCORE_COLUMNS if c not in table]:
        raise DatasetError(f"{path} is no table of scores: no column {', '.join(missing)}. {again}")
    texts = ("features", "what", "unit", "paper_on", "note")
    with refusing(path, DatasetError, "holds text where numbers should be", again):
        numbers = {c: table[c].astype("float64") for c in ("value", "low", "high", "paper", "n_cells", "n_proteins")}
    if table.empty or table["what"].isna().any() or not np.isfinite(numbers["n_cells"]).all():
        raise DatasetError(f"{path} is no table of scores: no row, or one without its name or number of cells. {again}")
    return table.assign(**numbers, **{c: table[c].fillna("").astype(str) for c in texts})


# --- the page


def fill(text: str, kept: Path, own: Path) -> str:
    """Put the tables into the page.

    Parameters
    ----------
    text : str
        The page with lines ``<!-- results: 03_cell_line_robustness -->``.
    kept : Path
        ``book/results``: a folder a recipe.
    own : Path
        ``tables`` of the run that this book was built on.

    Returns
    -------
    str
        A marker without any table behind it becomes a line that says so.
    """
    return _MARKER.sub(lambda match: _section(match[1], kept, own), text)


def _section(notebook: str, kept: Path, own: Path) -> str:
    parts = []
    if notebook == "02_layer_benchmark":
        found = [benchmark_scores(p) for p in sorted((kept.parent.parent / _BENCHMARKS).glob("*.json"))]
        parts += [_table(t, f"{t['recipe'].iloc[0]}, kept") for t in found]
    if notebook == "10_beyond" and all((kept.parent.parent / trainings.PLACE / n).is_file() for n in (trainings.RUNS, trainings.SCORES)):
        parts += _trainings(kept.parent.parent / trainings.PLACE)
    for path in sorted(kept.glob(f"*/{notebook}.csv")):
        parts.append(_table(_read(path), f"{path.parent.name}, kept", _provenance(path)))
    mine = sorted(own.glob(f"{notebook}_*_scores.csv")) if notebook != "02_layer_benchmark" else []
    if mine:
        table = pd.concat([_read(p) for p in mine], ignore_index=True)
        parts.append(_table(table, f"{own.parent.name}, this build"))
    return "\n\n".join(parts) or "*No table of this analysis was kept, and this build did not make one.*"


def _trainings(folder: Path) -> list[str]:
    """Lay out the kept trainings of each budget, on the cells that they were trained on: a row a variant, a column a measure."""
    found = trainings.read(folder)
    assert found is not None  # of a folder that was named
    tables = overview.tables(found, LAST, PAPERS, PAPER_LAYER, moved=False)
    made = f"Made by `benchmarks/beyond.py`; means over seeds ± half the 95 % interval, {overview.WINNER}: the best mean of a column."
    return [
        "\n".join([f"**{title}, kept**", "", *_markdown([["", *table.columns], *(map(list, table.reset_index().to_numpy()))]), "", made])
        for title, table in tables.items()
    ]


def benchmark_scores(path: Path) -> pd.DataFrame:
    """Return kept scores of the benchmark of feature sets in the form of the notebooks' headline numbers."""
    again = "Make it again with benchmarks/feature_sets.py."
    content = read_json(path, DatasetError, again)
    settings, scores = content.get("settings"), content.get("scores")
    if not isinstance(settings, dict) or not isinstance(settings.get("label"), str) or not isinstance(content.get("recipe"), str):
        raise DatasetError(f"{path} does not say the recipe and the label of its scores. {again}")
    recipe = load(content["recipe"])
    with refusing(path, DatasetError, "holds no table of scores", again):
        rows = pd.DataFrame(scores).astype(_BENCHMARK)
    rows = rows[(rows["classifier"] == "knn") & rows["features"].isin(_shown(rows["features"]))]
    label = settings["label"]
    facts = {"notebook": "02_layer_benchmark", "recipe": recipe.name + (f", label {label}" if label != recipe.label else "")}
    table = rows.assign(**facts, simulated=recipe.simulated, n_proteins=float("nan"), unit="", note="", value=rows["accuracy"])
    table["what"] = "balanced accuracy, kNN, own " + rows["left_out"].str.replace("_", " ") + " left out"
    keys = zip(rows["features"], rows["k"], rows["left_out"], strict=True)
    table["paper"] = [paper_figure(name, "knn", k) if way == "cell" else float("nan") for name, k, way in keys]
    return table.assign(paper_on="yeast, 30,889 labelled cells")


def _shown(features: pd.Series) -> list[str]:
    return [
        f for f in features.unique() if "+" not in f and "pairs" not in f and not f.startswith(("untrained_conv5", "autoencoder_conv5"))
    ]


def _provenance(path: Path) -> str:
    known = (read_note(path.with_name(PROVENANCE)) or {}).get(path.stem)
    known = read_log(path) | known if isinstance(known, dict) else {}
    cost_known = isinstance(known.get("seconds"), (int, float)) and "hardware" in known
    if not {"command", "encoder"} <= set(known):
        return ""
    cost = f" in {known['seconds'] / 60:.0f} min on {known['hardware']}" if cost_known else ""
    day = f"; {str(known['made'])[:10]}" if "made" in known else ""
    return f"Made by `{known['command']}`{cost}; encoder: {known['encoder']}{day}."


def _table(scores: pd.DataFrame, title: str, foot: str = "") -> str:
    """Lay scores out under their title: which cells, simulated or real, how many."""
    kind = "SIMULATED" if scores["simulated"].astype(str).iloc[0] == "True" else "real"
    proteins = scores["n_proteins"].dropna()
    n = f"up to {int(scores['n_cells'].max()):,} cells" + (f" of {int(proteins.max()):,} proteins" if len(proteins) else "")
    sets = list(dict.fromkeys(scores["features"]))
    lines = _by_set(scores, sets) if len(sets) > _WIDE else _by_number(scores, sets)
    return "\n".join([f"**{title}** ({kind} cells; {n})", "", *lines, *(["", foot] if foot else [])])


def _by_number(scores: pd.DataFrame, sets: list[str]) -> list[str]:
    """Lay scores out: a row a number, a column a feature set, the paper's figures last."""
    paper = scores["paper"].notna().any()
    rows = [["", *(set_label(s) for s in sets), *(["paper (other cells)"] if paper else [])]]
    for what, part in scores.groupby("what", sort=False):
        by_set = part.drop_duplicates("features").set_index("features")
        cells = [as_text(*by_set.loc[s, ["value", "low", "high", "unit"]]) if s in by_set.index else "–" for s in sets]
        rows.append([str(what), *cells, *([_paper(by_set)] if paper else [])])
    return _markdown(rows)


def _by_set(scores: pd.DataFrame, sets: list[str]) -> list[str]:
    """Lay scores out: a row a feature set, a column a number, the paper's figure behind those that have one."""
    whats = list(dict.fromkeys(scores["what"]))
    with_paper = set(scores.loc[scores["paper"].notna(), "what"])
    rows = [["", *(h for w in whats for h in ([w, "paper (other cells)"] if w in with_paper else [w]))]]
    for name in sets:
        by_what = scores[scores["features"] == name].drop_duplicates("what").set_index("what")
        cells = []
        for what in whats:
            known = by_what.loc[what] if what in by_what.index else None
            cells.append("–" if known is None else as_text(*known[["value", "low", "high", "unit"]]))
            if what in with_paper:
                cells.append("" if known is None or known["paper"] != known["paper"] else f"{known['paper']:.2f}")
        rows.append([set_label(name), *cells])
    return _markdown(rows)


def _markdown(rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(map(_escape, row)) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def _paper(rows: pd.DataFrame) -> str:
    known = rows["paper"].dropna()
    if known.empty:
        return ""
    on = next((f", {t}" for t in rows["paper_on"] if t), "")
    if known.nunique() == 1:
        return f"{known.iloc[0]:g}{on}"
    return "; ".join(f"{set_label(str(s))} {v:g}" for s, v in known.items()) + on


def _escape(text: str) -> str:
    """Return text that stays within its cell: no end of it, no markup of a page."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")
