"""Write book/performance.md from the raw results, so that no figure of that page is typed by hand.

python benchmarks/report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import goals

from pci_core.storage import write_text

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "book" / "performance.md"
MEASURED = {
    "matmul_tflops": "matrix product at the working precision, TFLOP/s",
    "training": "training, pairs/s",
    "share_of_matmul": "training, share of the matrix product's rate",
    "data_wait_share": "training, share of time waiting for data",
    "conv4_256": "extraction of conv4, batch 256, cells/s",
    "all_layers_256": "extraction of all five layers, batch 256, cells/s",
    "conv4_256_compiled": "the same, compiled (`--compile on`)",
    "all_layers_256_compiled": "all five layers, compiled",
    "conv4_1": "extraction of conv4, batch 1, cells/s",
    "keras_training": "Keras: training, pairs/s",
    "keras_conv4_64": "Keras: conv4, batch 64, cells/s",
    "keras_conv4_1": "Keras: conv4, batch 1, cells/s",
    "keras_conv4_1_predict": "Keras: conv4, `predict` cell by cell as the authors' script, cells/s",
    "training_ratio": "ours to Keras, training",
    "extraction_ratio_64": "ours (batch 256) to Keras at batch 64, conv4",
    "extraction_ratio_1": "ours (batch 256) to Keras at batch 1, conv4",
    "extraction_ratio_1_predict": "ours (batch 256) to Keras' `predict` cell by cell, conv4",
}
NEIGHBOURS = {
    "own_cell": "own cell left out",
    "own_image": "own image left out",
    "both": "both ways from one pass",
    "scikit_learn": "scikit-learn, brute force, own cell left out, one call for the largest k",
    "scikit_learn_each_k": "the same, one call for each k",
}


def load(name: str) -> dict[str, Any]:
    """Read one result."""
    return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


def interval(row: dict[str, Any]) -> str:
    """Return F1 with its interval, or a dash where there is none."""
    return "–" if row["f1"] is None else f"{row['f1']:.2f} ({row['f1_95'][0]:.2f} to {row['f1_95'][1]:.2f})"


def share(value: float | None) -> str:
    """Return a share with two digits, or a dash."""
    return "–" if value is None else f"{value:.2f}"


def number(key: str, value: float) -> str:
    """Return a share in percent, anything else with three digits."""
    return f"{value:.2%}" if "share" in key else f"{value:.3g}"


def speed_of(name: str) -> list[str]:
    """Return the section on training and extraction of one kind of processor; nothing where it was not measured."""
    if not (RESULTS / f"{name}.json").exists():
        return []
    speed = load(name)
    return [
        f"## Speed in {speed['environment']['device'].rsplit(', ', 1)[-1]}",
        "",
        f"{speed['environment']['device']}; torch {speed['environment']['torch']}; Python {speed['environment']['python']}. "
        f"{len(speed['runs'])} repeats of the product's own training loop and extraction on {speed['cells']:,} made-up cells of "
        "2 x 64 x 64 px, "
        f"full width, batch 64; each repeat runs ours and the baselines one after another{speed.get('note', '')}. "
        "`python benchmarks/bench_throughput.py`",
        "",
        "| | median | lowest | highest |",
        "|---|---:|---:|---:|",
        *(
            f"| {MEASURED[k]} | {' | '.join(number(k, v[w]) for w in ('median', 'min', 'max'))} |"
            for k, v in speed["summary"].items()
            if k in MEASURED
        ),
        "",
    ]


def gpu() -> list[str]:
    """Return the section on a GPU; a sentence that there is none where it was not measured."""
    if not (RESULTS / "throughput_gpu.json").exists():
        return ["## Speed on a GPU", "", "Not measured: no GPU was at hand. `make bench-gpu` measures one in eight minutes.", ""]
    found = load("throughput_gpu")
    return [
        "## Speed on a GPU",
        "",
        f"{found['environment']['device']}; {found['matmul_tflops']:,.0f} TFLOP/s in a matrix product; {found['cells']:,} made-up cells. "
        "`make bench-gpu`",
        "",
        "| training | pairs/s | share of the product's rate | waited |",
        "|---|---:|---:|---:|",
        *(
            f"| {name} | {r['pairs_per_second']:,.0f} | {r['share_of_matmul']:.1%} | {r['data_wait_share']:.2%} |"
            for name, r in found.get("training", {}).items()
        ),
        "",
        "| extraction | cells/s | with all files |",
        "|---|---:|---:|",
        *(f"| {name} | {r['cells_per_second']:,.0f} | {r['whole']:,.0f} |" for name, r in found.get("extraction", {}).items()),
        "",
    ]


def several() -> list[str]:
    """Return the section on several processes; nothing where it was not measured."""
    lines = []
    for name, told in (("distributed", "processor cores, divided among the processes"), ("distributed_gpu", "a GPU each")):
        if not (RESULTS / f"{name}.json").exists():
            continue
        found = load(name)
        summary = found["summary"]
        lines += [
            f"{found['processes']} processes ({told}) beside one, the same global batch of {found['batch']} from the same shards; width "
            f"{found['width']:g}, {found['cells']:,} made-up cells, {found['epochs']} epochs, median of {found['repeats']} repeats: "
            f"{summary['pairs_per_second_several']:.1f} pairs/s beside {summary['pairs_per_second_one']:.1f} "
            f"({summary['ratio']:.2f} times); "
            f"training and held-out losses differ by {summary['greatest_relative_difference_of_losses']:.1e} of their value at most "
            f"(one process whose first weights differ in the last digit: {summary.get('difference_by_rounding_alone', float('nan')):.1e}); "
            f"{summary['data_wait_share']:.2%} of the time was waiting. {found['environment']['device']}. "
            "`python benchmarks/bench_distributed.py`",
            "",
        ]
    return ["## Several processes", "", *lines] if lines else []


def neighbours() -> list[str]:
    """Return the section on nearest neighbours."""
    result = load("knn")
    found = result["summary"]
    each = found.get("ratio_one_call_a_k")  # not in results of before
    against = f"A call for each k takes {each:.1f} times as long (wall) as our one search for all. " if each else ""
    return [
        "## Nearest neighbours",
        "",
        f"{result['cells']:,} made-up cells of {result['features']} features: scaling, one search by brute force, and the votes "
        f"for k = {', '.join(map(str, result['ks']))}. The median of {len(result['runs'])} repeats on {result['cores']} cores. Wall "
        f"seconds hold only for a machine as busy as this one was: {result['load_before']:.1f} processes wanted the "
        f"{result['cores']} cores before the start. Processor seconds are summed over threads; on cores that do nothing else, the "
        f"wall takes about a {'half' if result['cores'] == 2 else 'share'} of them. Share of equal predictions with scikit-learn: "
        f"{result['same_predictions']:.4%}. {against}`python benchmarks/bench_knn.py`",
        "",
        "| | processor, s | wall, s |",
        "|---|---:|---:|",
        *(
            f"| {told} | {found[f'{k}_processor']['median']:.1f} | {found[k]['median']:.1f} |"
            for k, told in NEIGHBOURS.items()
            if k in found
        ),
        "",
    ]


STEPS = {
    "grow_correlation": "dendrogram, correlation distances",
    "scipy_correlation": "the same by scipy's `pdist` and `linkage`",
    "whole_correlation": "features to the file of the ordered heat map, correlation distances",
    "grow_euclidean": "dendrogram, Euclidean distances",
    "scipy_euclidean": "the same by scipy's `pdist` and `linkage`",
    "whole_euclidean": "features to the file of the ordered heat map, Euclidean distances",
    "cut": "clusters cut out by the rule",
    "heat_map": "heat map as PNG and SVG",
    "enrichment": "enrichment in as many terms as GO's cellular components",
}


def proteome() -> list[str]:
    """Return the section on analyses at the size of the paper's proteome."""
    found, atlas = load("clustering"), load("atlas")
    against = [
        f"From features to the ordered heat map with {metric} distances, scipy's `pdist` and `linkage` take {v['ratio']:.2f} times as "
        f"long (wall), to the dendrogram {v['ratio_to_dendrogram']:.2f} times; our peak {v['peak_mb']:,.0f} MiB."
        for metric, v in found.get("summary", {}).items()
    ]
    rows = {r["step"]: r for r in found["runs"] if r["step"] in STEPS and r["repeat"] == 0}
    marks, pictures = atlas["browser"]["marks"], atlas["browser"]["pictures"]
    wall = {k: v[0] for k, v in atlas["seconds_wall_and_processor"].items()}
    return [
        "## Twelve thousand proteins",
        "",
        f"{found['proteins']:,} made-up proteins of {found['features']} features, the paper's size, one process a step; "
        f"{found['load_before']:.1f} processes wanted the {found['cores']} cores before the start. Optimal leaf ordering is off above "
        "1,500 proteins. `python benchmarks/clustering.py`",
        "",
        "| | processor, s | wall, s | peak, MiB |",
        "|---|---:|---:|---:|",
        *(
            f"| {told} | {rows[step]['processor_seconds']:.1f} | {rows[step]['seconds']:.1f} | {rows[step]['peak_mb']:,.0f} |"
            for step, told in STEPS.items()
            if step in rows
        ),
        "",
        *(line for told in against for line in (told, "")),
        f"The protein atlas of {atlas['proteins']:,} made-up proteins: map, clusters and neighbours "
        f"{wall['map, clusters, neighbours']:.0f} s, crops {wall['crops']:.0f} s (wall; {atlas['load_before']:.1f} processes wanted the "
        f"cores), {atlas['page_mb']:.0f} MB, peak {atlas['peak_mb']:,.0f} MB. In headless Chromium without a graphics card it is usable "
        f"after {atlas['browser']['usable_s']:.1f} s; a frame takes {marks['frame_ms']:.0f} ms with all marks in view and "
        f"{pictures['frame_ms']:.0f} ms zoomed in to pictures. "
        "`python benchmarks/bench_atlas.py`",
        "",
    ]


