"""How well cells are found: segmentation scored against labels made by hand, by another tool, or by the simulator.

    PCI_TEST_DATA=<folder> python benchmarks/bench_segmentation.py

`nuclei-u2os/` and `yeast-fields/` are looked for in the folder; what is not there is left out and said so.
The simulated fields need nothing. Scores are over all cells of all fields; the interval is a bootstrap
over fields. `nuclei-split` was tuned on every second field of `nuclei-u2os/`, the yeast segmentation on both
fields of `yeast-fields/` and on simulated ones of other seeds. A table goes to the screen, the raw counts of
every field to ``benchmarks/results/segmentation.json``.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage as ndi
from skimage.feature import peak_local_max
from skimage.segmentation import clear_border

import pci_core
from pci_core import recipe as recipes
from pci_core.data.simulate import simulate
from pci_core.imaging.crop import cell_table
from pci_core.imaging.read import read_field, read_pixels
from pci_core.imaging.segment import read_labels, segment_field, segment_nuclei
from pci_core.imaging.segment_yeast import segment_yeast
from pci_core.storage import write_json

Case = tuple[str, np.ndarray, np.ndarray]  # field, channel, true labels
EMPTY_FIELD = "r02c01f01p01"  # an empty well: what its label image holds is noise

# nuclei-u2os: a nucleus measures 5,900 px (median) against about 2,000 px in HPA fields at 0.32 µm/px, so the
# recipe's lengths grow by 1.7 and its areas by 3
NUCLEI: dict[str, dict[str, Any]] = {
    "authors' method, recipe's values rescaled": {"sigma": 8.5, "min_area": 75, "fill_holes": 900},
    "authors' method, sigma 2": {"sigma": 2.0, "min_area": 600, "fill_holes": 1200},
    "nuclei-split, sigma 2": {"sigma": 2.0, "min_area": 600, "fill_holes": 1200, "split": True},
}


def counts(true: np.ndarray, found: np.ndarray) -> dict[str, int]:
    """Return cells true and found, pairs with IoU > 0.5, and centres that fall into a true cell not yet taken."""
    rows, columns = int(true.max()) + 1, int(found.max()) + 1
    overlap = np.bincount(true.ravel().astype(np.int64) * columns + found.ravel(), minlength=rows * columns).reshape(rows, columns)
    a, b = overlap.sum(1), overlap.sum(0)
    iou = overlap / np.maximum(a[:, None] + b[None] - overlap, 1)
    centres = np.rint(cell_table(found)[1]).astype(int)
    hit = true[centres[:, 0], centres[:, 1]]
    return {
        "true": int((a[1:] > 0).sum()),
        "found": int((b[1:] > 0).sum()),
        "overlapping": int((iou[1:, 1:] > 0.5).sum()),  # above 0.5 a pair is unique
        "centres": len(set(hit[hit > 0].tolist())),
    }


def scores(fields: list[dict[str, Any]]) -> dict[str, float]:
    """Return F1, precision and recall at IoU 0.5, and of centres, over the cells of some fields."""
    total = {k: sum(f[k] for f in fields) for k in ("true", "found", "overlapping", "centres")}
    true, found = max(total["true"], 1), max(total["found"], 1)
    return {
        "f1": 2 * total["overlapping"] / max(total["true"] + total["found"], 1),
        "precision": total["overlapping"] / found,
        "recall": total["overlapping"] / true,
        "centre_precision": total["centres"] / found,
        "centre_recall": total["centres"] / true,
    }


def score(name: str, cases: Iterable[Case], find: Callable[[np.ndarray], np.ndarray], draws: int = 1000) -> dict[str, Any]:
    """Score one segmentation on some fields."""
    fields = []
    for field, channel, true in cases:
        start = time.perf_counter()
        found = find(channel)
        fields.append({"field": field, "seconds": round(time.perf_counter() - start, 3), **counts(true, found)})
    rng = np.random.default_rng(0)
    drawn = [scores([fields[i] for i in rng.integers(len(fields), size=len(fields))])["f1"] for _ in range(draws)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"name": name, "n_fields": len(fields), **scores(fields), "f1_95": [float(low), float(high)], "fields": fields}


def nuclei_u2os(folder: Path) -> list[dict[str, Any]]:
    """Score the nucleus segmentations against the hand labels, nuclei at the border included."""
    files = sorted((folder / "dna").glob("*.png"))
    cases: list[Case] = []
    for file in files:
        channel = read_pixels(file)[..., 0]
        cases.append((file.stem, channel, read_labels(folder / "labels" / file.name, channel.shape)))  # type: ignore[arg-type]
    rows = []
    for name, values in NUCLEI.items():
        find = partial(segment_nuclei, clear_border=False, **values)
        rows.append(score(f"nuclei-u2os: {name}", cases, find))
    return [*rows, score(f"nuclei-u2os: {name}, fields not tuned on", cases[1::2], find)]


def nuclei_of_yeast(channel: np.ndarray) -> np.ndarray:
    """Return the centres (n, 2) of the spots of a nuclear marker, px: an independent count of cells."""
    log = np.log(channel.astype(np.float64))
    spots = ndi.gaussian_filter(log, 2.0) - ndi.gaussian_filter(log, 8.0)
    return np.asarray(peak_local_max(spots, min_distance=5, threshold_abs=0.4, exclude_border=False))


def per_nucleus(labels: np.ndarray, nuclei: np.ndarray) -> dict[str, int]:
    """Count labelled cells by the number of nuclei in them."""
    inside = np.bincount(labels[tuple(nuclei.T)], minlength=labels.max() + 1)[np.unique(labels[labels > 0])]
    return {"none": int((inside == 0).sum()), "one": int((inside == 1).sum()), "more": int((inside > 1).sum())}


def yeast_fields(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Score the yeast segmentation against the labels as given, and both against the nuclear marker."""

    def find(channel: np.ndarray) -> np.ndarray:
        return segment_yeast(channel, "yeast", sigma=1.0, min_area=100)

    cases, single, nuclear = [], [], []
    for file in sorted(folder.glob("*_labeled.tiff")):
        name = file.stem.removesuffix("_labeled")
        nucleus, cytosol = (read_pixels(folder / f"{name}-ch{c}sk1fk1fl1.tiff") for c in (2, 3))
        true = read_labels(file, cytosol.shape)  # type: ignore[arg-type]
        if name == EMPTY_FIELD:
            empty = {"field": name, "found": int(find(cytosol).max()), "in_label_image": len(np.unique(true)) - 1}
            continue
        spots = nuclei_of_yeast(nucleus)
        inside = np.bincount(true[tuple(spots.T)], minlength=true.max() + 1)
        cases.append((name, cytosol, true))
        single.append((name, cytosol, np.where(inside == 1, np.arange(len(inside)), 0)[true]))
        nuclear.append({"field": name, "nuclei": len(spots), "labels": per_nucleus(true, spots), "ours": per_nucleus(find(cytosol), spots)})
    rows = [score("yeast-fields: labels as given", cases, find), score("yeast-fields: labels with one nucleus (recall only)", single, find)]
    for key in ("f1", "precision", "centre_precision"):
        rows[1][key] = None  # cells outside the chosen labels are no errors
    rows[1]["f1_95"] = None
    return rows, {"nuclei_per_cell": nuclear, "empty_field": empty if nuclear else {}}


