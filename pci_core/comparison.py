"""Every rival on the same cells: gather feature sets of a run by name, score them, keep tables of scores and costs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anndata
import pandas as pd

from pci_core import pretrained
from pci_core.analysis.benchmark import CLASSIFIERS, KS, benchmark
from pci_core.analysis.join import left_out_by_reading, read_table
from pci_core.analysis.paper import PAPER_K, paper_figure
from pci_core.analysis.result import Benchmark, save_table
from pci_core.encoders import LAYERS
from pci_core.errors import CheckpointError, DownloadError, RecipeError, WeightsUnavailableError
from pci_core.logs import MEASURED, write_log
from pci_core.names import parse_feature_name
from pci_core.run import Run

DEFAULT_SETS = (
    *LAYERS, *(f"untrained_{layer}" for layer in LAYERS), *(f"autoencoder_{layer}" for layer in LAYERS),
    "pixels", "classic", "designed", "cellprofiler", "vgg16_block4_conv1_protein", "supervised",
)  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """What a comparison found.

    Attributes
    ----------
    benchmark : Benchmark
        Scores, recalls by class, confusion matrices, what was left out.
    sets : DataFrame
        One row a feature set: ``features, n_features, n_cells, cells_per_second, seconds, hardware, note``;
        `note` says why a set is missing.
    feature_sets : dict of str to AnnData
        By name; of several seeds the first.
    """

    benchmark: Benchmark
    sets: pd.DataFrame
    feature_sets: dict[str, anndata.AnnData]


def gather(run: Run, names: Sequence[str], seeds: Sequence[int] = ()) -> tuple[dict[str, list[anndata.AnnData]], dict[str, str]]:
    """Make feature sets where needed; with several seeds, one of each training.

    Parameters
    ----------
    run : Run
    names : sequence of str
        See `pci_core.names.feature_names`.
    seeds : sequence of int
        Seeds of the training: each trains on the run's own cells. Empty: the run as it is.

    Returns
    -------
    found : dict of str to list of AnnData
    missing : dict of str to str
        Names of sets whose weights could not be had, and why.
    """
    found: dict[str, list[anndata.AnnData]] = {name: [] for name in names}
    missing: dict[str, str] = {}
    with_seed = [n for n in names if parse_feature_name(n).is_network or n == "supervised"]
    for runner in [run.with_seed(s) for s in seeds] or [run]:
        wanted = list(names) if runner is run else with_seed
        for name, adata in _available(runner, wanted, missing).items():
            found[name].append(adata)
    if seeds:  # the sets that no seed changes
        for name, adata in _available(run, [n for n in names if n not in with_seed], missing).items():
            found[name].append(adata)
    return {name: sets for name, sets in found.items() if sets}, missing


def _available(run: Run, names: Sequence[str], missing: dict[str, str]) -> dict[str, anndata.AnnData]:
    vgg16 = [n for n in names if parse_feature_name(n).family == "vgg16"]
    out = run.features([n for n in names if n not in vgg16])
    try:
        out |= run.features(vgg16)
    except WeightsUnavailableError as error:
        missing.update(dict.fromkeys(vgg16, str(error)))
    return out


def compare(
    run: Run,
    names: Sequence[str] = DEFAULT_SETS,
    *,
    label: str | None = None,
    tables: Mapping[str, str | os.PathLike[str]] | None = None,
    classifiers: Sequence[str] = CLASSIFIERS,
    ks: Sequence[int] = KS,
    leave_out_protein: bool = False,
    seeds: Sequence[int] = (),
    stem: str = "benchmark",
) -> Compared:
    """Score feature sets of the same cells and keep the tables in the run's folder.

    Parameters
    ----------
    run : Run
    names : sequence of str
        Feature sets to make and compare.
    label : str, optional
        Column to predict; the recipe's by default.
    tables : mapping of str to path-like, optional
        A user's own feature tables by name, see `pci_core.analysis.join.read_table`.
    classifiers, ks, leave_out_protein
        See `pci_core.analysis.benchmark.benchmark`.
    seeds : sequence of int
        See `gather`.
    stem : str
        Of the files in ``tables/``.

    Returns
    -------
    Compared

    Raises
    ------
    RecipeError
        No feature set is left to compare.
    """
    label = label or run.recipe.label
    runner = run if label == run.recipe.label else run.with_label(label)
    runner.cells().require(label)  # told now, before hours of work
    if names is DEFAULT_SETS and isinstance(runner.cells().info.get("provided"), dict):
        names = (*names, "provided")  # measurements that came with the cells, as the paper compared with
    own = {name: read_table(path) for name, path in (tables or {}).items()}
    found, missing = gather(runner, names, seeds)
    told = [f"{name} is left out: {why}" for name, why in missing.items()]
    told += [f"{name}: {text}" for name, adata in own.items() if (text := left_out_by_reading(adata))]
    if told and not run.quiet:
        print("\n".join(told), file=sys.stderr)
    sets: dict[str, anndata.AnnData | list[anndata.AnnData]] = {n: s if len(s) > 1 else s[0] for n, s in found.items()}
    if not sets and not own:
        raise RecipeError(f"no feature set to compare: {'; '.join(f'{n}: {w}' for n, w in missing.items()) or 'none was named'}.")
    scored = benchmark(
        {**sets, **own}, label, group=run.recipe.group, ks=ks, classifiers=classifiers, leave_out_protein=leave_out_protein,
        jobs=run.jobs, quiet=run.quiet,
    )  # fmt: skip
    costs = pd.DataFrame([_cost(n, s[0]) for n, s in found.items()] + [_cost(n, a) for n, a in own.items()])
    absent = pd.DataFrame({"features": list(missing), "note": list(missing.values())})
    table = pd.concat([costs, absent], ignore_index=True)
    speeds = [c for c in table if c in MEASURED]
    kept = run.folder / "tables" / f"{stem}_sets.parquet"
    for path in (tables or {}).values():
        runner.used.add(Path(path))
    settings = {"label": label, "seeds": list(seeds), "leave_out_protein": leave_out_protein}
    with runner.recording(seed=scored.settings["seed"], settings=settings):
        scored.save(run.folder / "tables", stem)
        save_table(table.drop(columns=speeds), run.folder / "tables" / f"{stem}_sets")
    write_log(kept, {"sets": table[["features", *speeds]].dropna().to_dict("records")})
    return Compared(scored, table, {**{n: s[0] for n, s in found.items()}, **own})


def _cost(name: str, adata: anndata.AnnData) -> dict[str, object]:
    facts = adata.uns.get("pci", {})
    row: dict[str, object] = {"features": name, "n_features": adata.n_vars, "n_cells": adata.n_obs}
    note = left_out_by_reading(adata) or facts.get("note", "")
    return row | {k: facts.get(k) for k in ("cells_per_second", "seconds", "hardware")} | {"note": note}


def paper_figures(names: Iterable[str], classifier: str = "knn", k: int = PAPER_K) -> dict[str, float]:
    """Return the paper's figures for those of the named feature sets that it has."""
    found = {name: paper_figure(name, classifier, k) for name in names}
    return {name: value for name, value in found.items() if value == value}