def in_chunks(sizes: dict[tuple[str, int], dict[str, Any]], small: int, large: int) -> list[str]:
    """Return the row on training in chunks; nothing where it was not measured."""
    if ("train_chunked", small) not in sizes:
        return []
    a, b = (sizes["train_chunked", n] for n in (small, large))
    return [f"| training in chunks of {a['chunk']:,} cells, MiB | {a['peak_mb']:.0f} | {b['peak_mb']:.0f} |"]


def waits() -> list[str]:
    """Return the section on waiting for data; nothing where it was not measured."""
    if not (RESULTS / "data_wait.json").exists():
        return []
    found = load("data_wait")
    return [
        "## Waiting for data",
        "",
        f"Share of the time in which the work stood still for crops: {found['environment']['device']}; {found['cells']:,} made-up cells of "
        f"2 x 64 x 64 px; chunks of {found['chunk']:,} cells. Cold: the file was dropped from the system's cache before. "
        "`python benchmarks/bench_data_wait.py`",
        "",
        "| | width | crops | file | a second | waited | disk, MB/s |",
        "|---|---:|---|---|---:|---:|---:|",
        *(
            f"| {r['what']} | {r['width']:g} | {r['mode']} | {'cold' if r['cold'] else 'warm'} | {r['per_second']:,.0f} "
            f"| {r['wait_share']:.1%} | {r['mb_per_second']:,.0f} |"
            for r in found["runs"]
        ),
        "",
    ]


