"""Simulated fields of view to crops: fields and cells a second on one process and on two.

    python benchmarks/bench_cells.py [--recipes simulated-human simulated-yeast] [--proteins N] [--repeats 1] [--quick]

What `pci cells` does on a recipe of the package, as it stands: draw the fields into a folder, then read, segment and crop
them. Each measurement is a process of its own, one and two workers in turn. The start of the workers counts, imports of
the process that starts them do not. The crops of both are compared bit by bit. Writes benchmarks/results/cells.json; with --quick only
prints.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from common import environment, timed, write_result

from pci_core import recipe as recipes
from pci_core.data.simulate import simulate
from pci_core.data.table import read_field_table
from pci_core.imaging.build import build_cells

RECIPES, JOBS = ("simulated-human", "simulated-yeast"), (1, 2)


def step(name: str, proteins: int, jobs: int) -> dict[str, Any]:
    """Draw and crop in this process and `jobs` workers."""
    recipe = recipes.load(name)
    if proteins:
        recipe = recipe.replace(source={"proteins": proteins})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "fields"
        drawn, draw_seconds, _ = timed(lambda: simulate(recipe.source, folder, jobs=jobs, progress=False))

        def crop() -> Any:
            fields, root = read_field_table(folder / "fields.csv", recipe)
            truth = pd.read_parquet(folder / "truth.parquet")
            return build_cells(fields, root, recipe, Path(scratch) / "cells", truth=truth, jobs=jobs, progress=False)

        cells, crop_seconds, _ = timed(crop)
        seconds = {"seconds": draw_seconds + crop_seconds, "draw_seconds": draw_seconds, "crop_seconds": crop_seconds}
        return {"fields": len(drawn), "cells": len(cells), "sha256": cells.sha256, **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--proteins", type=int, default=0, help="fewer than the recipe has")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="four proteins: to see that it runs, not for figures")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    if options.step:
        print(json.dumps(step(options.step[0], *map(int, options.step[1:]))))
        return
    load, runs = os.getloadavg()[0], []
    for name in options.recipes:
        for repeat in range(options.repeats):
            for jobs in JOBS:
                command = [sys.executable, __file__, "--step", name, str(4 if options.quick else options.proteins), str(jobs)]
                told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
                runs.append({"recipe": name, "jobs": jobs, "repeat": repeat, **told})
                print(
                    f"{name} on {jobs}: {told['fields']} fields, {told['cells']} cells in {told['seconds']:.1f} s (drawn in "
                    f"{told['draw_seconds']:.1f} s, cropped in {told['crop_seconds']:.1f} s)",
                    flush=True,
                )
        if len({r["sha256"] for r in runs if r["recipe"] == name}) > 1:
            sys.exit(f"{name}: the crops depend on the number of workers")
    result = {
        "environment": environment(torch.device("cpu"), torch.float32),
        "cores": os.cpu_count(),
        "load_before": load,
        "runs": runs,
        "summary": {name: summary([r for r in runs if r["recipe"] == name]) for name in options.recipes},
    }
    print(json.dumps(result["summary"], indent=1))
    if not options.quick:
        write_result("cells", result)


def summary(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the rates on one and on two processes, medians of the repeats, and how they compare."""
    rates = {
        f"{what}_per_second_{jobs}": statistics.median(r[what] / r["seconds"] for r in runs if r["jobs"] == jobs)
        for what in ("fields", "cells")
        for jobs in JOBS
    }
    one, two = ([r["seconds"] for r in runs if r["jobs"] == jobs] for jobs in JOBS)
    return {"fields": runs[0]["fields"], **rates, "ratio": statistics.median(a / b for a, b in zip(one, two, strict=True))}


if __name__ == "__main__":
    main()
