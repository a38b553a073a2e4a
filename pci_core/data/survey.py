"""What lies in a folder of images: which files make a field of view, and which are left out and why. For `pci init`."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from pci_core.data.guess import Named, group_fields, kind_of, parse_names, strip_suffix
from pci_core.errors import ImageError
from pci_core.imaging.inspect import ImageFacts, describe_image, is_image, is_label_image
from pci_core.imaging.read import read_pixels

_THUMBNAIL = re.compile(r"(?:^|[_\-. ])thumb(?:nail)?s?(?=$|[_\-. \d])|^\.?Thumbs\.db$", re.IGNORECASE)
_OURS = ("contact_sheet.png",)
_LOOKED_AT = 3  # files of a kind whose pixels are looked at where the header does not tell
_MASKED = 0.75  # share of fields with a label mask from which the masks are used
_WORDS = {"separate": "single channels", "composite": "colour images", "stack": "stacks of planes", "named": "files with named channels"}
_RGB = ("red", "green", "blue")


@dataclass
class Survey:
    """Fields of view of a folder.

    Attributes
    ----------
    folder : Path
    format : str
        As in a recipe's [fields].
    channels : list of str
        As the names or the files call them.
    order : list of str
        For ``composite`` and ``stack``: what each plane holds.
    fields : dict of str to dict of str to str
        By the field's name: relative path of each channel (``separate``) or of the file (key ``""``).
    names : dict of str to Named
        What the name of one of its files says.
    labels : dict of str to str
        Relative path of a field's label mask.
    facts : dict of str to ImageFacts
        By relative path.
    left_out : list of (str, str)
        Relative path and reason.
    seen : list of str
        Lines that say what there was.
    """

    folder: Path
    format: str = ""
    channels: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    fields: dict[str, dict[str, str]] = field(default_factory=dict)
    names: dict[str, Named] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    facts: dict[str, ImageFacts] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def drop(self, paths: Iterable[str], reason: str) -> None:
        """List files as left out."""
        self.left_out += [(p, reason) for p in paths]

    def drop_field(self, name: str, reason: str) -> None:
        """Leave a field out, with all its files."""
        self.drop([*self.fields.pop(name).values(), *([self.labels.pop(name)] if name in self.labels else [])], reason)
        self.names.pop(name)

    def shape(self, name: str) -> ImageFacts:
        """Return the facts of the first file of a field."""
        return self.facts[next(iter(self.fields[name].values()))]


def survey_folder(folder: str | os.PathLike[str], skip: Sequence[Path] = (), progress: bool = True) -> Survey:
    """Look at all images below a folder and sort them into fields of view; only headers and names are read, bar a few samples.

    Parameters
    ----------
    folder : path-like
    skip : sequence of Path
        Folders that are not looked into, e.g. the one that is written to.
    progress : bool

    Returns
    -------
    Survey

    Raises
    ------
    ImageError
        No folder, no image in it, or no two channels of one field.
    """
    folder = Path(folder)
    if not folder.exists():
        raise ImageError(f"{folder} is not there. Give the folder that holds your images.")
    if not folder.is_dir():
        raise ImageError(f"{folder} is a file. Give the folder that holds your images (or a .h5sc file, or SubCell's path_list.csv).")
    out = Survey(folder)
    paths = _find(out, skip)
    _describe(out, paths, progress)
    named = {n.path: n for n in parse_names([p for p in paths if p in out.facts])}
    masks = _masks(out, named)
    for path in [p for p in named if p not in masks]:
        f = out.facts[path]
        if f.z > 1 or f.t > 1:
            what = f"{f.z} z planes" if f.z > 1 else f"{f.t} time points"
            out.drop([path], f"{what}: project or split it first")
            del named[path]
    _choose_format(out, [n for n in named.values() if n.path not in masks])
    images = [n for n in named.values() if n.path not in masks and n.path not in {p for p, _ in out.left_out}]
    groups = group_fields(images, [named[p] for p in sorted(masks)])
    if out.format == "separate":
        _separate(out, groups.fields)
    else:
        for name, channels in groups.fields.items():
            files = [n for members in channels.values() for n in members]
            out.fields[name], out.names[name] = {"": files[0].path}, files[0]
            out.drop([n.path for n in files[1:]], f"a second file of the field {name}")
    out.labels = {k: v for k, v in groups.labels.items() if k in out.fields}
    out.drop(groups.lone_labels, "a label mask that belongs to no field")
    out.drop([v for k, v in groups.labels.items() if k not in out.fields], "a label mask of a field that is left out")
    _check_sizes(out)
    _check_masks(out)
    if not out.fields:
        raise ImageError(f"{folder}: no field of view is left. {summary_of_left_out(out)}")
    return out


def _find(out: Survey, skip: Sequence[Path]) -> list[str]:
    found, hidden, thumbnails, others = [], 0, 0, Counter[str]()
    skipped = {p.resolve() for p in skip}
    for at, folders, files in os.walk(out.folder):
        here = Path(at)
        zarrs = [f for f in folders if f.lower().endswith(".zarr")]
        hidden += sum(f.startswith(".") for f in [*folders, *files])
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in zarrs and (here / f).resolve() not in skipped)
        for name in sorted([*files, *zarrs]):
            if name.startswith("."):
                continue
            if _THUMBNAIL.search(strip_suffix(name)) or _THUMBNAIL.search(name):
                thumbnails += 1
            elif name in _OURS or not is_image(here / name):
                others[PurePosixPath(name).suffix.lower() or "no suffix"] += 1
            else:
                found.append((here / name).relative_to(out.folder).as_posix())
    told = ", ".join(f"{n} {s}" for s, n in others.most_common(8))
    if not found:
        raise ImageError(
            f"{out.folder} holds no image (.tif, .tiff, .png, .jpg, .zarr), only {told or 'nothing at all'}"
            f"{f' and {hidden} hidden files' if hidden else ''}. Export your images to one of these formats, or give another folder."
        )
    out.seen.append(
        f"{len(found):,} images" + (f"; not looked at: {told}" if told else "")
        + (f"; {thumbnails} thumbnails" if thumbnails else "") + (f"; {hidden} hidden" if hidden else "")
    )  # fmt: skip
    return found


def _describe(out: Survey, paths: list[str], progress: bool) -> None:
    def describe(path: str) -> ImageFacts | ImageError:
        try:
            return describe_image(out.folder / path)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        bar = tqdm(pool.map(describe, paths), total=len(paths), unit=" images", desc="headers", disable=not progress or len(paths) < 200)
        for path, facts in zip(paths, bar, strict=True):
            if isinstance(facts, ImageFacts):
                out.facts[path] = facts
            else:
                text = str(facts).replace(f"{out.folder / path}", "").strip(" :")
                out.drop([path], f"unreadable: {text}")
    if not out.facts:
        raise ImageError(f"{out.folder}: none of {len(paths)} images can be read, e.g. {out.left_out[0][0]}: {out.left_out[0][1]}")
    for what, values in (
        ("sizes", Counter(f"{f.width}x{f.height} px" for f in out.facts.values())),
        ("types", Counter(f.dtype for f in out.facts.values())),
        ("planes a file", Counter(str(f.channels) for f in out.facts.values())),
    ):
        told = ", ".join(f"{v} ({n})" if len(values) > 1 else v for v, n in values.most_common(6))
        out.seen.append(f"{what}: {told}{' …' if len(values) > 6 else ''}")


def _masks(out: Survey, named: dict[str, Named]) -> set[str]:
    masks = {p for p, n in named.items() if n.labels or out.facts[p].kind == "labels"}
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, n in named.items():
        if path not in masks and out.facts[path].kind in ("grey", "rgb") and not n.path.lower().endswith((".jpg", ".jpeg")):
            kinds[n.channel.lower(), PurePosixPath(path).suffix].append(path)
    for members in kinds.values():
        some = [members[i] for i in np.unique(np.linspace(0, len(members) - 1, _LOOKED_AT).astype(int))]
        try:
            if all(is_label_image(out.folder / p) for p in some):
                masks |= set(members)
        except ImageError:
            continue  # said again, with the file's name, when the fields are read
    if masks and len(masks) == len(named):
        raise ImageError(
            f"{out.folder} holds label masks only ({len(masks)}), e.g. {min(masks)}. Put the images that they belong to beside them."
        )
    return masks


def _choose_format(out: Survey, names: list[Named]) -> None:
    kinds: dict[str, list[Named]] = defaultdict(list)
    siblings = Counter((n.folder, n.field) for n in names if n.channel)
    for n in names:
        f = out.facts[n.path]
        if f.kind == "rgb" and not (n.channel and siblings[n.folder, n.field] > 1):
            kinds["composite"].append(n)
        elif f.kind in ("named", "stack"):
            kinds[f"{f.kind} of {f.channels}"].append(n)
        else:
            kinds["separate"].append(n)
    if kinds.get("composite") and _all_grey(out, kinds["composite"]):
        kinds["separate"] += kinds.pop("composite")
    if not kinds:
        raise ImageError(f"{out.folder}: no usable image. {summary_of_left_out(out)}")
    best = max(kinds, key=lambda k: (len(kinds[k]), k != "separate"))
    out.format = best.split(" ")[0]
    for kind, members in kinds.items():
        if kind != best:
            more = f" ({kind.split(' of ')[1]})" if " of " in kind else ""
            out.drop([n.path for n in members], f"{_WORDS[kind.split(' ')[0]]}{more}, while most files are {_WORDS[out.format]}")
    first = out.facts[kinds[best][0].path]
    if out.format == "composite":
        # HPA's palette, where the names say it; else the colours themselves
        hpa = sum(all(c in n.path.lower() for c in ("red", "green")) for n in kinds[best]) > 0.5 * len(kinds[best])
        out.order = ["microtubules", "protein", "nucleus"] if hpa else list(_RGB)
    elif out.format == "named":
        common = Counter(out.facts[n.path].names for n in kinds[best]).most_common(1)[0][0]
        out.order = list(common)
        odd = [n.path for n in kinds[best] if set(common) - set(out.facts[n.path].names)]
        out.drop(odd, f"its channels are not {', '.join(common)}")
    elif out.format == "stack":
        out.order = [f"c{i + 1}" for i in range(first.channels)]
    out.channels = list(out.order)


def _all_grey(out: Survey, members: list[Named]) -> bool:
    some = [members[i].path for i in np.unique(np.linspace(0, len(members) - 1, _LOOKED_AT).astype(int))]
    pixels = [read_pixels(out.folder / p) for p in some]
    return all(p.ndim == 3 and bool((p[..., :3] == p[..., :1]).all()) for p in pixels)


def _separate(out: Survey, fields: dict[str, dict[str, list[Named]]]) -> None:
    sets = Counter(frozenset(c.lower() for c in channels if c) for channels in fields.values())
    held = {s: sum(n for other, n in sets.items() if s <= other) for s in sets}
    usable = [s for s in sets if len(s) > 1]
    if not usable:
        only = Counter(c or "no channel in its name" for s in fields.values() for c in s).most_common(6)
        raise ImageError(
            f"{out.folder}: each field of view has one channel only (found: {', '.join(f'{c} ({n})' for c, n in only)}). Paired cell "
            "inpainting needs at least two, a protein and a structural marker of the same cells. Put the files of the other channel beside "
            "these, named alike but for a word such as DAPI, GFP, ch1 or w2."
        )
    chosen = max(usable, key=lambda s: (held[s] * len(s), len(s)))
    written: dict[str, str] = {}
    for name, channels in fields.items():
        files = {c.lower(): members for c, members in channels.items()}
        missing = sorted(chosen - set(files))
        stacked = {c: m for c, m in files.items() if c in chosen and len({n.plane for n in m}) > 1}
        everything = [n.path for m in files.values() for n in m]
        if missing:
            out.drop(everything, f"its field has no channel {', '.join(missing)}")
        elif stacked:
            most = max(len({n.plane for n in m}) for m in stacked.values())
            out.drop(everything, f"{most} z planes in files of their own: project them first")
        else:
            for c in chosen:
                written.setdefault(c, next(k for k in channels if k.lower() == c))
                out.drop([n.path for n in files[c][1:]], f"a second file of channel {written[c]} of the field {name}")
            out.drop([n.path for c, m in files.items() if c not in chosen for n in m], "a channel that other fields do not have")
            out.fields[name] = {written[c]: files[c][0].path for c in sorted(chosen)}
            out.names[name] = files[min(chosen)][0]
    out.channels = [written[c] for c in sorted(chosen) if c in written]


def _check_sizes(out: Survey) -> None:
    """Leave out fields whose channels differ among themselves, and those of another bit depth than most."""
    kinds = Counter(out.facts[p].dtype for files in out.fields.values() for p in files.values())
    common = kinds.most_common(1)[0][0] if kinds else ""
    for name, files in list(out.fields.items()):
        shapes = {(out.facts[p].height, out.facts[p].width) for p in files.values()}
        types = {out.facts[p].dtype for p in files.values()}
        if len(shapes) > 1:
            out.drop_field(name, "channels of different sizes: " + ", ".join(f"{w}x{h} px" for h, w in sorted(shapes)))
        elif types != {common}:
            out.drop_field(name, f"{', '.join(sorted(types))}, while most files are {common}: all fields must have one bit depth")


def _check_masks(out: Survey) -> None:
    for name, path in list(out.labels.items()):
        mask, image = out.facts[path], out.shape(name)
        if (mask.height, mask.width) != (image.height, image.width):
            out.drop([out.labels.pop(name)], f"a mask of {mask.width}x{mask.height} px for a field of {image.width}x{image.height} px")
    some = sorted(out.labels)[:_LOOKED_AT]
    if some and all(len(np.unique(read_pixels(out.folder / out.labels[n]))) <= 2 for n in some):
        out.drop(out.labels.values(), "a mask without numbers (cells and background only), which cannot tell touching cells apart")
        out.labels = {}
    if out.labels and len(out.labels) < _MASKED * len(out.fields):
        out.drop(out.labels.values(), f"a label mask, but only {len(out.labels)} of {len(out.fields)} fields have one")
        out.labels = {}
    if out.labels:
        for name in [n for n in out.fields if n not in out.labels]:
            out.drop_field(name, "its field has no label mask, while most have")


def summary_of_left_out(out: Survey) -> str:
    """Return counts of what was left out, by reason, with an example each."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for path, reason in out.left_out:
        reasons[re.sub(r"(of the field|unreadable:).*", r"\1 …", reason)].append(path)
    return "; ".join(f"{len(p)} files: {r} (e.g. {p[0]})" for r, p in reasons.items())


def channel_names(channels: Sequence[str]) -> list[str]:
    """Return names for a recipe: lower case, letters and digits, ``w1DAPI`` shortened to ``dapi`` where that is unique."""
    plain = [re.sub(r"[^a-z0-9]+", "_", c.lower()).strip("_") or f"c{i + 1}" for i, c in enumerate(channels)]
    short = [m[1] if (m := re.fullmatch(r"w\d+_?([a-z]\w+)", p)) and kind_of(m[1]) else p for p in plain]
    names = short if len(set(short)) == len(short) else plain
    return names if len(set(names)) == len(names) else [f"{n}_{i + 1}" for i, n in enumerate(plain)]