def simulated(proteins: int, seed: int) -> list[dict[str, Any]]:
    """Score the recipes' own segmentation on simulated fields, cells at the border left out on both sides."""
    rows = []
    for name, base, modality, method in (
        ("human nuclei", "simulated-human", "", ""),
        ("human nuclei, nuclei-split", "simulated-human", "", "nuclei-split"),
        ("yeast, cytosolic RFP", "simulated-yeast", "rfp", "yeast"),
        ("yeast, brightfield", "simulated-yeast", "brightfield", "yeast-brightfield"),
        ("yeast, Nup49-RFP", "simulated-yeast", "nup49", "yeast-ring"),
    ):
        recipe = recipes.load(base)
        if method:
            recipe = recipe.replace(segmentation={"method": method})
        source = replace(recipe.source, modality=modality, proteins=proteins, images_per_protein=1, fields_per_image=1, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            cases = []
            for row in simulate(source, folder, jobs=-1, labels=True, progress=False).to_dict("records"):
                field = read_field(row, recipe, folder)
                true = read_labels(Path(folder) / row["labels"], field.shape[1:])  # type: ignore[arg-type]
                cases.append((row["field"], field, clear_border(true)))
            row = score(f"simulated {name}", cases, lambda field, recipe=recipe: segment_field(field, recipe))  # type: ignore[misc]
        rows.append(row)
    return rows


def main() -> None:
    """Run all that the data at hand allow."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("PCI_TEST_DATA"), help="folder with nuclei-u2os/ and yeast-fields/")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "segmentation.json")
    parser.add_argument("--proteins", type=int, default=20, help="simulated fields for each modality, one a protein")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the simulated fields; the recipes use 0")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    yeast_check: dict[str, Any] = {}
    left_out = []
    for name in ("nuclei-u2os", "yeast-fields"):
        folder = options.data / name if options.data else None
        if folder is None or not folder.is_dir():
            left_out.append(name)
        elif name == "nuclei-u2os":
            rows += nuclei_u2os(folder)
        else:
            more, yeast_check = yeast_fields(folder)
            rows += more
    rows += simulated(options.proteins, options.seed)
    packages = ("numpy", "scipy", "scikit-image", "pillow", "tifffile")
    versions = {"pci_core": pci_core.__version__, "python": platform.python_version(), **{p: version(p) for p in packages}}
    result = {
        "versions": versions,
        "cores": os.cpu_count(),
        "seed": options.seed,
        "left_out": left_out,
        "rows": rows,
        "yeast_check": yeast_check,
    }
    write_json(options.out, result)
    show(rows, yeast_check, left_out)


def show(rows: list[dict[str, Any]], yeast_check: dict[str, Any], left_out: list[str]) -> None:
    """Print the table."""

    def number(value: float | None) -> str:
        return "    -" if value is None else f"{value:5.3f}"

    print(f"{'':58}{'fields':>6} {'F1':>5} {'95 % interval':>15} {'P':>5} {'R':>5} {'cP':>5} {'cR':>5} {'s/field':>7}")
    for row in rows:
        interval = "{:.3f} to {:.3f}".format(*row["f1_95"]) if row["f1_95"] else "-"
        values = " ".join(number(row[k]) for k in ("precision", "recall", "centre_precision", "centre_recall"))
        seconds = np.mean([f["seconds"] for f in row["fields"]])
        print(f"{row['name']:58}{row['n_fields']:>6} {number(row['f1'])} {interval:>15} {values} {seconds:7.2f}")
    print("F1, P, R: IoU > 0.5; cP, cR: precision and recall of centres. Interval: bootstrap over fields.")
    for field in yeast_check.get("nuclei_per_cell", []):
        print(f"{field['field']}: {field['nuclei']} nuclei; cells with none/one/more: labels {field['labels']}, ours {field['ours']}")
    if yeast_check.get("empty_field"):
        print(f"empty well: {yeast_check['empty_field']}")
    for name in left_out:
        print(f"left out, not in the data folder: {name}")


if __name__ == "__main__":
    main()
