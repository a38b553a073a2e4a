"""Two processes beside one with the same global batch: the same loss curve, and how much faster.

    python benchmarks/bench_distributed.py [--processes 2] [--device cpu] [--cells 2048] [--width 0.25] [--epochs 2] [--repeats 3]

The product's own training, started by torchrun. On the CPU the cores are divided among the processes, so both use the whole
machine and twice as fast is not to be had: the row shows what sharing costs. On GPUs (--device cuda) each process has one, and one process
alone has one. Both take their pairs from the same shards, so the losses differ by rounding alone, which a training magnifies: how much, a
control tells: one process whose first weights differ in the last digit. One process and several run in turn.
Writes benchmarks/results/distributed.json, on GPUs distributed_gpu.json; with --quick only prints.
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

from common import environment, made_up_cells, write_result

from pci_core import device as devices


def worker(options: argparse.Namespace) -> None:
    """Train in this process, one of several or alone; rank 0 prints what came of it."""
    import torch

    import pci_core.train
    from pci_core import recipe as recipes
    from pci_core.cells import CellDataset
    from pci_core.distributed import world
    from pci_core.train import train

    if options.nudge:
        build = pci_core.train.build

        def nudged(*args: Any, **more: Any) -> Any:
            model, generator = build(*args, **more), torch.Generator().manual_seed(1)
            with torch.no_grad():
                for weight in model.parameters():
                    weight *= 1 + 2**-24 * torch.randn(weight.shape, generator=generator)  # half of float32's last digit
            return model

        pci_core.train.build = nudged
    keys = {"epochs": options.epochs, "width": options.width, "holdout": 0.1, "batch_size": options.batch}
    recipe = recipes.load("authors-toy-yeast").replace(training=keys)
    done = train(CellDataset(options.worker), recipe, options.out, device=options.device, precision=options.precision,
                 shards=options.processes, quiet=True)  # fmt: skip
    if world().is_first:
        rows = [{k: row[k] for k in ("train_loss", "held_out_loss", "data_wait_share")} for row in done.losses]
        print(json.dumps({"pairs_per_second": done.pairs_per_second, "losses": rows}), flush=True)


def run(options: argparse.Namespace, folder: Path, out: Path, processes: int, nudge: bool = False) -> dict[str, Any]:
    """Run `worker` in so many processes, with all cores divided among them."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += [__file__, "--worker", str(folder), "--out", str(out), "--processes", str(options.processes), "--device", options.device]
    command += ["--precision", options.precision, "--width", str(options.width), "--epochs", str(options.epochs)]
    command += ["--batch", str(options.batch)]
    command += ["--nudge"] if nudge else []
    threads = max(1, (os.cpu_count() or 1) // processes)
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run(command, capture_output=True, text=True, env=env)
    if finished.returncode:
        raise SystemExit(f"{processes} process(es) ended with status {finished.returncode}:\n{finished.stderr[-2000:]}")
    return dict(json.loads(next(line for line in finished.stdout.splitlines() if line.startswith("{"))))


def difference(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Return the greatest relative difference of two trainings' losses, epoch by epoch."""
    rows = [(x[k], y[k]) for x, y in zip(a["losses"], b["losses"], strict=True) for k in ("train_loss", "held_out_loss")]
    return max(abs(x - y) / abs(x) for x, y in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", help="float32: then the curves differ by its rounding alone")
    parser.add_argument("--cells", type=int, default=2048)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    parser.add_argument("--nudge", action="store_true", help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    if options.worker:
        worker(options)
        return
    if options.quick:
        options.cells, options.width, options.epochs, options.repeats = 256, 0.05, 2, 1
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        dataset = made_up_cells(Path(scratch) / "cells", options.cells)
        for repeat in range(options.repeats):
            one, several = (run(options, dataset.folder, Path(scratch) / f"{n}_{repeat}", n) for n in (1, options.processes))
            runs.append({
                "one": one, "several": several, "ratio": several["pairs_per_second"] / one["pairs_per_second"],
                "greatest_relative_difference_of_losses": difference(one, several),
                "data_wait_share": max(row["data_wait_share"] for row in several["losses"]),
            })  # fmt: skip
            if not repeat:  # what rounding alone does to the losses of one process
                runs[0]["control"] = run(options, dataset.folder, Path(scratch) / "control", 1, nudge=True)
                runs[0]["difference_by_rounding_alone"] = difference(one, runs[0]["control"])
            print({k: v for k, v in runs[-1].items() if k not in ("one", "several", "control")}, flush=True)
    keys = ("ratio", "greatest_relative_difference_of_losses", "data_wait_share")
    summary = {key: statistics.median(r[key] for r in runs) for key in keys}
    summary["difference_by_rounding_alone"] = runs[0]["difference_by_rounding_alone"]
    summary |= {f"pairs_per_second_{n}": statistics.median(r[n]["pairs_per_second"] for r in runs) for n in ("one", "several")}
    print(json.dumps(summary, indent=1))
    if not options.quick:
        device = devices.choose_device(options.device)
        settings = {k: v for k, v in vars(options).items() if k not in ("worker", "out", "quick", "nudge")}
        where = environment(device, devices.choose_precision(device, options.precision))
        name = "distributed" if device.type == "cpu" else "distributed_gpu"
        write_result(name, {"environment": where, **settings, "runs": runs, "summary": summary})


if __name__ == "__main__":
    main()
