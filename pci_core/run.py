"""Run: the steps from a recipe to features, each made once, kept under ``runs/<recipe>/`` and reused.

Every step writes to a temporary name and renames, keeps the hash of what it was made from
(``steps/<name>.json``), is skipped while that is unchanged and made again when it is not. Two
processes that want the same step wait for one another.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from pci_core import recipe as recipes
from pci_core.baselines.pixels import pixels
from pci_core.cells import CROPS, TABLE, CellDataset
from pci_core.data.authors import toy_cells
from pci_core.data.duloc import duloc_cells
from pci_core.data.simulate import simulate
from pci_core.data.table import read_field_table
from pci_core.device import choose_device, choose_precision
from pci_core.errors import CheckpointError, StaleError, unknown_name
from pci_core.features import check_channels, extract, read_features, write_features
from pci_core.imaging.build import build_cells
from pci_core.model import KINDS, LAYERS, Model, build
from pci_core.painting import Painted, paint
from pci_core.recipe import Recipe
from pci_core.storage import as_storage_error, atomic_path, content_hash, file_sha256, locked, sweep_temporaries, write_json
from pci_core.train import CHECKPOINT, LOSSES, WEIGHTS, load_model, train
from pci_core.weights import load_safetensors

CELLS_CODE = 1  # raise it when simulation, segmentation or cropping change what they give
_NAME = re.compile(r"(?:(untrained|autoencoder)_)?(conv[1-5])(?:_(mean))?")


@dataclass(frozen=True)
class FeatureName:
    """A feature set's name taken apart, e.g. ``autoencoder_conv3_mean``."""

    model: str  # "pci", "untrained", "autoencoder" or "" where no network is involved
    layer: str
    pooling: str


def parse_feature_name(name: str) -> FeatureName:
    """Take a feature set's name apart.

    Raises
    ------
    UnknownNameError
        With the nearest names there are.
    """
    if name == "pixels":
        return FeatureName("", "", "mean")
    match = _NAME.fullmatch(name)
    if match is None:
        raise unknown_name("feature set", name, feature_names())
    return FeatureName(match[1] or "pci", match[2], match[3] or "max")


def feature_names() -> list[str]:
    """Return the names of all feature sets (each layer also with ``_mean`` behind it)."""
    return [*LAYERS, *(f"{m}_{layer}" for m in ("untrained", "autoencoder") for layer in LAYERS), "pixels"]


