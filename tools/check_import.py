"""Compare an imported Keras network with what Keras itself gave: features of five layers and the prediction.

    python tools/check_import.py FILE.h5 FILE.npz

The .npz holds ``source`` (N, H, W, C) float32 in [0, 1], protein first; ``target_index`` (N,): which cell is the target;
``prediction`` (N, H, W, protein); ``conv1`` … ``conv5`` (N, filters): spatial maxima of the ReLU outputs. The file goes the
way of ``pci weights import``: converted, written, read again. Exit status 1 where any difference exceeds 1e-5.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from pci_core.encoders import LAYERS
from pci_core.errors import PCIError
from pci_core.imported import import_weights
from pci_core.model import PairedCellInpainting
from pci_core.train import load_model

LIMIT = 1e-5  # float32 in another order of summing differs by a few 1e-6; a swapped BatchNorm by 0.4


def differences(weights: Path, known: Path) -> dict[str, tuple[float, float]]:
    """Return, for each layer and the prediction, the largest difference over the largest value, and the largest of any one value.

    The second is over values of at least a thousandth of the largest: near zero a relative difference says nothing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path, _ = import_weights(weights, Path(scratch) / "imported.safetensors")
        model, _ = load_model(path)
    assert isinstance(model, PairedCellInpainting)
    with np.load(known, allow_pickle=False) as content:
        reference = dict(content)
    crops = torch.from_numpy(reference["source"]).permute(0, 3, 1, 2).contiguous()
    markers = crops[torch.from_numpy(reference["target_index"])][:, model.architecture["n_protein"] :]
    with torch.inference_mode():
        found = {name: value.numpy() for name, value in model.source.features(crops, LAYERS).items()}
        found["prediction"] = model(crops, markers).permute(0, 2, 3, 1).numpy()
    out = {}
    for name, value in found.items():
        expected = reference[name]
        apart, top = np.abs(value - expected), np.abs(expected).max()
        large = np.abs(expected) >= 1e-3 * top
        out[name] = float(apart.max() / top), float((apart[large] / np.abs(expected[large])).max())
    return out


def main() -> None:
    """Print the table."""
    if len(sys.argv) != 3:
        sys.exit(str(__doc__))
    try:
        table = differences(Path(sys.argv[1]), Path(sys.argv[2]))
    except PCIError as error:
        sys.exit(f"check_import: {error}")
    print(f"{'':12}{'of the largest value':>22}{'of the value itself':>22}")
    for name, (whole, each) in table.items():
        print(f"{name:12}{whole:>22.2e}{each:>22.2e}")
    sys.exit(int(max(whole for whole, _ in table.values()) > LIMIT))


if __name__ == "__main__":
    main()