def image_pairs() -> list[str]:
    """Return the section on distances of image pairs; nothing where it was not measured."""
    if not (RESULTS / "distances.json").exists():
        return []
    found = load("distances")
    summary, runs = found["summary"], {r["step"]: r for r in found["runs"]}
    named = {"ours": "`mean_distances`", "loop": "a loop over the pairs with scipy's `cdist`"}
    return [
        "## Distances of images",
        "",
        f"{found['pairs']:,} pairs of images, as the analysis of cell lines draws them from {found['images']:,} made-up images with "
        f"{found['cells']:,} cells of {found['features']} features. The loop takes {summary['ratio']:.1f} times as long (wall, "
        f"{found['cores']} cores); the means differ by {summary['greatest_relative_difference']:.0e} of their value at most. "
        f"{found['load_before']:.1f} processes wanted the cores before the start. Holding the features takes "
        f"{summary['peak_mb']['hold']:,.0f} MiB of the peaks. `python benchmarks/bench_distances.py`",
        "",
        "| | processor, s | wall, s | peak, MiB |",
        "|---|---:|---:|---:|",
        *(
            f"| {told} | {runs[k]['processor_seconds']:.1f} | {runs[k]['seconds']:.1f} | {summary['peak_mb'][k]:,.0f} |"
            for k, told in named.items()
        ),
        "",
    ]