class Run:
    """One recipe on one machine.

    Parameters
    ----------
    recipe : str, path-like or Recipe
        Name of an embedded recipe, path of a TOML file, or a recipe.
    runs : path-like, optional
        Folder of all runs; ``PCI_RUNS`` or ``runs`` by default.
    training : dict, optional
        Keys of the recipe's ``training`` section to change, e.g. ``{"epochs": 3, "seed": 1}``. What
        they make is kept beside the recipe's own, under a name that says so.
    device, precision : str
        See `pci_core.device`.
    jobs : int
        Processes for work per field of view; -1 = all cores.
    quiet : bool
        No progress bars and no printed lines.

    Attributes
    ----------
    folder : Path
        ``runs/<recipe>``.
    recipe : Recipe
    """

    def __init__(
        self,
        recipe: str | os.PathLike[str] | Recipe,
        runs: str | os.PathLike[str] | None = None,
        *,
        training: dict[str, Any] | None = None,
        device: str = "auto",
        precision: str = "auto",
        jobs: int = -1,
        quiet: bool = False,
    ) -> None:
        base = recipe if isinstance(recipe, Recipe) else recipes.load(recipe)
        changed = {k: v for k, v in (training or {}).items() if v is not None}
        self.recipe = base.replace(training=changed) if changed else base
        differ = {k: v for k, v in asdict(self.recipe.training).items() if v != getattr(base.training, k)}
        self.variant = "".join(f"+{k}={v}" for k, v in sorted(differ.items()))
        self.folder = Path(runs or os.environ.get("PCI_RUNS", "runs")) / base.name
        # a wrong name is told now, not after the cells are made
        self.dtype = str(choose_precision(choose_device(device), precision)).removeprefix("torch.")
        self.device, self.precision, self.jobs, self.quiet = device, precision, jobs, quiet

    # --- steps

    def cells(self) -> CellDataset:
        """Return the recipe's cells, made on first use: downloaded, or cropped from fields of view.

        Raises
        ------
        StaleError
            The dataset on disk is not the one that this step wrote.
        """
        out = self.folder / "cells"
        inputs: dict[str, Any] = {
            "recipe": self.recipe.section_hash("channels", "source", "fields", "segmentation", "crop"),
            "code": CELLS_CODE,
        }
        fields = self._field_table() if self.recipe.source.kind == "table" else None
        if fields is not None:
            inputs["fields"] = _table_hash(*fields)

        def make() -> None:
            if self.recipe.source.kind == "authors":
                toy_cells(self.recipe.source.subset, self.recipe, out, progress=not self.quiet)
            elif self.recipe.source.kind == "duloc":
                duloc_cells(self.recipe, out, progress=not self.quiet)
            elif fields is not None:
                build_cells(*fields, self.recipe, out, jobs=self.jobs, progress=not self.quiet)
            else:
                table, root = self.fields()
                truth = pd.read_parquet(root / "truth.parquet")
                build_cells(table, root, self.recipe, out, truth=truth, jobs=self.jobs, progress=not self.quiet)

        self._step("cells", inputs, [out / CROPS, out / TABLE], make)
        self._check_unchanged("cells", out)
        return CellDataset(out)

    def fields(self) -> tuple[pd.DataFrame, Path]:
        """Return the table of the fields of view and the folder its paths start from.

        Simulated ones are drawn on first use. The toy sets and hpa-duloc hold crops only, so there are none.
        """
        if self.recipe.source.kind in ("authors", "duloc"):
            raise unknown_name("step", "fields", ["cells", "model", "features"])
        if self.recipe.source.kind == "table":
            return self._field_table()
        out = self.folder / "fields"

        def make() -> None:
            with atomic_path(out, folder=True) as temporary:
                simulate(self.recipe.source, temporary, jobs=self.jobs, progress=not self.quiet)

        self._step(
            "fields", {"recipe": self.recipe.section_hash("source"), "code": CELLS_CODE}, [out / "fields.csv", out / "truth.parquet"], make
        )
        return read_field_table(out / "fields.csv", self.recipe)

    def model(self, kind: str = "pci") -> Model:
        """Return a trained network of the recipe, trained on first use (or on from a shorter training)."""
        model, _ = load_model(self.train(kind) / WEIGHTS)
        return model

    def train(self, kind: str = "pci") -> Path:
        """Train a network if it is not there yet; return its folder."""
        if kind not in KINDS:
            raise unknown_name("model", kind, KINDS)
        dataset = self.cells()
        out = self.folder / "models" / f"{kind}{self.variant}"
        fixed: dict[str, Any] = {"name": kind, "dataset": dataset.sha256, "preprocess": asdict(self.recipe.preprocess)}
        fixed["training"] = {k: v for k, v in asdict(self.recipe.training).items() if k != "epochs"}
        inputs = {**fixed, "epochs": self.recipe.training.epochs}

        def make() -> None:
            # named by what it is made from, so that a cut training is found again and never mixed with another
            cut = {**fixed, "precision": self.dtype}
            work = out.parent / f".training-{kind}-{content_hash(cut)[:12]}"
            with locked(self.folder / "steps" / f"{work.name}.lock"):  # the same with more epochs works in the same folder
                with as_storage_error(work):
                    work.mkdir(parents=True, exist_ok=True)
                self._start_from_shorter(work, cut)
                train(dataset, self.recipe, work, kind=kind, device=self.device, precision=self.precision, quiet=self.quiet)
                with atomic_path(out, folder=True) as temporary:
                    shutil.copytree(work, temporary, dirs_exist_ok=True)
                shutil.rmtree(work)

        self._step(f"models/{out.name}", inputs, [out / WEIGHTS], make)
        return out

    def features(self, names: str | Sequence[str] = LAYERS) -> dict[str, anndata.AnnData]:
        """Return feature sets by name, made on first use; layers of one network in one pass.

        Parameters
        ----------
        names : str or sequence of str
            ``conv1`` … ``conv5``, with ``untrained_`` or ``autoencoder_`` before, ``_mean`` behind; ``pixels``.
        """
        paths = self.feature_files(names)
        dataset = self.cells()
        return {name: read_features(path, dataset) for name, path in paths.items()}

    def feature_files(self, names: str | Sequence[str] = LAYERS) -> dict[str, Path]:
        """Make feature sets where needed and return their ``.h5ad`` files."""
        wanted = {name: parse_feature_name(name) for name in ([names] if isinstance(names, str) else names)}
        paths = {name: self.folder / "features" / f"{name}{self.variant if parsed.model else ''}.h5ad" for name, parsed in wanted.items()}
        together: dict[tuple[str, str], list[str]] = {}
        for name, parsed in wanted.items():
            together.setdefault((parsed.model, parsed.pooling), []).append(name)
        for (model, pooling), group in together.items():
            if model:
                self._network_features(model, pooling, {wanted[n].layer: paths[n] for n in group})
            else:
                self._pixel_features(paths[group[0]])
        return paths

    def paint(self, sources: np.ndarray, targets: np.ndarray, kind: str = "pci") -> Painted:
        """Paint the protein of each source cell into its target cell, see `pci_core.painting.paint`."""
        return paint(self.model(kind), self.cells(), sources, targets, self.recipe.preprocess, device=self.device)

    def card(self, kind: str = "pci") -> dict[str, Any]:
        """Return what is known of a trained network: architecture, pairs, seconds, losses, hardware, versions."""
        return load_safetensors(self.train(kind) / WEIGHTS)[1]

    def losses(self, kind: str = "pci") -> pd.DataFrame:
        """Return the training curve, one row an epoch: train and held-out loss, pairs/s, share of waiting."""
        return pd.read_csv(self.train(kind) / LOSSES)

    # --- how steps are made

    def _network_features(self, kind: str, pooling: str, paths: dict[str, Path]) -> None:
        dataset, spec = self.cells(), self.recipe.training
        untrained = kind == "untrained"
        weights = None if untrained else self.train(kind) / WEIGHTS
        facts: dict[str, Any] = {"model": kind, "recipe": self.recipe.name, "simulated": self.recipe.simulated}
        facts["weights"] = f"Glorot, seed {spec.seed}, width {spec.width:g}" if weights is None else file_sha256(weights)
        inputs = {**facts, "dataset": dataset.sha256, "pooling": pooling, "preprocess": asdict(self.recipe.preprocess)}
        if self.precision != "auto":
            inputs["precision"] = self.precision
        todo = {layer: p for layer, p in paths.items() if not self._made(f"features/{p.stem}", inputs, [p])}
        if not todo:
            return

        def make() -> None:
            if weights is None:
                model, trained = build("pci", dataset.n_protein, dataset.n_structural, spec.width, seed=spec.seed), None
            else:
                model, card = load_model(weights)
                trained = [c["name"] for c in card["channels"]]
            check_channels(dataset, model.source, trained, kind)
            extract(dataset, model.source, todo, self.recipe.preprocess, facts, pooling=pooling, device=self.device,
                    precision=self.precision, quiet=self.quiet, prefix=kind)  # fmt: skip

        with locked(self.folder / "steps" / f"{kind}.lock"):
            todo = {layer: p for layer, p in todo.items() if not self._made(f"features/{p.stem}", inputs, [p])}
            if todo:
                self._clean(next(iter(todo.values())).parent)
                make()
                for path in todo.values():
                    self._stamp(f"features/{path.stem}", inputs, [path])

    def _pixel_features(self, path: Path) -> None:
        dataset = self.cells()
        inputs = {"dataset": dataset.sha256, "preprocess": asdict(self.recipe.preprocess)}
        facts = {"recipe": self.recipe.name, "simulated": self.recipe.simulated}
        self._step(
            f"features/{path.stem}", inputs, [path], lambda: write_features(dataset, pixels(dataset, self.recipe.preprocess), path, facts)
        )

    def _start_from_shorter(self, work: Path, fixed: dict[str, Any]) -> None:
        """Take over the checkpoint of a training that differs at most by fewer epochs: the result is the same."""
        if (work / CHECKPOINT).exists():
            return
        best: tuple[int, Path] | None = None
        for checkpoint in work.parent.glob(f"*/{CHECKPOINT}"):
            try:
                _, card = load_safetensors(checkpoint.with_name(WEIGHTS))
            except CheckpointError:
                continue  # a training that is not finished has no card
            if {k: card.get(k) for k in fixed} == fixed and card["epochs"] <= self.recipe.training.epochs:
                best = max(best or (0, checkpoint), (card["epochs"], checkpoint))
        if best:
            with atomic_path(work / CHECKPOINT) as temporary:
                shutil.copyfile(best[1], temporary)

    def _field_table(self) -> tuple[pd.DataFrame, Path]:
        return read_field_table((self.recipe.folder or Path()) / self.recipe.source.path, self.recipe)

    def _step(self, name: str, inputs: dict[str, Any], files: list[Path], make: Callable[[], None]) -> None:
        if self._made(name, inputs, files):
            return
        with locked(self.folder / "steps" / f"{name}.lock"):
            if not self._made(name, inputs, files):  # another process may have made it while we waited
                self._clean(files[0].parent.parent)
                make()
                self._stamp(name, inputs, files)

    def _clean(self, folder: Path) -> None:
        for path in sweep_temporaries(folder):
            print(f"removed what a killed process left: {path}", file=sys.stderr)

    def _made(self, name: str, inputs: dict[str, Any], files: Iterable[Path]) -> bool:
        stamp = self._read_stamp(name)
        return stamp is not None and stamp["made_from"] == content_hash(inputs) and all(f.exists() for f in files)

    def _read_stamp(self, name: str) -> dict[str, Any] | None:
        try:
            return dict(json.loads((self.folder / "steps" / f"{name}.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):  # the lock will say what is wrong with the folder
            return None

    def _stamp(self, name: str, inputs: dict[str, Any], files: list[Path]) -> None:
        seen = {f.name: [f.stat().st_size, f.stat().st_mtime_ns] for f in files}
        content = {
            "made_from": content_hash(inputs),
            "inputs": inputs,
            "files": seen,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        write_json(self.folder / "steps" / f"{name}.json", content)

    def _check_unchanged(self, name: str, folder: Path) -> None:
        """Compare size and time of the files with the stamp; only where they differ, their hashes."""
        stamp = self._read_stamp(name)
        assert stamp is not None  # _step has just made or found it
        for file, seen in stamp["files"].items():
            stat = (folder / file).stat()
            if [stat.st_size, stat.st_mtime_ns] != seen and file_sha256(folder / file) != CellDataset(folder).info["files"][file]:
                raise StaleError(
                    f"{folder / file} is not what this run wrote: it was changed by hand or by another program, and the features "
                    f"were made from the old one. Put it back, or delete {folder} and run 'pci cells' again."
                )


def _table_hash(table: pd.DataFrame, root: Path) -> str:
    files = []
    for column in (c for c in table if c == "path" or c == "labels" or c.startswith("path_")):
        for name in table[column]:
            if name:
                stat = (root / name).stat()
                files.append([name, stat.st_size, stat.st_mtime_ns])
    return content_hash([table.to_dict("list"), files])
