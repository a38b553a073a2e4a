"""Keep a trained encoder for others: the small file of `pci_core.pretrained` with a card that says what it is worth."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from pci_core import pretrained
from pci_core.analysis.classify import knn_table
from pci_core.checkpoint import WEIGHTS
from pci_core.encoders import LAYERS
from pci_core.features import check_channels, extract, read_features
from pci_core.recipe import Training, plain
from pci_core.run import Run
from pci_core.weights import SUFFIX


def export(run: Run, out: str | os.PathLike[str], kind: str = "pci", score: Run | None = None, command: str = "") -> dict[str, Any]:
    """Train if needed, and write the source cell encoder of a run with its card.

    Parameters
    ----------
    run : Run
        Whose network is kept.
    out : path-like
        The ``.safetensors`` to write.
    kind : str
        ``"pci"`` or ``"autoencoder"``.
    score : Run, optional
        Cells on which the kept encoder is scored (kNN, k = 11), of other seeds than those it was trained on.
    command : str
        How to repeat it, for the card.

    Returns
    -------
    dict
        The card.
    """
    weights = run.train(kind) / WEIGHTS
    cells = run.cells()
    facts: dict[str, Any] = {"cells": len(cells), "images": len(cells.starts) - 1, "command": command}
    if "protein" in cells.table:
        facts["proteins"] = int(cells.table["protein"].nunique())
    facts["held_out_losses"] = [round(float(v), 6) for v in run.losses(kind)["held_out_loss"]]
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / "encoder.safetensors"
        pretrained.export_encoder(weights, draft, **facts)
        if score is not None:
            facts["knn"] = _scores(score, draft, Path(scratch), kind)
    with run.recording([weights]):
        return pretrained.export_encoder(weights, out, **facts)


def _scores(run: Run, path: Path, scratch: Path, kind: str) -> dict[str, Any]:
    dataset = run.cells()
    encoder, card = pretrained.load_encoder(path, run.recipe.preprocess)
    check_channels(dataset, encoder, [c["name"] for c in card["channels"]], kind)
    outputs = {layer: scratch / f"{layer}.h5ad" for layer in LAYERS}
    extract(dataset, encoder, outputs, run.recipe.preprocess, {"model": kind}, device=run.device, precision=run.precision, quiet=run.quiet)
    table = knn_table({layer: read_features(p) for layer, p in outputs.items()}, run.recipe.label)
    rounded = table[["features", "left_out", "accuracy", "low", "high"]].round(4)
    first = table.iloc[0]
    return {
        "recipe": run.recipe.name,
        "label": run.recipe.label,
        "k": int(first["k"]),
        "n_cells": int(first["n_cells"]),
        "n_classes": int(first["n_classes"]),
        "scores": rounded.to_dict("records"),
    }


def cards_page() -> str:
    """Return ``book/pretrained.md``: what is known of every shipped encoder."""
    lines = [
        "# Pretrained encoders",
        "",
        ":::{admonition} Takeaways",
        ":class: tip",
        "- `simulated-human` and `simulated-yeast` were trained on larger simulated sets of other seeds: no cell of those recipes, nor of",
        "  `hpa-duloc`, which takes the human one, was seen in training.",
        "- `best` was trained on the cells of the human one, not by the paper's method but by what came out first in the comparison of",
        "  notebook 10: contrast between pairs of one protein. Its last layer is the one to take.",
        "- `simulated-yeast-brightfield`, `simulated-yeast-nup49` and `hpa-duloc` (for the recipe `hpa-duloc-tuned`) were trained on the",
        "  cells that they describe, as the paper does: without labels.",
        "- Their training was short beside the paper's (35 million pairs), and the scores below still rose when it was stopped.",
        "- `pci features RECIPE conv4 --scratch` trains on the recipe's own cells instead.",
        "- Each file carries its card; `pci weights show FILE` prints it.",
        ":::",
        "",
        "Scores are balanced accuracies of a kNN classifier (k = 11) on the recipe named, first with only the cell itself left out,",
        "then with its whole image left out, each with a 95 % bootstrap interval over images. Each entry says whether its cells are",
        "simulated.",
    ]
    for path in sorted(pretrained.folder().glob(f"*{SUFFIX}")):
        _, card = pretrained.load_encoder(path)
        lines += ["", *_card_lines(path, card)]
    return "\n".join(lines) + "\n"


def _beyond(training: dict[str, Any]) -> str:
    """Return what of a training is not the paper's way, of its [training]."""
    usual = plain(Training())
    return "".join(f", {k} = {v}" for k, v in training.items() if k not in usual and k != "start")


def _card_lines(path: Path, card: dict[str, Any]) -> list[str]:
    held = card["held_out_losses"]
    lines = [
        f"## {path.stem}",
        "",
        f"- Made by: `{card['command']}`",
        f"- Cells: {card['cells']:,} of {card['images']:,} images{f' and {n:,} proteins' if (n := card.get('proteins')) else ''} "
        f"(recipe `{card['recipe']}`, {'simulated' if card['simulated'] else 'real'})",
        f"- Training: {card['pairs']:,} pairs in {card['epochs']} epochs, width {card['architecture']['width']:g}, "
        f"seed {card['training']['seed']}{_beyond(card['training'])}"
        + (f", {card['seconds'] / 3600:.1f} h on {card['hardware']}" if "seconds" in card else ""),
        *([f"- Began as: `{card['training']['start']}`"] if card["training"].get("start") else []),
        f"- Held-out loss after each epoch: {', '.join(f'{v:.5f}' for v in held)}",
        f"- File: {path.stat().st_size / 1e6:.1f} MB, convolutions in float16; trained weights {card['trained_weights'][:12]}…",
    ]
    knn = card.get("knn")
    if knn:
        lines += [
            "",
            f"kNN on `{knn['recipe']}`, label {knn['label']}: {knn['n_cells']:,} cells of {knn['n_classes']} classes.",
            "",
        ]
        ways = list(dict.fromkeys(row["left_out"] for row in knn["scores"]))
        lines += [f"| left out | {' | '.join(LAYERS)} |", f"|---|{'---|' * len(LAYERS)}"]
        for way in ways:
            entries = {
                r["features"]: f"{r['accuracy']:.3f} ({r['low']:.3f}–{r['high']:.3f})" for r in knn["scores"] if r["left_out"] == way
            }
            lines.append(f"| own {way} | {' | '.join(entries[layer] for layer in LAYERS)} |")
    return lines


if __name__ == "__main__":
    from pci_core.storage import write_text

    write_text("book/pretrained.md", cards_page())
