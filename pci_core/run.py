"""Run: the steps from a recipe to features, each made once, kept under ``runs/<recipe>/`` and reused.

Every step writes to a temporary name and renames; see `pci_core.steps` for when it is made again.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from pci_core import distributed, pretrained, varying
from pci_core import recipe as recipes
from pci_core.analysis.selection import draw_groups, independent_groups, scorable
from pci_core.baselines.compute import PER_CELL, compute
from pci_core.cells import CROPS, TABLE, CellDataset, CellWriter
from pci_core.checkpoint import LOSSES, WEIGHTS, differing, start_from_shorter, state_hash, training_key, with_speeds
from pci_core.data import sources
from pci_core.data.simulate import simulate
from pci_core.data.table import read_field_table
from pci_core.device import choose_device, choose_precision, compile_mode
from pci_core.encoders import LAYERS
from pci_core.errors import AnalysisNeedsError, CheckpointError, DatasetError, RecipeError, StaleError, unknown_name
from pci_core.features import extract, read_features, write_features
from pci_core.feed import MODES
from pci_core.imaging.build import build_cells
from pci_core.names import FeatureName, parse_feature_name
from pci_core.networks import KINDS, Model, build_for
from pci_core.painting import Painted, paint
from pci_core.parallel import on_cluster
from pci_core.pretrained import choice
from pci_core.pretrained.fit import scale_note
from pci_core.provenance import Record, context
from pci_core.reading import read_csv, refusing
from pci_core.recipe import Recipe, plain
from pci_core.steps import Steps
from pci_core.storage import as_file_name, atomic_path, content_hash, file_sha256, temporary_path
from pci_core.train import load_model, train
from pci_core.used import Used
from pci_core.weights import load_safetensors

DATA_PLACE = "data_folder.txt"  # in a run's folder: where the files lay that its cells were made from
BASELINES_CODE = 1  # raise it when a baseline changes what it gives


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
        they make is kept beside the recipe's own, under a name that says so. With any change features
        come from a network trained here; ``{"pretrained": ""}`` asks for that and nothing else.
        ``{"pretrained": "authors-yeast"}``, or a file (see `pci_core.pretrained.find`), takes other weights.
    data : path-like, optional
        Where the source's files lie, instead of ``path`` in [source] of the recipe; a run remembers it.
    sample : int, optional
        Describe and compare about so many cells only, whole images drawn class by class; networks are still
        trained on all. What is made of them is kept beside, under a name that says so.
    vgg16_weights : path-like, optional
        VGG16 weights to use instead of torch's public ImageNet file.
    device, precision, compile : str
        See `pci_core.device`.
    crops : str
        Where crops wait for training and extraction, see `pci_core.feed`.
    jobs : int
        Processes for work per field of view; -1 = all cores.
    dask : str, optional
        Address of a Dask scheduler, e.g. ``"tcp://10.0.0.1:8786"``, whose workers do the work per field of view and per cell
        instead; see `pci_core.parallel.on_cluster`. They must see this run's folder and the images under the same paths.
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
        data: str | os.PathLike[str] | None = None,
        sample: int | None = None,
        vgg16_weights: str | os.PathLike[str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        compile: str = "auto",
        crops: str = "auto",
        jobs: int = -1,
        dask: str | None = None,
        quiet: bool = False,
    ) -> None:
        base = recipe if isinstance(recipe, Recipe) else recipes.load(recipe)
        self.folder = Path(runs or os.environ.get("PCI_RUNS", "runs")) / base.name
        self.folder = self.folder.resolve() if dask else self.folder  # workers start in another folder
        base = sources.located(base, data, self.folder / DATA_PLACE)
        changed = {k: v for k, v in (training or {}).items() if v is not None}
        if changed:
            changed["pretrained"] = pretrained.absolute(changed.get("pretrained", ""))
        self._base, self._changed = base, changed
        self.recipe = base.replace(training=changed) if changed else base
        differ = differing(self.recipe.training, base.training)
        self.variant = "".join(f"+{k}={_in_a_name(k, v)}" for k, v in sorted(differ.items()))
        if sample is not None and sample < 1:
            raise RecipeError(f"a sample of {sample} cells is none; ask for at least 1, or leave it out for all cells.")
        self._label, self.sample = "", sample
        self.vgg16_weights = Path(vgg16_weights) if vgg16_weights else None
        # a wrong name is told now, not after the cells are made
        self.dtype = str(choose_precision(choose_device(device), precision)).removeprefix("torch.")
        compile_mode(choose_device(device), compile)
        if crops not in MODES:
            raise unknown_name("way to hold crops", crops, MODES)
        self.device, self.precision, self.jobs, self.dask = device, precision, jobs, dask
        self.compile, self.crops = compile, crops
        self.quiet = quiet or not distributed.world().is_first  # several processes that work together speak with one voice
        self.steps = Steps(self.folder / "steps")
        self.used = Used(self.folder.parent)

    @property
    def differs(self) -> str:
        """What names of results take on where this run's PCI network is not the recipe's own, e.g. ``+weights=authors-yeast``."""
        return self._suffix(parse_feature_name("conv4"))

    def with_seed(self, seed: int) -> Run:
        """Return the same run with another seed of the training, on its own cells."""
        return self.with_training(seed=seed)

    def with_training(self, **keys: Any) -> Run:
        """Return the same run with other keys of the ``training`` section, on its own cells."""
        return self._again(training={**self._changed, **keys, "pretrained": ""})

    def with_label(self, label: str) -> Run:
        """Return the same run with another column to predict."""
        other = self._again(recipe=replace(self._base, label=label), training=self._changed)
        other._label = f"+label={as_file_name(label)}"  # a column may have any name, a file may not
        return other

    def _again(self, training: dict[str, Any], recipe: Recipe | None = None) -> Run:
        other = Run(recipe or self._base, self.folder.parent, training=training, sample=self.sample, vgg16_weights=self.vgg16_weights,
                   device=self.device, precision=self.precision, compile=self.compile, crops=self.crops, jobs=self.jobs, dask=self.dask,
                   quiet=self.quiet)  # fmt: skip
        other.used = self.used  # what either hands out, the same analysis has used
        return other

    def recording(
        self, parents: Sequence[Path] | None = None, seed: int | None = None, settings: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[None]:
        """Let what is written under the block say that it is of this recipe and was made from these files.

        Parameters
        ----------
        parents : sequence of Path, optional
            By default all files that this run has handed out so far.
        seed : int, optional
        settings : dict, optional
            Plain values, see `pci_core.provenance.Record`.
        """
        known = {k: v for k, v in self._changed.items() if k not in ("pretrained", "start")} | dict(settings or {})
        files = self.used.parents(None if parents is None else parents)
        return context(Record("", "", self._base.name, self._base.identity(), seed=seed, settings=known, parents=files))

    # --- steps

    def cells(self) -> CellDataset:
        """Return the recipe's cells, or the sample of them, made on first use: downloaded, or cropped from fields of view.

        Raises
        ------
        StaleError
            The dataset on disk is not the one that this step wrote.
        """
        everything = self._all_cells()
        if self.sample is None or self.sample >= len(everything):
            self.used.add(everything.folder)
            return everything
        out = self.folder / f"cells{self._sample_suffix}"
        obs, label = everything.table, self.recipe.label
        everything.require(label)
        drawn = draw_groups(obs, label, "image", self.sample)
        inputs = {"dataset": everything.sha256, "label": label, "cells": self.sample}

        def make() -> None:
            own = ("channels", "um_per_px", "cells", "images", "files", "sha256", "provenance")
            more = {k: v for k, v in everything.info.items() if k not in own}
            settings = {"sample": self.sample, "label": label}
            with (
                self.recording([everything.folder], settings=settings),
                CellWriter(out, everything.channels, everything.um_per_px, **more, sample_of=everything.sha256) as writer,
            ):
                for rows in np.array_split(np.flatnonzero(drawn), max(1, int(drawn.sum()) // 1024)):
                    writer.add(everything.read(rows), obs.iloc[rows])

        self.steps.make(out.name, inputs, [out / CROPS, out / TABLE], make)
        self._check_unchanged(out.name, out)
        self.used.add(out)
        return CellDataset(out)

    @property
    def _sample_suffix(self) -> str:
        return f"+cells={self.sample}{self._label}" if self.sample else ""  # another label draws other images

    def made_from(self) -> str:
        """Return a hash of what the cells are made from as it is now, without making them: recipe, code, field table, files."""
        return content_hash(sources.inputs(self.recipe)[0])

    def _all_cells(self) -> CellDataset:
        out = self.folder / "cells"
        inputs, fields = sources.inputs(self.recipe)
        ready = self.recipe.source.kind in sources.READY
        came = {"source": self.recipe.source.kind}

        def make() -> None:
            if ready:
                with self.recording([], settings=came):
                    sources.ready_cells(self.recipe, out, progress=not self.quiet)
                sources.remember(self.recipe, self.folder / DATA_PLACE)
            elif fields is not None:
                table_file = [self.recipe.source_path] if self.recipe.source_path.is_file() else []
                with (
                    on_cluster(self.dask, self.folder, _first_image(*fields), quiet=self.quiet),
                    self.recording(table_file, settings=came),
                ):
                    build_cells(*fields, self.recipe, out, jobs=self.jobs, progress=not self.quiet)
                sources.remember(self.recipe, self.folder / DATA_PLACE)
            else:
                table, root = self.fields()
                truth = pd.read_parquet(root / "truth.parquet")
                with (
                    on_cluster(self.dask, self.folder, _first_image(table, root), quiet=self.quiet),
                    self.recording([root / "fields.csv", root / "truth.parquet"], self.recipe.source.seed, came),
                ):
                    build_cells(table, root, self.recipe, out, truth=truth, jobs=self.jobs, progress=not self.quiet)

        self.steps.make("cells", inputs, [out / CROPS, out / TABLE], make)
        self._check_unchanged("cells", out)
        return CellDataset(out)

    def fields(self) -> tuple[pd.DataFrame, Path]:
        """Return the table of the fields of view and the folder its paths start from.

        Simulated ones are drawn on first use. Sources of ready crops have none.
        """
        if self.recipe.source.kind in sources.READY:
            raise unknown_name("step", "fields", ["cells", "model", "features"])
        if self.recipe.source.kind in sources.TABLES:
            return sources.field_table(self.recipe)
        out = self.folder / "fields"

        def make() -> None:
            with on_cluster(self.dask, self.folder, quiet=self.quiet), atomic_path(out, folder=True) as temporary:
                simulate(self.recipe.source, temporary, jobs=self.jobs, progress=not self.quiet)

        inputs = {"recipe": self.recipe.section_hash("source"), "code": sources.CODE["simulate"]}
        self.steps.make("fields", inputs, [out / "fields.csv", out / "truth.parquet"], make)
        self.used.add(out / "fields.csv")
        return read_field_table(out / "fields.csv", self.recipe)

    def model(self, kind: str = "pci") -> Model:
        """Return a network, trained on first use (or on from a shorter training) unless the recipe or `training` names a whole one.

        Shipped weights are encoders alone; where such are named, a network is trained.

        Raises
        ------
        CheckpointError
            The file named holds an encoder alone, or is of other channels or another rescaling.
        """
        given = self._weights(kind, shipped=False)
        if given:
            self.used.add(given.path)
            return pretrained.load_network(given, self.recipe)
        return load_model(self.train(kind) / WEIGHTS)[0]

    def train(self, kind: str = "pci") -> Path:
        """Train a network if it is not there yet; return its folder."""
        if kind not in KINDS:
            raise unknown_name("model", kind, KINDS)
        dataset = self._all_cells()
        out = self.folder / "models" / f"{kind}{self.variant}"
        fixed: dict[str, Any] = {"name": kind, "dataset": dataset.sha256, "preprocess": asdict(self.recipe.preprocess)}
        fixed["training"] = training_key(self.recipe.training)
        start = distributed.world().first_then_all(lambda: choice.start_of(self.recipe, kind, progress=not self.quiet))
        fixed |= {"start": state_hash(start)} if start else {}
        out_of = varying.left_out(self, kind)
        fixed |= {"left_out_varying": out_of.names} if out_of else {}
        inputs = {**fixed, "epochs": self.recipe.training.epochs}

        def make() -> None:
            # named by what it is made from, so that a cut training is found again and never mixed with another
            cut = {**fixed, "precision": self.dtype}
            work = out.parent / f".training-{kind}-{content_hash(cut)[:12]}"
            world = distributed.world()
            with world.holding(lambda: self.steps.locked(work.name)):  # the same with more epochs works in the same folder
                world.first(lambda: start_from_shorter(work, cut, self.recipe.training.epochs))
                parents = [dataset.folder, *([out_of.features] if out_of else [])]
                with self.recording(parents, settings={"start": Path(self.recipe.training.start).name} if start else {}):
                    train(dataset, self.recipe, work, kind=kind, device=self.device, precision=self.precision, data=self.crops,
                          compile=self.compile, quiet=self.quiet, start=start, leave_out=out_of.numbers if out_of else None)  # fmt: skip
                world.first(lambda: _move(work, out))

        self.steps.make(f"models/{out.name}", inputs, [out / WEIGHTS], make, together=True)
        self.used.add(out / WEIGHTS)
        return out

    def features(self, names: str | Sequence[str] = LAYERS) -> dict[str, anndata.AnnData]:
        """Return feature sets by name, made on first use; layers of one network in one pass.

        Parameters
        ----------
        names : str or sequence of str
            See `pci_core.names.feature_names`.
        """
        paths = self.feature_files(names)
        dataset = self.cells()
        return {name: read_features(path, dataset, whole=True) for name, path in paths.items()}

    def feature_files(self, names: str | Sequence[str] = LAYERS) -> dict[str, Path]:
        """Make feature sets where needed and return their ``.h5ad`` files."""
        wanted = {name: parse_feature_name(name) for name in ([names] if isinstance(names, str) else names)}
        paths = {name: self.folder / "features" / f"{name}{self._suffix(parsed)}.h5ad" for name, parsed in wanted.items()}
        together: dict[tuple[str, str], list[str]] = {}
        for name, parsed in wanted.items():
            together.setdefault((parsed.family, parsed.pooling), []).append(name)
        for (family, pooling), group in together.items():
            if wanted[group[0]].is_network:
                self._network_features(family, pooling, {wanted[n].layer: paths[n] for n in group})
            else:
                self._baseline_features({n: paths[n] for n in group})
        for path in paths.values():
            if self.steps.changed(f"features/{path.stem}", [path]):
                raise StaleError(
                    f"{path} is not what this run wrote: it was damaged, or changed by hand or by another program. Put it back, or delete "
                    "it and run 'pci features' again."
                )
            self.used.add(path)
        return paths

    def paint(self, sources: np.ndarray, targets: np.ndarray, kind: str = "pci") -> Painted:
        """Paint the protein of each source cell into its target cell, see `pci_core.painting.paint`.

        Raises
        ------
        AnalysisNeedsError
            The recipe's network does not paint.
        """
        if kind == "pci" and not self.recipe.training.paints and not self.recipe.training.pretrained:
            raise AnalysisNeedsError(
                f"'{self.recipe.training.pretext}' paints nothing. A network that does is trained with [training] pretext = 'inpainting' "
                "(or --set pretext=inpainting)."
            )
        return paint(self.model(kind), self.cells(), sources, targets, self.recipe.preprocess, device=self.device)

    def card(self, kind: str = "pci") -> dict[str, Any]:
        """Return what is known of the network of `model`: architecture, pairs, seconds, losses, hardware, versions."""
        given = self._weights(kind, shipped=False)
        card = load_safetensors(given.path if given else self.train(kind) / WEIGHTS)[1]
        return {"seconds": math.nan, "hardware": "unknown hardware", **card}  # where the log that lay beside the file is gone

    def losses(self, kind: str = "pci") -> pd.DataFrame:
        """Return the training curve, one row an epoch: train and held-out loss, pairs/s, share of waiting."""
        if given := self._weights(kind, shipped=False):
            raise CheckpointError(
                f"the training curve of {given.name} is not in its file. Leave it out (--scratch) for one of these cells."
            )
        folder = self.train(kind)
        with refusing(folder / LOSSES, DatasetError, "is no readable training curve", f"Delete {folder} and train again."):
            rows = read_csv(folder / LOSSES).astype("float64").astype({"epoch": "int64"}).to_dict("records")
        return pd.DataFrame(with_speeds(folder, rows))

    # --- how steps are made

    def _suffix(self, name: FeatureName) -> str:
        """Return what is added to a feature set's name: how its network differs from the recipe's own."""
        training = self.variant if name.is_network or name.family == "supervised" else ""
        other = self._label if name.family == "supervised" and not self.sample else ""
        if name.family in KINDS:
            other = choice.suffix(self.recipe, self._base, name.family, "" if self.variant else "+scratch")
        return training + other + self._sample_suffix

    def _network_features(self, kind: str, pooling: str, paths: dict[str, Path]) -> None:
        spec = self.recipe.training
        given = None if kind == "untrained" else self._weights(kind)
        loaded = pretrained.load_fitting(given.path, given.name, self.recipe) if given else None  # told before any cell is made
        dataset = self.cells()
        path = given.path if given else None if kind == "untrained" else self.train(kind) / WEIGHTS
        facts: dict[str, Any] = {"model": kind, "recipe": self.recipe.name, "simulated": self.recipe.simulated}
        facts["weights"] = (
            f"Glorot, seed {spec.seed}, width {spec.width:g}" if path is None else given.sha256 if given else file_sha256(path)
        )
        facts |= {"pretrained": given.name} if given else {}
        inputs = {**facts, "dataset": dataset.sha256, "pooling": pooling, "preprocess": asdict(self.recipe.preprocess)}
        inputs |= {"converted": given.converted} if given and given.converted else {}
        inputs |= {"precision": self.precision} if self.precision != "auto" else {}
        inputs |= {"compile": self.compile} if self.compile in ("on", "graphs") else {}
        built = loaded[1]["architecture"] if loaded else plain(spec)  # at their default, these keys are in neither
        inputs |= {k: built[k] for k in ("pretext", "encoder") if k in built and kind != "autoencoder"}
        facts |= {"pretext": built.get("pretext", "inpainting"), "encoder": built.get("encoder", "paper")} if kind == "pci" else {}
        steps = {f"features/{p.stem}": (layer, p) for layer, p in paths.items()}

        def make(todo: list[str]) -> None:
            network = loaded or (pretrained.load_fitting(path, kind, self.recipe) if path else None)
            encoder = network[0] if network else build_for("pci", dataset.n_protein, dataset.n_structural, spec).source
            note = scale_note(loaded[1], given.name, dataset.um_per_px, dataset.crops.shape[-1]) if loaded and given else ""
            if note and not self.quiet:
                print(f"Note: {note}")
            with self.recording([dataset.folder, *([path] if path else [])], None if path else spec.seed):
                extract(dataset, encoder, dict(steps[name] for name in todo), self.recipe.preprocess,
                        facts | {"weights_note": note or None}, pooling=pooling, device=self.device, precision=self.precision,
                        data=self.crops, compile=self.compile, quiet=self.quiet,
                        prefix=kind if facts.get("pretext", "inpainting") == "inpainting" else facts["pretext"])  # fmt: skip

        self.steps.make_all({name: [p] for name, (_, p) in steps.items()}, inputs, make, kind, together=True)

    def _baseline_features(self, paths: dict[str, Path]) -> None:
        dataset, recipe = self.cells(), self.recipe
        family = parse_feature_name(next(iter(paths))).family
        facts = {"recipe": recipe.name, "simulated": recipe.simulated}
        inputs: dict[str, Any] = {**facts, "dataset": dataset.sha256, "preprocess": asdict(recipe.preprocess), "code": BASELINES_CODE}
        group = ""
        if family == "supervised":
            dataset.require(recipe.label)
            group = recipe.group or independent_groups(dataset.table[scorable(dataset.table, recipe.label)], recipe.label)
            inputs |= {"label": recipe.label, "group": group, "seed": recipe.training.seed}
        if family == "vgg16":
            inputs["weights"] = file_sha256(self.vgg16_weights) if self.vgg16_weights else "ImageNet"
        if family == "provided":
            inputs["provided"] = dataset.info.get("provided", "")
        steps = {f"features/{p.stem}": (name, p) for name, p in paths.items()}

        def make(todo: list[str]) -> None:
            with on_cluster(self.dask if family in PER_CELL else None, self.folder, dataset.folder / CROPS, quiet=self.quiet):
                made = compute([steps[step][0] for step in todo], dataset, recipe, group, vgg16_weights=self.vgg16_weights,
                               device=self.device, precision=self.precision, jobs=self.jobs, quiet=self.quiet)  # fmt: skip
            files = [self.vgg16_weights] if family == "vgg16" and self.vgg16_weights else []
            with self.recording([dataset.folder, *files], recipe.training.seed if family == "supervised" else None):
                for name, measured in made.items():
                    write_features(dataset, measured, paths[name], facts)

        self.steps.make_all({step: [p] for step, (_, p) in steps.items()}, inputs, make, family)

    def _weights(self, kind: str, shipped: bool = True) -> pretrained.Weights | None:
        def find() -> pretrained.Weights | None:  # may download them
            return choice.weights_of(self.recipe, kind, shipped=shipped, progress=not self.quiet)

        return distributed.world().first_then_all(find)

    def _check_unchanged(self, name: str, folder: Path) -> None:
        """Compare size and time of the files with the stamp; only where they differ, their hashes."""
        stamp = self.steps.stamp(name)
        assert stamp is not None  # the step has just made or found it
        seen = stamp.get("files")
        for file in (CROPS, TABLE):
            stat = (folder / file).stat()
            known = seen.get(file) if isinstance(seen, dict) else None
            if [stat.st_size, stat.st_mtime_ns] != known and file_sha256(folder / file) != CellDataset(folder).info["files"][file]:
                raise StaleError(
                    f"{folder / file} is not what this run wrote: it was changed by hand or by another program, and the features "
                    f"were made from the old one. Put it back, or delete {folder} and run 'pci cells' again."
                )


def _in_a_name(key: str, value: Any) -> Any:
    """Return a training's key as a file's name may hold it: a column may have any name, and weights may lie in a folder."""
    return as_file_name(Path(value).stem if key == "start" else value) if isinstance(value, str) else value


def _first_image(table: pd.DataFrame, root: Path) -> Path | None:
    columns = [c for c in table if c == "path" or c.startswith("path_")]
    name = next((str(v) for c in columns for v in table[c].head(1) if v), None)
    return root / name if name else None


def _move(work: Path, out: Path) -> None:
    with atomic_path(out, folder=True) as temporary:
        shutil.copytree(work, temporary, dirs_exist_ok=True)  # a copy: moved and killed, hours of training would be a leftover
    old = temporary_path(work)
    os.rename(work, old)  # at once: half removed it would be taken for a training that was cut
    shutil.rmtree(old)
