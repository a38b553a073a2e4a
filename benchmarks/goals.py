"""The goals of speed and size beside what was measured: the table at the top of book/performance.md.

Every figure is read from the raw results. A goal without a result is called not measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """One row: what, against which baseline of the same run, how much; and where the figure is.

    Attributes
    ----------
    what, baseline : str
    wanted : str
        The goal in words.
    files : str
        Glob of the results that can tell, e.g. ``throughput*.json``; one figure for each.
    value : callable
        From a result's ``summary``, or the whole where it has none, to the figure; an error where it is not in there.
    met : callable
        Whether a figure meets the goal.
    form : str
        How the figure is shown.
    """

    what: str
    baseline: str
    wanted: str
    files: str
    value: Callable[[Summary], float]
    met: Callable[[float], bool]
    form: str = "{:.1f}×"


def _median(key: str) -> Callable[[Summary], float]:
    return lambda s: s[key]["median"] if isinstance(s[key], Mapping) else s[key]


def _least(least: float) -> Callable[[float], bool]:
    return lambda v: v >= least


def _most(most: float) -> Callable[[float], bool]:
    return lambda v: v <= most


def _cell_by_cell(summary: Summary) -> float:
    best = max(_median(key)(summary) for key in ("conv4_256", "conv4_256_compiled") if key in summary)
    return best / _median("keras_conv4_1_predict")(summary)


def _wait(result: Summary, mode: str) -> float:
    return max(r["wait_share"] for r in result["runs"] if (r["what"], r["mode"], r["cold"]) == ("training", mode, mode != "resident"))


CPU, GPU = "throughput.json throughput_float32.json", "throughput_gpu.json"
GOALS = (
    Goal("training, full width, 2 cores", "the same network in Keras", "≥ 7×", CPU, _median("training_ratio"), _least(7)),
    Goal("the same", "the processor's own matrix product", "≥ 62 %", CPU, _median("share_of_matmul"), _least(0.62), "{:.0%}"),
    Goal("extraction to conv4, 2 cores", "Keras, batch 64", "≥ 7×", CPU, _median("extraction_ratio_64"), _least(7)),
    Goal("the same", "Keras, `predict` cell by cell", "≥ 50×", CPU, _cell_by_cell, _least(50)),
    Goal("training on one H200", "the GPU's own matrix product", "≥ 45 %", GPU, _median("share_of_matmul"), _least(0.45), "{:.0%}"),
    Goal("the same", "", "≥ 20,000 pairs/s", GPU, _median("training"), _least(20_000), "{:,.0f} pairs/s"),
    Goal("extraction on one H200, conv4", "", "≥ 100,000 cells/s", GPU, _median("conv4_256"), _least(100_000), "{:,.0f} cells/s"),
    Goal("the same, all five layers", "", "≥ 100,000 cells/s", GPU, _median("all_layers"), _least(100_000), "{:,.0f} cells/s"),
    *(
        Goal(f"waiting for data, {told}", "time of training at width 0.25", "≤ 3 %", "data_wait.json",
             lambda s, mode=mode: _wait(s, mode), _most(0.03), "{:.2%}")  # type: ignore[misc]
        for mode, told in (("resident", "on the device"), ("streamed", "rows from a cold file"), ("chunked", "chunks from a cold file"))
    ),
    Goal("waiting for data, 2 processes", "time of training", "≤ 3 %", "distributed.json",
         _median("data_wait_share"), _most(0.03), "{:.2%}"),
    Goal("2 processes: losses differ", "1 process, same global batch", "as by rounding alone (≤ 3× the control)", "distributed.json",
         lambda s: s["greatest_relative_difference_of_losses"] / s["difference_by_rounding_alone"], _most(3.0), "{:.1f}× the control"),
    Goal("2 GPUs", "1 GPU", "≥ 1.9×", "distributed_gpu.json", _median("ratio"), _least(1.9)),
    Goal("neighbours of 30,889 × 384, five k", "scikit-learn, one call a k", "≥ 4×", "knn.json",
         _median("ratio_one_call_a_k"), _least(4)),
    Goal("distances of the cell-line analysis", "loop over pairs with scipy's cdist", "≥ 10×", "distances.json",
         _median("ratio"), _least(10)),
    *(
        Goal(f"clustering 11,995 × 384 to ordered heat map, {metric}", "scipy's pdist and linkage", "≥ 1.3×", "clustering.json",
             lambda s, metric=metric: s[metric]["ratio"], _least(1.3))  # type: ignore[misc]
        for metric in ("correlation", "euclidean")
    ),
    Goal("the same, peak memory", "", "≤ 2.5 GB", "clustering.json",
         lambda s: max(s[m]["peak_mb"] for m in ("correlation", "euclidean")) * 2**20 / 1e9, _most(2.5), "{:.2f} GB"),
    *(
        Goal(f"simulate → crops, {recipe}", "one core", "≥ 1.8×", "cells.json",
             lambda s, recipe=recipe: s[recipe]["ratio"], _least(1.8), "{:.2f}×")  # type: ignore[misc]
        for recipe in ("simulated-human", "simulated-yeast")
    ),
    *(
        Goal(f"{told}, ten times the cells: time", "the cells", "≤ 10.5×", "growth.json",
             lambda s, what=what: s[what]["time_ratio"], _most(10.5), "{:.2f}×")  # type: ignore[misc]
        for what, told in (("extract", "extraction"), ("train", "training"))
    ),
    *(
        Goal(f"{told}, ten times the cells: peak memory", "the cells", "the same (≤ 1.1×)", "growth.json",
             lambda s, what=what: s[what]["peak_ratio"], _most(1.1), "{:.2f}×")  # type: ignore[misc]
        for what, told in (("extract", "extraction"), ("train", "training"))
    ),
)  # fmt: skip


def measured(goal: Goal, folder: Path) -> list[tuple[float, str]]:
    """Return the figures of a goal, each with the processor it was measured on."""
    found = []
    for name in goal.files.split():
        try:
            result = json.loads((folder / name).read_text(encoding="utf-8"))
            value = float(goal.value(result.get("summary", result)))
        except (FileNotFoundError, KeyError, TypeError, ValueError, ZeroDivisionError):
            continue  # not measured, or by an earlier form of the benchmark
        found.append((value, str(result["environment"]["device"])))
    return found


def table(folder: Path) -> list[str]:
    """Return the table as lines of Markdown."""
    lines = ["| what | baseline of the same run | goal | measured | |", "|---|---|---|---|---|"]
    for goal in GOALS:
        found = measured(goal, folder)
        several = len(goal.files.split()) > 1
        told = "; ".join(goal.form.format(v) + (f" ({_short(where)})" if several else "") for v, where in found)
        marks = ["reached" if goal.met(v) else "not reached" for v, _ in found]
        mark = marks[0] if len(set(marks)) == 1 else " / ".join(marks)
        lines.append(f"| {goal.what} | {goal.baseline} | {goal.wanted} | {told or 'not measured'} | {mark if marks else ''} |")
    return lines


def _short(device: str) -> str:
    """Return what of a device's description tells processors apart: its name and the precision."""
    name = device.split("(", 1)[-1].split(",")[0].split("@")[0].replace("(R)", "").replace("Processor", "").strip(" )")
    return f"{name}, {device.rsplit(',', 1)[-1].strip()}"
