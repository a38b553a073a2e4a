"""Hours, gigabytes and cost for 10^5 to 10^9 cells, from the measured rates: the marked part of book/gpu_cluster.md.

python benchmarks/scale.py                                 # writes it
python benchmarks/scale.py --core-hour 0.03 --gpu-hour 2   # prints it with your prices
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pci_core.encoders import SourceCellEncoder
from pci_core.storage import write_text

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "book" / "gpu_cluster.md"
BEGIN, END = "% scale: begin (written by benchmarks/scale.py)\n", "% scale: end\n"
CORE_HOUR, GPU_HOUR = 0.05, 3.0  # an hour of a processor core and of a GPU, in any currency: assumptions, no quotation
CORES = 2  # that the rates were measured on
SIZES = {"10⁵": 10**5, "10⁶": 10**6, "10⁷": 10**7, "10⁸": 10**8}
HUGE = 10**9
EPOCHS, PAPER_CELLS = 30, 638_640  # the paper's training on human cells
CHANNELS, SIDE, PER_FIELD = 3, 64, 50  # of a crop of 8 bits; cells of a field of view: an assumption
MEMORY, GPU_MEMORY = 64e9, 80e9  # bytes of the machine and the GPU that limits are told for: assumptions


def load(name: str) -> dict[str, Any] | None:
    """Read one result; None where it was not measured."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def median(found: dict[str, Any] | None, key: str) -> float | None:
    """Return a value or median of a result's summary; None where it is not there."""
    summary = (found or {}).get("summary", {})
    value = summary.get(key, summary.get(key.removesuffix("_256")))  # the GPU's batches are larger, and it says so itself
    return None if value is None else float(value["median"] if isinstance(value, dict) else value)


def crop_rate() -> float | None:
    """Return cells/s of reading, segmenting and cropping human fields in two processes, without drawing them."""
    runs = [r for r in (load("cells") or {}).get("runs", []) if r["recipe"] == "simulated-human" and r["jobs"] == CORES]
    return sum(r["cells"] for r in runs) / sum(r["crop_seconds"] for r in runs) if runs else None


def all_cells(cells: int) -> int:
    """Return the cells as they are."""
    return cells


def paper_pairs(cells: int) -> int:
    """Return the pairs of the paper's rule: every cell a source, `EPOCHS` times."""
    return EPOCHS * cells


def fixed_pairs(cells: int) -> int:
    """Return the pairs of the cheaper rule: as many as the paper's own network saw, or fewer for fewer cells."""
    return min(paper_pairs(cells), paper_pairs(PAPER_CELLS))


def hours(value: float) -> str:
    """Return hours in words: minutes below one, no digits above ten."""
    if value < 1:
        return "< 1 min" if value * 60 < 1 else f"{value * 60:.0f} min"
    return f"{value:.1f} h" if value < 10 else f"{value:,.0f} h"


def price(value: float) -> str:
    """Return a cost, with two digits behind the point where it is small."""
    return "< 0.01" if value < 0.01 else f"{value:,.2f}" if value < 10 else f"{value:,.0f}"


def size(value: float) -> str:
    """Return bytes as GB or TB."""
    if value >= 1e12:
        return f"{value / 1e12:.1f} TB"
    return f"{value / 1e9:.1f} GB" if value < 1e11 else f"{value / 1e9:,.0f} GB"


def rounded(cells: float) -> str:
    """Return a number of cells in millions, with two digits that count."""
    return f"{float(f'{cells / 1e6:.2g}'):,.0f} million"


