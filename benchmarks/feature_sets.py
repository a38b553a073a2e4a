"""Keep what `pci benchmark` found on a recipe, and write the page of all recipes from what was kept.

    pci benchmark simulated-human && python benchmarks/feature_sets.py simulated-human

Raw figures lie in ``benchmarks/results/feature_sets/<recipe>.json``; the page is ``book/feature_sets.md``.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from pci_core import recipe as recipes
from pci_core.analysis.paper import paper_figure
from pci_core.analysis.result import Benchmark
from pci_core.comparison import best_first, with_interval
from pci_core.storage import write_json, write_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "feature_sets"
PAGE = ROOT / "book" / "feature_sets.md"
COLUMNS = (("knn", "kNN"), ("logistic", "logistic"), ("forest", "forest"), ("end_to_end", "end to end"))

READING = """\
What they say together:

- **Simulated human cells**: the middle layers of PCI lead all sets that saw no labels, with the own image or even the own protein
  left out, and still do after as many pairs as the autoencoder, whose best layer stays near the untrained network's.
- **Simulated yeast**: PCI and the designed measurements are level without leaks; with the cell alone left out the designed ones lead.
  Training was short, and a class has about three proteins, of which one is always left out.
- **Real human cells** (`hpa-duloc`): the encoder saw simulated cells only, and its features still lead in kNN, though the intervals
  of the designed measurements overlap. Under logistic regression most sets are level: three classes of clear patterns are easy.
- **Real yeast toy set**: five proteins in three compartments. Nobody tells all five apart, not even the network trained with labels;
  asked for the compartment, most sets come close to one another. With the cell alone left out the classic texture leads.
- `cellprofiler` is taken whole, without selecting features, which suits kNN badly; under logistic regression it is as good as others.
- **Speed**: most cells/s here were taken beside other work. On two quiet cores, 3,012 simulated human cells: all five layers of PCI 972,
  classic 458, designed 256, cellprofiler 38 cells a second (cost table of notebook 02).
- The gap to `supervised` is what is left to gain. The scores of PCI still rose with more pairs when training was stopped."""


def keep(runs: Path, recipe: str, note: str) -> None:
    """Copy the scores of a run that a reader needs: kNN of one k, the other classifiers, costs, omissions."""
    tables = runs / recipe / "tables"
    found = Benchmark.read(tables / "benchmark.json")
    k = found.settings["confusion_k"]
    scores = found.scores[(found.scores["classifier"] != "knn") | (found.scores["k"] == k)]
    sets = pd.read_parquet(tables / "benchmark_sets.parquet")
    sets.loc[sets["n_features"].isna(), "note"] = "its weights were not to be had"  # the full reason names paths of that machine
    content = {
        "recipe": recipe,
        "note": note,
        "settings": found.settings,
        "scores": json.loads(scores.to_json(orient="records")),
        "sets": json.loads(sets.to_json(orient="records")),
        "omitted": json.loads(found.omitted.to_json(orient="records")),
    }
    label = found.settings["label"]
    write_json(RESULTS / f"{recipe}{'' if label == recipes.load(recipe).label else f'+{label}'}.json", content)


def page() -> str:
    """Return the page: one section a recipe, one row a feature set, best without leaks first."""
    lines = [
        "# Feature sets on four sets of cells",
        "",
        ":::{admonition} Takeaways",
        ":class: tip",
        "- One row a feature set, the same cells for all rows of a table. Sorted by the figure without leaks.",
        "- *Own cell*: the cell alone is left out, as in the paper. *Own image* (or field, or landmark group): all that shares it.",
        "- Each figure is a balanced accuracy with its 95 % bootstrap interval over images.",
        ":::",
        "",
        "Made by `pci benchmark RECIPE` and `benchmarks/feature_sets.py`. The paper's figures are for 30,889 real yeast cells of 17",
        "classes that are not among these, from a network trained on 1.2 million cells. What the sets are: [](baselines.md); how the",
        "shipped encoders were trained: [](pretrained.md).",
        "",
        READING,
    ]
    for path in sorted(RESULTS.glob("*.json")):
        lines += ["", *_section(json.loads(path.read_text(encoding="utf-8")))]
    return "\n".join(lines) + "\n"


def _section(content: dict[str, Any]) -> list[str]:
    spec = recipes.load(content["recipe"])
    settings, scores = content["settings"], pd.DataFrame(content["scores"])
    sets = {row["features"]: row for row in content["sets"]}
    first = scores.iloc[0]
    ways = sorted(dict.fromkeys(scores["left_out"]), key=lambda w: (w == "cell", w == "protein"))
    there = set(scores[["classifier", "left_out"]].itertuples(index=False, name=None))
    columns = [(c, w, f"{head}, own {w.replace('_', ' ')}") for c, head in COLUMNS for w in ways if (c, w) in there]
    text = {(r.features, r.classifier, r.left_out): with_interval(r.accuracy, r.low, r.high) for r in scores.itertuples()}
    order = best_first(scores, ways[0])
    lines = [
        f"## {spec.title}: {settings['label']}",
        "",
        f"{first['n_cells']:,} {'SIMULATED' if spec.simulated else 'real'} cells of {first['n_classes']} classes (`{content['recipe']}`), "
        f"{first['n_groups']:,} of *{settings['group']}*; chance {1 / first['n_classes']:.3f}; kNN with k = {settings['confusion_k']}. "
        f"{content['note']}".rstrip(),
        "",
        f"| feature set | {' | '.join(c[2] for c in columns)} | paper, kNN, own cell | features | cells/s |",
        f"|---|{'---:|' * (len(columns) + 3)}",
    ]
    for name in order:
        paper, row = paper_figure(name), sets.get(name, {})
        speed = f"{row['cells_per_second']:,.0f}" if row.get("cells_per_second") else "–"
        told = [f"{paper:.3f}" if paper == paper else "–", f"{row.get('n_features', 0):.0f}", speed]
        entries = [text.get((name, c, w), "–") for c, w, _ in columns]
        lines.append(f"| `{name}` | {' | '.join(entries + told)} |")
    absent = [f"`{name}`" for name in sets if name not in order]
    if absent:
        lines += ["", f"Not there: {', '.join(absent)}; the weights were not to be had where this was made."]
    if content["omitted"]:
        told = [f"{r['what']}: {r['why']} ({r['n_cells']:,} cells)" for r in content["omitted"]]
        lines += ["", f"Left out, or to be known: {'; '.join(told)}."]
    hardware = next((row["hardware"] for row in content["sets"] if row.get("hardware")), "")
    return [*lines, "", f"Hardware: {hardware}; cells a second of the whole extraction, layers of one network in one pass."]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", help="recipes whose benchmark is kept; none: only write the page again")
    parser.add_argument("--runs", type=Path, default=Path(os.environ.get("PCI_RUNS", "runs")))
    parser.add_argument("--note", default="", help="a sentence for the section, e.g. how long was trained")
    given = parser.parse_args()
    for name in given.recipes:
        keep(given.runs, name, given.note)
    write_text(PAGE, page())
