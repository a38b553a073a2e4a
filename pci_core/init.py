"""`pci init`: look at a folder of images, guess channels, wells and cell size, and write a field table, a recipe and a contact sheet."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pci_core import recipe as recipes
from pci_core.cells import Channel
from pci_core.data.guess import kind_of
from pci_core.data.propose import Proposal, fields_section, propose, row_of
from pci_core.data.survey import survey_folder
from pci_core.data.table import check_field_table
from pci_core.errors import ImageError, StorageError
from pci_core.imaging.cell_size import WHOLE
from pci_core.plots.contact_sheet import View, contact_sheet
from pci_core.storage import as_storage_error, write_bytes, write_text

_LISTED = 12  # reasons and fields that the summary shows; left_out.csv holds all


@dataclass(frozen=True)
class Written:
    """What `init_folder` wrote: the files, and a summary in words."""

    recipe: Path
    files: tuple[Path, ...]
    summary: str


def init_folder(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    name: str | None = None,
    *,
    protein: str | None = None,
    segment: str | None = None,
    group: str | None = None,
    method: str | None = None,
    force: bool = False,
    progress: bool = True,
) -> Written:
    """Write ``fields.csv``, ``<name>.toml``, ``contact_sheet.png`` and, where files were left out, ``left_out.csv``.

    Parameters
    ----------
    folder : path-like
        Images, or a file of ready crops: a ``.h5sc``, or SubCell's ``path_list.csv``.
    out : path-like, optional
        Folder to write to [default: ``<name>-pci`` where the command runs, or beside `folder` if that is within it].
    name : str, optional
        Of the recipe [default: the folder's].
    protein, segment, group, method : str, optional
        Instead of a guess; see `pci_core.data.propose.propose`.
    force : bool
        Earlier files of these names are renamed to ``….bak``; without it they are refused.
    progress : bool

    Raises
    ------
    ImageError
        No folder, no usable image, one channel only, or unreadable files.
    UnknownNameError
        No such channel, grouping or method.
    StorageError
        A file is already there, or cannot be written.
    """
    folder = Path(folder)
    if folder.is_file() and (folder.suffix.lower() == ".h5sc" or folder.name == "path_list.csv"):
        return _init_crops(folder, out, name, force)
    name = _plain_name(name or folder.resolve().name)
    where = Path(out) if out is not None else _default_out(folder, name)
    targets = [where / f for f in ("fields.csv", f"{name}.toml", "contact_sheet.png", "left_out.csv")]
    if targets[1].exists():  # else what is there may be what a killed run left; then it is what would be written
        _refuse_existing([t for t in targets if t.exists()], force)
    survey = survey_folder(folder, [where], progress)
    found = propose(survey, name, protein=protein, segment=segment, group=group, method=method)
    table = field_table(found, where)
    text = recipe_text(found)
    spec = recipes.parse(tomllib.loads(text), str(targets[1]), where.resolve())
    with as_storage_error(where):
        where.mkdir(parents=True, exist_ok=True)  # paths such as ../images are only there once their start is
    check_field_table(table, spec, where.resolve(), str(targets[0]))
    channels = [Channel(n, "protein" if i == 0 else "structural") for i, n in enumerate(found.channels)]
    views = [
        View(s.name, found.images[s.name], s.planes[found.order], s.labels, s.crops.centres, s.crops.crops[:, found.order])
        for s in found.sample
        if s.labels is not None and s.crops is not None
    ]
    um = found.um_per_px * found.downscale or None
    what, crop = "cells" if found.whole else "nuclei", _length(found.crop * found.downscale, found.um_per_px)
    notes = [f"found by '{found.method}'", "PROPOSED by pci init: check before cutting"]
    if not um and found.downscale > 1:
        notes.insert(0, f"scale bars in px of fields reduced by {found.downscale}")
    title = f"{name}: {len(survey.fields):,} fields; {what} {_length(found.size.diameter, found.um_per_px)}, crops {crop}"
    figure = contact_sheet(
        views, channels, found.crop, um, title, [f"found by '{found.method}'", "PROPOSED by pci init: check before cutting"]
    )
    sheet = io.BytesIO()
    figure.savefig(sheet, dpi=110, format="png")
    contents = {targets[0]: table.to_csv(index=False, lineterminator=os.linesep).encode(), targets[2]: sheet.getvalue()}
    if survey.left_out:
        contents[targets[3]] = _csv([("file", "reason"), *survey.left_out]).encode()
    contents[targets[1]] = text.encode()  # last: a recipe that is there is whole
    in_the_way = [t for t in targets if t.exists() and t.read_bytes() != contents.get(t)]
    _refuse_existing(in_the_way, force)
    _keep_existing(targets if force else [])
    for target, content in contents.items():
        write_bytes(target, content)
    files = tuple(t for t in targets if t.exists())
    return Written(targets[1], files, summary(found, files))


def field_table(found: Proposal, where: Path) -> pd.DataFrame:
    """Return the field table with paths relative to the folder it will lie in."""
    survey, rows = found.survey, []
    for field in survey.fields:
        row = row_of(survey, field, found.names)
        paths = {k: _relative(survey.folder / v, where) for k, v in row.items() if k != "field"}
        named = survey.names[field]
        known = {"plate": named.plate, "well": named.well, "folder": named.folder if named.folder != named.plate else ""}
        rows.append({"field": field, "image": found.images[field], **known, **paths})
    table = pd.DataFrame(rows)
    return table[[c for c in table if c not in ("plate", "well", "folder") or (table[c] != "").any()]]


def _relative(path: Path, where: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), where.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return path.resolve().as_posix()


def recipe_text(found: Proposal) -> str:
    """Return the recipe as TOML, with a line ``# CHECK:`` above every guess."""
    survey, order = found.survey, found.order
    checks = found.checks
    reduced = found.reduced.settings
    um, f = found.um_per_px, found.downscale
    nuclei8 = not found.whole and survey.shape(next(iter(survey.fields))).dtype == "uint8"
    lines = [
        f"# Proposed by 'pci init' from {len(survey.fields):,} fields of view. Look at contact_sheet.png and at every line with CHECK.",
        f"name = {_q(found.name)}",
        f"title = {_q(found.name)}",
        'label = "image"             # column of fields.csv that benchmarks predict; add e.g. location or protein there and name it here',
        'layer = "conv4"',
    ]
    for k, i in enumerate(order):
        key = "protein" if k == 0 else ""
        lines += [
            "",
            *_check(checks, key),
            "[[channels]]",
            f"name = {_q(found.names[i])}",
            f'role = "{"protein" if k == 0 else "structural"}"',
        ]
    lines += [
        "",
        *_check(checks, "image"),
        "[source]",
        'kind = "table"',
        'path = "fields.csv"',
        "",
        *_check(checks, "um_per_px"),
        "[fields]",
    ]
    for key, value in fields_section(survey, found.names, order).items():
        lines.append(f"{key} = {_q(value)}{'   # red, green, blue' if key == 'order' and survey.format == 'composite' else ''}")
    lines += [
        f"um_per_px = {um:g}",
        f"downscale = {f}",
        "",
        *_check(checks, "segment"),
        "[segmentation]              # px of the reduced field",
        f"method = {_q(found.method)}",
    ]
    if found.segment is not None:
        lines.append(f"channel = {_q(found.names[found.segment])}")
    if found.method == "cellpose":
        lines.append(f"diameter = {found.reduced.diameter if math.isfinite(found.reduced.diameter) else 0:.1f}")
    elif found.method != "labels":
        lines.append(f"sigma = {reduced.sigma}")
    lines.append(f"min_area = {reduced.min_area}")
    if reduced.fill_holes and found.method not in (*WHOLE, "labels", "cellpose"):
        lines.append(f"fill_holes = {reduced.fill_holes}")
    diameter = _length(found.size.diameter, um)
    lines += [
        "clear_border = true", "",
        f"# CHECK: {'cells' if found.whole else 'nuclei'} of {diameter} across (median) -> a crop of {_length(found.crop * f, um)}",
        *_check(checks, "crop"), "[crop]", f"size = {found.crop}", "resize = 64",
        *(["min_fraction = 0.05         # of the crop, as in the paper for yeast", "max_fraction = 0.95"] if found.whole else []),
        f"min_cells = {found.min_cells}  # images with fewer cells are left out; about {found.cells_per_image:.0f} an image are expected",
        "", "[preprocess]", 'protein = "minmax"', f'structural = "{"clip" if nuclei8 else "minmax"}"',
        *(["floor = 0.05"] if nuclei8 else []),
        "", "[training]", "epochs = 30                 # the paper's; 'pci info' says how long that takes", "width = 0.5", "holdout = 0.1",
    ]  # fmt: skip
    shipped = _shipped(found)
    if shipped:
        lines.append(f'# pretrained = "{shipped}"   # shipped for such channels: features without training (its cells were simulated)')
    return "\n".join(lines) + "\n"


def _check(checks: dict[str, str], key: str) -> list[str]:
    return [f"# CHECK: {checks[key]}".replace("\n", " ")] if key in checks else []


def _shipped(found: Proposal) -> str:
    kinds = [kind_of(found.names[i]) for i in found.order]
    if len(kinds) == 3 and not found.whole and kinds[1] == "nucleus" and found.names[found.order[2]] in ("microtubules", "tubulin", "red"):
        return "simulated-human"
    return "simulated-yeast" if len(kinds) == 2 and found.method == "yeast" else ""


def _q(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)  # strings and lists of strings are the same in TOML


def _length(px: float, um: float) -> str:
    if not math.isfinite(px):
        return "of unknown size"
    return f"{px:.0f} px" + (f" ({px * um:.1f} µm)" if um else "")


def summary(found: Proposal, files: tuple[Path, ...]) -> str:
    """Say what was found, guessed and left out, what to check, and what to do next."""
    survey, size, um = found.survey, found.size, found.um_per_px
    images = Counter(found.images[f] for f in survey.fields)
    single = sum(n == 1 for n in images.values())
    where = "label masks" if found.segment is None else f"'{found.names[found.segment]}'"
    lines = [f"{survey.folder}: {len(survey.fields):,} fields of view, {len(images):,} images", *(f"  {s}" for s in survey.seen), "guessed"]
    lines.append(f"  channels   {found.channels[0]} (protein), {', '.join(found.channels[1:])} (structural); format '{survey.format}'")
    lines.append(
        f"  images     by {found.grouping}, {len(survey.fields) / len(images):.1f} fields each"
        + (f"; {single} have a single field" if single else "")
    )
    score = "" if found.segment is None else f", score {size.score:.2f} of 1"
    lines.append(f"  cells      method '{found.method}' on {where}{score}")
    counts = ", ".join(
        f"{s.name} {n}{'?' if t <= size.unsure else ''}" for s, n, t in zip(found.sample, size.counts, size.trust, strict=True)
    )
    lines.append(
        f"             found in {len(size.counts)} fields: {counts}"
        + (" (? = objects of odd shape: an empty field?)" if "?" in counts else "")
    )
    if math.isfinite(size.diameter):
        quartiles = f"quartiles {size.low:.0f} and {size.high:.0f} px" + (
            f", {size.low * um:.1f} and {size.high * um:.1f} µm" if um else ""
        )
        lines.append(f"  size       {'cells' if found.whole else 'nuclei'} {_length(size.diameter, um)} across, {quartiles}")
    reduced = f" = {found.crop} px of fields reduced by {found.downscale}" if found.downscale > 1 else ""
    lines.append(
        f"  crop       {_length(found.crop * found.downscale, um)}{reduced}, stored as 64 px; about {found.cells_per_image:.0f} cells an "
        f"image, min_cells {found.min_cells}"
    )
    paper = 30 if found.whole else 5
    if found.min_cells < paper:
        lines.append(f"             the paper asks for {paper} cells an image: with that, images such as these would be left out")
    if survey.left_out:
        reasons = Counter(re.sub(r"(of the field|unreadable:).*", r"\1 …", r) for _, r in survey.left_out)
        first = {re.sub(r"(of the field|unreadable:).*", r"\1 …", r): p for p, r in reversed(survey.left_out)}
        lines.append(f"left out: {len(survey.left_out)} files, listed in left_out.csv")
        lines += [f"  {n:5} {r} (e.g. {first[r]})" for r, n in reasons.most_common(_LISTED)]
    lines.append("check")
    lines += [f"  {k:10} {v}" for k, v in found.checks.items()]
    recipe = next(f for f in files if f.suffix == ".toml")
    lines += [
        f"  contact_sheet.png: are the outlines cells, and do the orange squares hold one cell each? Then correct {recipe.name}",
        "wrote",
    ]
    lines += [f"  {f}" for f in files]
    lines += ["next", *(f"  pci {c}" for c in (f"info {recipe}", f"cells {recipe}", f"features {recipe} conv4"))]
    return "\n".join(lines)


def _init_crops(path: Path, out: str | os.PathLike[str] | None, name: str | None, force: bool) -> Written:
    if path.suffix.lower() == ".h5sc":
        from pci_core.data.h5sc import init_recipe
    else:
        from pci_core.data.subcell import init_recipe
    where = Path(out) if out is not None else path.parent
    text = init_recipe(path)
    stem = _plain_name(name or (path.stem if path.suffix == ".h5sc" else path.resolve().parent.name))
    text = re.sub(r"(?m)^path = .*$", lambda _: f"path = {_q(_relative(path, where))}", text, count=1)
    if name:
        text = re.sub(r"(?m)^name = .*$", lambda _: f"name = {_q(stem)}", text, count=1)
    target = where / f"{stem}.toml"
    recipes.parse(tomllib.loads(text), str(target), where.resolve())
    _refuse_existing([target], force)
    _keep_existing([target])
    write_text(target, text)
    notes = [line for line in text.splitlines() if line.startswith("#")]
    steps = [f"  pci {c}" for c in (f"info {target}", f"cells {target}", f"features {target} conv4")]
    return Written(target, (target,), "\n".join([*notes, f"wrote\n  {target}", "next", *steps]))


def _plain_name(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")
    if not plain:
        raise ImageError(f"'{name}' cannot be the name of a recipe: give one of letters and digits with --name.")
    return plain


def _default_out(folder: Path, name: str) -> Path:
    here, images = Path.cwd().resolve(), folder.resolve()
    return (images.parent if here == images or images in here.parents else Path()) / f"{name}-pci"


def _refuse_existing(targets: list[Path], force: bool) -> None:
    there = [t for t in targets if t.exists()]
    if there and not force:
        raise StorageError(
            f"{', '.join(map(str, there))} {'is' if len(there) == 1 else 'are'} already there. Give --force to write new ones (the old "
            "are kept as .bak), or another --out or --name."
        )


def _keep_existing(targets: list[Path]) -> None:
    for target in targets:
        if target.exists():
            n = next(i for i in range(1, 10_000) if not target.with_name(f"{target.name}.bak{i if i > 1 else ''}").exists())
            with as_storage_error(target):
                target.rename(target.with_name(f"{target.name}.bak{n if n > 1 else ''}"))


def _csv(rows: list[tuple[str, str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