def time_table(core_hour: float, gpu_hour: float) -> list[str]:
    """Return the table of hours and cost."""
    cpu, gpu, crops = load("throughput"), load("throughput_gpu"), crop_rate()
    cores, card = f"{CORES} CPU cores", "one GPU"
    price_of = {cores: CORES * core_hour, card: gpu_hour}
    lines = [f"| step | on | measured | {' | '.join(f'{k} cells' for k in SIZES)} |", f"|---|---|---:|{'---:|' * len(SIZES)}"]
    spent: dict[tuple[str, str], list[float]] = {}

    def row(step: str, what: str, on: str, rate: float | None, unit: str, work: Callable[[int], int]) -> None:
        if rate is None:
            lines.append(f"| {what} | {on} | not measured |{' – |' * len(SIZES)}")
            return
        spent[step, on] = took = [work(n) / rate / 3600 for n in SIZES.values()]
        lines.append(f"| {what} | {on} | {rate:,.0f} {unit} | {' | '.join(f'{hours(t)} · {price(t * price_of[on])}' for t in took)} |")

    row("crops", "fields of view to crops", cores, crops, "cells/s", all_cells)
    for step, what, key, unit, work in (
        ("paper", f"training, {EPOCHS} epochs of all cells (the paper's rule)", "training", "pairs/s", paper_pairs),
        ("fixed", f"training, at most {paper_pairs(PAPER_CELLS) / 1e6:.1f} million pairs", "training", "pairs/s", fixed_pairs),
        ("conv4", "features of conv4", "conv4_256", "cells/s", all_cells),
        ("layers", "features of all five layers", "all_layers_256", "cells/s", all_cells),
    ):
        row(step, what, cores, median(cpu, key), unit, work)
        row(step, what, card, median(gpu, key), unit, work)
    for on in (cores, card):
        parts = [("crops", cores)] * bool(crops) + [("fixed", on), ("conv4", on)]
        if all(p in spent for p in parts):
            sums = [(sum(spent[p][i] for p in parts), sum(spent[p][i] * price_of[p[1]] for p in parts)) for i in range(len(SIZES))]
            told = "crops, training by the second rule, conv4" if crops else "training by the second rule, conv4 (crops not counted)"
            where = f"crops {cores}, else {card}" if crops and on == card else on
            lines.append(f"| **together**: {told} | {where} | | {' | '.join(f'{hours(t)} · {price(m)}' for t, m in sums)} |")
    return lines


def disk_table(found: dict[str, Any]) -> tuple[list[str], dict[str, float]]:
    """Return the table of gigabytes, and bytes a cell by name."""
    dims = SourceCellEncoder(CHANNELS, 1.0).dims
    measured = found["bytes_a_cell"]
    beside = measured["features"]["h5ad"] - 4 * dims[found["layer"]]  # the cell table in each file
    crop = CHANNELS * SIDE**2
    rows: dict[str, tuple[str, float]] = {
        "crops": (f"crops, {CHANNELS} channels of 8 bits, {SIDE} × {SIDE} px", crop),
        "crops16": ("the same in 16 bits", 2 * crop),
        "h5ad": (f"`conv4.h5ad`, {dims['conv4']} numbers a cell", measured["features"]["h5ad"]),
        "parquet": ("`conv4.parquet`, written beside it", measured["features"]["parquet"]),
        "layers": ("all five layers, both files", 5 * beside * 2 + sum(dims.values()) * 8),
        "disk": ("cell table, `cells.parquet`", measured["table"]["disk"]),
        "resident": ("cell table, in memory wherever a dataset is open", measured["table"]["resident"]),
        "writing": ("cell table, in memory while the crops are made", measured["table"]["writing"]),
        "drawing": ("pairs of an epoch, on the device while they are drawn", measured["pairs"]["drawing"]),
    }
    lines = [f"| what | bytes a cell | {' | '.join(f'{k} cells' for k in SIZES)} |", f"|---|---:|{'---:|' * len(SIZES)}"]
    lines += [
        f"| {told} | {number:,.0f} | {' | '.join('< 0.1 GB' if number * n < 1e8 else size(number * n) for n in SIZES.values())} |"
        for told, number in rows.values()
    ]
    return lines, {k: v for k, (_, v) in rows.items()}


