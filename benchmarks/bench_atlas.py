"""The protein atlas at the size of the paper's human screen: made-up proteins, seconds to make the page, its size, its speed.

    python benchmarks/bench_atlas.py [--proteins 12000] [--keep PAGE.html]

Features (proteins x 384, two cells each) are drawn around 30 classes; crops are blobs with noise, which compress no
better than real ones. Where headless Chromium is installed, the page is loaded in it without a graphics card: seconds
until it can be used, script time of a frame, and the time between frames while the map is zoomed and moved. Other work
on the machine is told by its load before the start; processor seconds depend on it less than wall seconds.
Writes benchmarks/results/atlas.json.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from common import environment, write_result
from scipy.ndimage import gaussian_filter

from pci_core import atlas
from pci_core.cells import CellDataset, CellWriter, Channel

FEATURES, CLASSES, CELLS, BANK = 384, 30, 2, 400
CHANNELS = (Channel("protein", "protein"), Channel("nucleus", "structural"), Channel("microtubules", "structural"))
FRAMES = """(async () => {
  const gaps = [], script = [], frame = () => new Promise(requestAnimationFrame);
  atlas.state.pictures = %s;
  let last = await frame();
  for (let i = 0; i < 90; i++) {
    const began = performance.now();
    atlas.map.zoomBy(i %% 30 < 15 ? 1.08 : 1 / 1.08); atlas.map.panBy(i %% 2 ? 9 : -9, 4); atlas.map.draw();
    script.push(performance.now() - began);
    const now = await frame(); gaps.push(now - last); last = now;
  }
  const at = (a, q) => [...a].sort((x, y) => x - y)[Math.floor(q * (a.length - 1))];
  return { script_ms: at(script, 0.5), script_ms_95: at(script, 0.95), frame_ms: at(gaps, 0.5), frame_ms_95: at(gaps, 0.95) };
})()"""


def made_up(folder: Path, n: int) -> tuple[CellDataset, anndata.AnnData]:
    """Return cells of n proteins, and their features."""
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.normal(size=(BANK, 3, 64, 64)), (0, 0, 2.5, 2.5))
    bank = np.clip(90 + 420 * smooth + rng.normal(0, 5, smooth.shape), 0, 255).astype(np.uint8)
    code = rng.integers(0, CLASSES, n)
    second = rng.integers(0, CLASSES, n)  # three in ten have a second location
    location = np.array(
        [f"location {a}" + (f";location {b}" if i % 10 < 3 and a != b else "") for i, (a, b) in enumerate(zip(code, second, strict=True))]
    )
    names = np.array([f"GENE{i}" for i in range(n)])
    table = pd.DataFrame({"protein": names.repeat(CELLS), "location": location.repeat(CELLS)})
    table["cell_line"] = np.tile(["A-431", "U-2 OS"], n)
    table["image"], table["cell_id"] = table["protein"], [f"{p}_{i % CELLS}" for i, p in enumerate(table["protein"])]
    with CellWriter(folder, CHANNELS, 0.64, recipe="made-up") as writer:
        for start in range(0, len(table), 2048):
            part = table.iloc[start : start + 2048]
            writer.add(bank[rng.integers(0, BANK, len(part))], part)
    dataset = CellDataset(folder)
    hidden = rng.normal(size=(n, 30)) + 0.55 * rng.normal(size=(CLASSES, 30))[code]
    x = np.maximum(hidden @ rng.normal(size=(30, FEATURES)), 0).astype(np.float32)
    return dataset, anndata.AnnData(x.repeat(CELLS, axis=0), obs=dataset.table.set_index("cell_id", drop=False).rename_axis(None))


def now() -> tuple[float, float]:
    """Return wall and processor seconds."""
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> list[float]:
    """Return wall and processor seconds since then."""
    return [b - a for a, b in zip(began, now(), strict=True)]


def in_browser(path: Path) -> dict[str, Any]:
    """Load the page and move the map; nothing where no browser is installed."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.browser import browser, find_browser

    executable = find_browser()
    if executable is None:
        print("no Chromium here: the page's own speed was not measured")
        return {}
    out: dict[str, Any] = {}
    with browser(executable) as page:
        out["load_s"] = page.goto(path, 240)
        page.wait("document.documentElement.dataset.ready")
        out["usable_s"] = page.run("performance.getEntriesByName('usable')[0].startTime") / 1000
        out["marks"] = page.run(FRAMES % "false", 300)
        page.run("atlas.map.zoomBy(1 / 99); atlas.map.fit(); new Promise((done) => setTimeout(done, 800))")
        page.run("atlas.state.pictures = true; atlas.map.zoomBy(26, ...atlas.map.screen(0)); atlas.map.draw()")
        page.run("new Promise((done) => setTimeout(done, 1500))")
        out["pictures_drawn"] = page.run("atlas.map.thumbs()")
        out["pictures"] = page.run(FRAMES % "true", 300)
        out["search_ms"] = page.run("(() => { const t = performance.now(); atlas.find('GNE77x'); return performance.now() - t; })()")
        out["hit_ms"] = page.run("(() => { const t = performance.now(); for (let i = 0; i < 1000; i++) atlas.map.hit(i, i / 2);"
                                 " return (performance.now() - t) / 1000; })()")  # fmt: skip
        out["errors"] = page.errors
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proteins", type=int, default=12_000)
    parser.add_argument("--keep", type=Path, help="write the page here too")
    options, _ = parser.parse_known_args()
    load = os.getloadavg()[0]
    seconds: dict[str, list[float]] = {}  # wall, processor
    with tempfile.TemporaryDirectory() as scratch:
        dataset, cells = made_up(Path(scratch) / "cells", options.proteins)
        began = now()
        proteins = atlas.lay_out(cells)
        seconds["map, clusters, neighbours"] = since(began)
        began = now()
        crops = atlas.cut_crops(dataset, list(proteins.obs_names))
        seconds["crops"] = since(began)
        facts = atlas.Facts("Made-up proteins", "made-up", "made-up features", True, "", CHANNELS, 64 * 0.64, 64)
        began = now()
        path = options.keep or Path(scratch) / "atlas.html"
        path.write_text(atlas.page(proteins, crops, facts, dataset.table), encoding="utf-8")
        seconds["page"] = since(began)
        content = {
            "environment": environment(torch.device("cpu"), torch.float32),
            "cores": os.cpu_count(),
            "load_before": load,
            "proteins": options.proteins,
            "features": FEATURES,
            "crops_a_protein": len(crops.rows[0]),
            "crop_px": crops.px,
            "seconds_wall_and_processor": seconds,
            "page_mb": path.stat().st_size / 1e6,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "browser": in_browser(path),
        }
    print({k: v for k, v in content.items() if k != "environment"})
    write_result("atlas", content)


if __name__ == "__main__":
    main()