def parse_table(text: str) -> tuple[str, Path]:
    """Take ``name=path`` or a path alone apart; the name of a path alone is its stem."""
    name, sign, path = text.partition("=")
    return (name, Path(path)) if sign else (Path(text).stem, Path(text))


def summary(found: Compared, run: Run) -> str:
    """Return the comparison as a table of text, best leak-free kNN first, and what was left out."""
    scores, settings = found.benchmark.scores, found.benchmark.settings
    k = settings["confusion_k"]
    first = scores.iloc[0]
    ways = list(dict.fromkeys(scores["left_out"]))
    ways.sort(key=lambda w: w == "cell")
    lines = [
        f"{run.recipe.name} ({'SIMULATED cells' if run.recipe.simulated else 'real cells'}): {first['n_cells']:,} cells, "
        f"{first['n_classes']} classes of '{settings['label']}', {first['n_groups']:,} of '{settings['group']}'; "
        f"chance {1 / first['n_classes']:.3f}",
        "balanced accuracy and 95 % interval; kNN with k = "
        f"{k}; logistic regression and forest by 5-fold cross-validation; 'own {settings['group']}' is the figure without leaks",
        "",
    ]
    named = scores[(scores["classifier"] != "knn") | (scores["k"] == k)]
    columns = [
        (c, w) for c in dict.fromkeys(named["classifier"]) for w in ways if ((named["classifier"] == c) & (named["left_out"] == w)).any()
    ]
    text = {(r.features, r.classifier, r.left_out): with_interval(r.accuracy, r.low, r.high) for r in named.itertuples()}
    order = {n: i for i, n in enumerate(best_first(named, ways[0]))}
    heads = ["feature set", *(f"{c}, own {w}" for c, w in columns), "features", "cells/s"]
    rows = [heads]
    for row in sorted(found.sets.itertuples(), key=lambda r: order.get(r.features, len(order))):
        entries = [text.get((row.features, c, w), "–") for c, w in columns]
        if row.features not in order:
            lines.append(f"not there: {row.features}: {row.note}")
            continue
        speed = f"{row.cells_per_second:,.0f}" if pd.notna(row.cells_per_second) else "–"
        rows.append([row.features, *entries, f"{row.n_features:.0f}", speed])
    widths = [max(len(r[i]) for r in rows) for i in range(len(heads))]
    lines += [
        "  ".join(v.ljust(w) if i == 0 else v.rjust(w) for i, (v, w) in enumerate(zip(r, widths, strict=True))).rstrip() for r in rows
    ]
    lines += ["", *notes] if (notes := [t for a in found.feature_sets.values() if (t := left_out_by_reading(a))]) else []
    if len(found.benchmark.omitted):
        lines += [
            "",
            "left out, or to be known:",
            *(f"  {r.what}: {r.why} ({r.n_cells:,} cells)" for r in found.benchmark.omitted.itertuples()),
        ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Other:
    """A trained network that fits a run's cells.

    Attributes
    ----------
    run : Run
        On the same cells; its PCI features come from that network.
    pretext : str
        What the network learned from its pairs.
    """

    run: Run
    pretext: str


def other_networks(run: Run, names: Sequence[str] = ()) -> tuple[dict[str, Other], dict[str, str]]:
    """Return other trained networks for the same cells, and which networks do not fit these cells.

    Parameters
    ----------
    run : Run
    names : sequence of str
        Of weights, see `pci_core.pretrained.find`; empty: the encoders that ship with the package and learnt by another pretext than the
        run's own. The run's own is passed over.

    Returns
    -------
    others : dict of str to Other
        By name; what their runs hand out counts as used by `run`.
    left_out : dict of str to str
        Why a network cannot describe these cells: other channels or another rescaling, or it cannot be downloaded.

    Raises
    ------
    UnknownNameError
        Weights of a name that nobody knows.
    CheckpointError
        A file that is not there, or a pickle.
    """
    others: dict[str, Other] = {}
    left_out: dict[str, str] = {}
    for name in names or _of_other_pretexts(run):
        if pretrained.absolute(name) == pretrained.absolute(run.recipe.training.pretrained, run.recipe.folder):
            continue
        try:
            given = pretrained.find(name, progress=not run.quiet)
        except DownloadError as error:
            left_out[name] = str(error)
            continue
        try:
            _, card = pretrained.load_fitting(given.path, given.name, run.recipe)
        except CheckpointError as error:
            left_out[name] = str(error)
            continue
        label = Path(name).stem if pretrained.is_file(name) else name
        other = Run(run.recipe, run.folder.parent, training={"pretrained": name}, device=run.device, precision=run.precision,
                    compile=run.compile, crops=run.crops, jobs=run.jobs, quiet=run.quiet)  # fmt: skip
        other.used = run.used
        others[label] = Other(other, card["architecture"].get("pretext", "inpainting"))
    return others, left_out


def _of_other_pretexts(run: Run) -> list[str]:
    shipped = {n: pretrained.load_encoder(pretrained.path_of(n))[1]["architecture"] for n in pretrained.names() if pretrained.has(n)}
    pretexts = {n: architecture.get("pretext", "inpainting") for n, architecture in shipped.items()}
    own = pretexts.get(run.recipe.training.pretrained, run.recipe.training.pretext)
    return [n for n, pretext in pretexts.items() if pretext != own]


def with_interval(accuracy: float, low: float | None, high: float | None) -> str:
    """Write an accuracy with its interval, or alone where there is none."""
    return f"{accuracy:.3f}" if low is None or low != low else f"{accuracy:.3f} ({low:.3f}–{high:.3f})"


def best_first(scores: pd.DataFrame, way: str) -> list[str]:
    """Order feature sets by their kNN accuracy with `way` left out, the others behind."""
    best = scores[scores["left_out"] == way].sort_values("classifier", key=lambda c: c != "knn", kind="stable").drop_duplicates("features")
    ranked = best.sort_values("accuracy", ascending=False)["features"].tolist()
    out: list[str] = ranked + [n for n in dict.fromkeys(scores["features"]) if n not in ranked]
    return out