def limits(a_cell: dict[str, float]) -> list[str]:
    """Return what breaks first on the way to 10^9 cells, in that order, and what to do."""
    loaded = a_cell["resident"] + 4 * SourceCellEncoder(CHANNELS, 1.0).dims["conv4"]
    knn = load("knn")
    assert knn is not None
    search = knn["summary"]["own_cell"]["median"] / 3600 * (10**7 / knn["cells"]) ** 2  # every cell with every other
    memory, device = f"{MEMORY / 1e9:.0f} GB", f"{GPU_MEMORY / 1e9:.0f} GB"
    return [
        f"1. **Analyses of single cells.** `Run.features` reads the whole matrix, {loaded:,.0f} bytes a cell with its table: {memory} end "
        f"near {rounded(MEMORY / loaded)} cells. The search for neighbours of all cells grows with the square: from the seconds of "
        f"{knn['cells']:,} cells, {hours(search)} on {CORES} cores for 10⁷. Do instead: describe all, compare a sample "
        "(`Run(..., sample=100_000)`), or proteins and wells (`pci.aggregate`).",
        f"2. **The cell table.** It is a pandas table with texts, held whole: {a_cell['writing']:,.0f} bytes a cell while the crops are "
        f"made, {a_cell['resident']:,.0f} afterwards. {memory} end near {rounded(MEMORY / a_cell['writing'])} cells; 10⁹ would need "
        f"{size(a_cell['writing'] * HUGE)}. Do instead: a run for each plate or batch, see below.",
        f"3. **Pairs on the GPU.** An epoch is drawn at once, {a_cell['drawing']:,.0f} bytes a cell: a GPU of {device} ends near "
        f"{rounded(GPU_MEMORY / a_cell['drawing'])} cells even without a crop. Do instead: train on one part.",
        f"4. **Numbers of files.** At {PER_FIELD} cells a field (an assumption), 10⁹ cells are {HUGE / PER_FIELD / 1e6:.0f} million "
        "fields, and every command looks at size and time of each image file of its run. Do instead: parts, and files that hold "
        "several fields.",
        f"5. **Single files.** `crops.npy` would have {size(a_cell['crops'] * HUGE)}, or {size(a_cell['crops16'] * HUGE)} in 16 bits, "
        f"which is more than a file on ext4 can hold (17.6 TB); `conv4.h5ad` would have {size(a_cell['h5ad'] * HUGE)}. One process puts "
        "each together, and where it is cut the step starts anew. Do instead: parts.",
    ]


def part(core_hour: float = CORE_HOUR, gpu_hour: float = GPU_HOUR) -> str:
    """Return the marked part of the page as Markdown."""
    cpu, gpu, scale = load("throughput"), load("throughput_gpu"), load("scale")
    assert cpu is not None and scale is not None
    disk, a_cell = disk_table(scale)
    card = gpu["environment"]["device"] if gpu else "not measured"
    lines = [
        f"An hour of a core is counted at {core_hour:g} and one of a GPU at {gpu_hour:g}. **These prices are assumptions, no quotation**; "
        f"`python benchmarks/scale.py --core-hour {core_hour:g} --gpu-hour {gpu_hour:g}` prints the tables with yours. Hours · cost:",
        "",
        *time_table(core_hour, gpu_hour),
        "",
        f"Measured are the rates alone, on few cells. {CORES} CPU cores: {cpu['environment']['device']}, {cpu['cells']:,} made-up cells. "
        f"One GPU: {card}. **All hours are extrapolated**: cells or pairs divided by the rate, as if nothing else grew. The second rule of "
        f"training stops at as many pairs as the paper's human network saw, {EPOCHS} epochs of {PAPER_CELLS:,} cells; no run of ours shows "
        "that it is enough for more cells.",
        "",
        *disk,
        "",
        f"Bytes a cell are measured on {scale['cells']['table']:,} made-up cells (table), {scale['cells']['features']:,} (features) and "
        f"{scale['cells']['pairs']:,} (pairs) by `python benchmarks/bench_scale.py`; those of crops follow from their shape, those of five "
        "layers from one. **All gigabytes are extrapolated.** Texts of your own table may be longer. The images are not counted.",
        "",
        "### What breaks first at 10⁹ cells",
        "",
        f"Nothing of this size was run. From the numbers above, on a machine of {MEMORY / 1e9:.0f} GB with a GPU of {GPU_MEMORY / 1e9:.0f} "
        "GB (assumptions), in this order:",
        "",
        *limits(a_cell),
    ]
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the page with its marked part as the results give it."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"{PAGE} has lost its lines '{BEGIN.strip()}' and '{END.strip()}'"
    return f"{before}{BEGIN}\n{part()}\n{END}{after}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core-hour", type=float, help=f"price of a core's hour [{CORE_HOUR:g}]")
    parser.add_argument("--gpu-hour", type=float, help=f"price of a GPU's hour [{GPU_HOUR:g}]")
    chosen, _ = parser.parse_known_args()
    if chosen.core_hour is None and chosen.gpu_hour is None:
        write_text(PAGE, page())
        print(PAGE)
    else:
        prices = (chosen.core_hour, CORE_HOUR), (chosen.gpu_hour, GPU_HOUR)
        print(part(*(usual if given is None else given for given, usual in prices)))
