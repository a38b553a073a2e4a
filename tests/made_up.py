"""Made-up inputs that several tests share: channels, and a user's own recipe with its fields of view."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from pci_core.cells import Channel

CHANNELS = (Channel("protein", "protein"), Channel("marker", "structural"))

OWN_RECIPE = """
name = "own"
title = "Made-up cells"
label = "protein"
[[channels]]
name = "protein"
role = "protein"
[[channels]]
name = "marker"
role = "structural"
[source]
kind = "table"
path = "fields.csv"
[fields]
format = "stack"
order = ["protein", "marker"]
um_per_px = 0.5
[segmentation]
method = "labels"
clear_border = false
[crop]
size = 16
resize = 16
min_cells = 2
[training]
epochs = 2
batch_size = 8
width = 0.05
holdout = 0.25
"""


def write_own_recipe(folder: Path) -> Path:
    """Write a user's own recipe: four images of two fields of four cells each, with label images; return the TOML."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(4):
        for j in range(2):
            name = f"i{i}_f{j}"
            field = rng.integers(0, 200, (2, 64, 64)).astype(np.uint16)
            field[0] += np.uint16(300 * (i % 2)) * (np.arange(64) % 4 < 2).astype(np.uint16)
            labels = np.zeros((64, 64), np.uint16)
            for number, (y, x) in enumerate([(10, 10), (10, 40), (40, 10), (40, 40)], 1):
                labels[y : y + 8, x : x + 8] = number
            tifffile.imwrite(folder / f"{name}.tif", field, photometric="minisblack")
            tifffile.imwrite(folder / f"{name}_labels.tif", labels)
            rows.append({"field": name, "image": f"i{i}", "path": f"{name}.tif", "labels": f"{name}_labels.tif", "protein": f"P{i % 2}"})
    pd.DataFrame(rows).to_csv(folder / "fields.csv", index=False)
    (folder / "own.toml").write_text(OWN_RECIPE)
    return folder / "own.toml"