def fields_to_crops() -> list[str]:
    """Return the section on simulated fields and their crops; nothing where it was not measured."""
    if not (RESULTS / "cells.json").exists():
        return []
    found = load("cells")
    return [
        "## Simulated fields to crops",
        "",
        f"What `pci cells` does on a recipe: draw the fields, then read, segment and crop them; on one process and on two, their start "
        f"included. {found['environment']['device']}, {found['cores']} cores, {found['load_before']:.1f} processes wanted them before the "
        "start. The crops are the same bit by bit. `python benchmarks/bench_cells.py`",
        "",
        "| | fields | fields/s, one process | two | cells/s, one process | two | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {name} | {v['fields']:,} | {v['fields_per_second_1']:.2f} | {v['fields_per_second_2']:.2f} | {v['cells_per_second_1']:.0f} "
            f"| {v['cells_per_second_2']:.0f} | {v['ratio']:.2f} |"
            for name, v in found["summary"].items()
        ),
        "",
    ]


def growth() -> list[str]:
    """Return the section on how time and memory grow with the cells; nothing where it was not measured."""
    if not (RESULTS / "growth.json").exists():
        return []
    found = load("growth")
    rows = [
        f"| {told} | {small:,} | {large:,} | {v['time_ratio']:.2f} | {v['peak_ratio']:.3f} |"
        for key, told in (("extract", "extraction, streamed"), ("train", "training, an epoch, streamed"))
        for v, (small, large) in [(found["summary"][key], found["cells"][key])]
    ]
    return [
        "## Ten times the cells",
        "",
        f"Time of the pass itself and peak memory of its process at the larger size, over those at the smaller; width "
        f"{found['width']:g}, made-up cells. {found['environment']['device']}; {found['load_before']:.1f} processes wanted the "
        f"{found['cores']} cores before the start. `python benchmarks/bench_growth.py`",
        "",
        "| | cells | cells | times as long | times the memory |",
        "|---|---:|---:|---:|---:|",
        *rows,
        "",
    ]


