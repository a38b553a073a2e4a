"""Kill a training with SIGKILL at random moments, resume it, compare with an uncut one bit for bit.

    python benchmarks/bench_kill_resume.py [--kills 10]

Each of the trials kills once at a random moment of the run, then runs the same command again to the
end. Writes benchmarks/results/kill_resume.json.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import environment, made_up_cells, write_result

from pci_core.checkpoint import CHECKPOINT
from pci_core.train import load_model

WORK = """
import sys
from pathlib import Path
from pci_core import recipe
from pci_core.cells import CellDataset
from pci_core.train import train
spec = recipe.load("authors-toy-yeast").replace(training={"epochs": 3, "width": 0.1, "holdout": 0.2})
dataset = CellDataset(sys.argv[1])
print("ready", flush=True)
train(dataset, spec, Path(sys.argv[2]), device="cpu", precision="float32", quiet=True, checkpoint_seconds=0.5)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options, _ = parser.parse_known_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        dataset = made_up_cells(Path(scratch) / "cells", 1280)

        def command(out: str) -> list[str]:
            return [sys.executable, "-c", WORK, str(dataset.folder), str(Path(scratch) / out)]

        def start(out: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(command(out), stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            return process

        whole = start("whole")
        began = time.monotonic()
        assert whole.wait() == 0
        length = time.monotonic() - began
        expected = load_model(Path(scratch) / "whole" / "weights.safetensors")[0].state_dict()
        trials = []
        i = 0
        while len(trials) < options.kills:
            i += 1
            moment = rng.uniform(0.0, 0.9 * length)
            process = start(f"cut{i}")
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            if process.wait() != -signal.SIGKILL:
                continue  # it had ended before: no trial
            checkpoint = Path(scratch) / f"cut{i}" / CHECKPOINT
            at = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else {"epoch": 0, "step": 0}
            subprocess.run(command(f"cut{i}"), check=True, stdout=subprocess.DEVNULL)
            found = load_model(Path(scratch) / f"cut{i}" / "weights.safetensors")[0].state_dict()
            equal = all(torch.equal(found[k], expected[k]) for k in expected)
            trials.append({"moment_s": round(moment, 2), "resumed_at": [at["epoch"], at["step"]], "equal": equal})
            print(trials[-1], flush=True)
    good = sum(t["equal"] for t in trials)
    print(f"{good} of {options.kills} killed, resumed and equal bit for bit; an uncut run takes {length:.1f} s")
    write_result("kill_resume", {"environment": environment(torch.device("cpu"), torch.float32), "uncut_s": length, "trials": trials})
    sys.exit(good != options.kills)


if __name__ == "__main__":
    main()