def long_runs() -> list[str]:
    found = [load(f"long_{what}") for what in ("train", "extract") if (RESULTS / f"long_{what}.json").exists()]
    if not found:
        return []
    lines = [
        "## Long runs",
        "",
        "Memory that the process holds for itself, its slope over the second half of the run, and what the progress bar promised at",
        "half time for what came after, beside how long it took. `python benchmarks/bench_long.py train`,",
        "`python benchmarks/bench_long.py extract`. The machine did other work at the same time, so no speed is told.",
        "",
        "| | cells | width | minutes | MiB at half time, at the end | slope, MiB an hour | promised, took (s) | error, of the whole |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for run in found:
        told = run["summary"]
        cells = [
            "training" if run["what"] == "train" else "extraction",
            f"{run['cells']:,}",
            f"{run['width']:g}",
            f"{told['watched_seconds'] / 60:.0f}",
            f"{told['rss_mb_at_half']:.0f}, {told['rss_mb_at_end']:.0f}",
            f"{told['slope_mb_per_hour']:+.1f}",
            f"{told['promised_seconds_of_second_half']:.0f}, {told['seconds_of_second_half']:.0f}",
            f"{told['promise_error']:+.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    again = [f"Stopped and started again, the training went on from pair {r['begun_again_at']:,}." for r in found if "begun_again_at" in r]
    return [*lines, "", *again, ""]


def streamed() -> list[str]:
    """Return the section on features streamed from disk; nothing where it was not measured."""
    if not (RESULTS / "extraction_stream.json").exists():
        return []
    found = load("extraction_stream")
    crops = "; ".join(f"{name}: {v['channels']} channels of {v['dtype']}, {v['side']} px" for name, v in found["sets"].items())
    return [
        "## Features streamed from disk",
        "",
        f"What `pci features` does, on simulated cells repeated ({crops}), a process for each row: read from a warm file cache, describe, "
        "write `.h5ad` and `.parquet`. Streamed: crops are read batch by batch; resident: all crops are held first. The peak at "
        f"two sizes shows what grows with the cells: their table. {found['environment']['device']}; "
        f"{found['load_before']:.1f} processes wanted the {found['cores']} cores "
        "before the start. `python benchmarks/extraction_stream.py`",
        "",
        "| cells | | width | layers | crops | cells/s | peak, MiB | crops on disk, MiB |",
        "|---:|---|---:|---|---|---:|---:|---:|",
        *(
            f"| {r['cells']:,} | {r['set']} | {r['width']:g} | {r['layers']} | {r['mode']} | {r['cells_per_second']:.0f} "
            f"| {r['peak_mb']:,.0f} | {r['crops_mb']:,.0f} |"
            for r in found["summary"]
        ),
        "",
    ]


def page() -> str:
    """Return the page as Markdown."""
    speed, memory, kills, cells = load("throughput"), load("memory"), load("kill_resume"), load("segmentation")
    summary = {k: v for k, v in speed["summary"].items() if k in MEASURED}
    sizes = {(r["what"], r["cells"]): r for r in memory["runs"]}
    small, large = sorted({r["cells"] for r in memory["runs"]})
    equal = sum(t["equal"] for t in kills["trials"])
    lines = [
        "# Measured: speed, memory, segmentation",
        "",
        ":::{admonition} Takeaways",
        ":class: tip",
        f"- Training runs at {summary['training']['median']:.0f} pairs a second on two processor cores at full width"
        + (
            f", {summary['training_ratio']['median']:.1f} times as fast as the same network in Keras."
            if "training_ratio" in summary
            else "."
        ),
        "- Memory does not grow with the number of cells, apart from the cell table.",
        "- The built-in segmentation is classical; how well it finds cells, and where it does not, stands below.",
        ":::",
        "",
        "This page is written by `python benchmarks/report.py` from the raw results in `benchmarks/results/`; `make bench` "
        "makes them anew.",
        "",
        "## Goals",
        "",
        "What the project set out to reach, each as a ratio to a baseline that ran in the same run. Simulated or made-up cells; the "
        "sections below have hardware, sizes and repeats.",
        "",
        *goals.table(RESULTS),
        "",
        *speed_of("throughput"),
        *speed_of("throughput_float32"),
        *gpu(),
        *several(),
        *neighbours(),
        *image_pairs(),
        *proteome(),
        *fields_to_crops(),
        "## Memory",
        "",
        "Peak resident memory of a process that trains or extracts, at two data set sizes ten times apart. `python "
        "benchmarks/bench_memory.py`",
        "",
        f"| | {small:,} cells | {large:,} cells |",
        "|---|---:|---:|",
        f"| crops on disk, MiB | {sizes['train', small]['crops_mb']:.0f} | {sizes['train', large]['crops_mb']:.0f} |",
        f"| training, MiB | {sizes['train', small]['peak_mb']:.0f} | {sizes['train', large]['peak_mb']:.0f} |",
        *in_chunks(sizes, small, large),
        f"| extraction, MiB | {sizes['extract', small]['peak_mb']:.0f} | {sizes['extract', large]['peak_mb']:.0f} |",
        "",
        *growth(),
        *long_runs(),
        *streamed(),
        *waits(),
        "## Killed and resumed",
        "",
        f"{equal} of {len(kills['trials'])} trainings that were killed at a random moment and started again ended with the "
        "weights of an uncut one, "
        "bit for bit (processor, float32). `python benchmarks/bench_kill_resume.py`",
        "",
        "## Segmentation",
        "",
        "F1, precision and recall count a cell as found when its overlap with a labelled one (intersection over union) is "
        "above 0.5; a centre is "
        "right when it lies in a labelled cell not yet taken. Intervals: bootstrap over fields. Rows called simulated are "
        "of simulated fields.",
        "`python benchmarks/bench_segmentation.py`",
        "",
        "| | fields | F1 (95 %) | precision | recall | centres: precision | recall |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {r['name']} | {r['n_fields']} | {interval(r)} | {share(r['precision'])} | {share(r['recall'])} "
            f"| {share(r['centre_precision'])} | {share(r['centre_recall'])} |"
            for r in cells["rows"]
        ),
        "",
        "The authors' method (one Otsu threshold a field) stays the default of the human recipe, because it is the paper's. "
        "It fails on fields with "
        'bright debris; `method = "nuclei-split"` in the recipe is the better choice for your own images. The labels of the '
        "real yeast fields "
        "merge touching cells: about half of them hold two nuclei or more by the independent nuclear marker, so the row of "
        "labels with one nucleus tells more.",
        "The row without it is the plain score against the labels as they are.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_text(PAGE, page())
    print(PAGE)
