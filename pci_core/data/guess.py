"""What file names say of a folder of images: channel, well, field of view, plane, label mask. Guesses, for a person to check.

A name is cut into words. A word that is known (``ch1``, ``DAPI``, ``A01``, ``s3``, ``r01c02f01p01`` ...) takes its
meaning from a table; one with two meanings (``C01``: a well or a channel) takes the one that the other names support.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

COLOURS = ("red", "green", "blue", "yellow")
NUCLEUS = ("nucleus", "nuclei", "nuclear", "dna", "dapi", "hoechst", "h2b", "draq5", "sytox", "blue", "405", "405nm")
PROTEIN = ("protein", "antibody", "gfp", "egfp", "sfgfp", "mng", "mneongreen", "neongreen", "fitc", "yfp", "venus", "green", "poi",
           "488", "488nm", "alexa488", "a488", "halo")  # fmt: skip
BRIGHTFIELD = ("brightfield", "bf", "dic", "phase", "transmitted", "trans", "tl", "bright")
OTHERS = ("rfp", "mrfp", "mcherry", "cherry", "tdtomato", "mscarlet", "dsred", "tritc", "texasred", "txred", "red", "cy3", "cy5", "cy7",
          "farred", "magenta", "mkate", "mkate2", "tubulin", "microtubules", "actin", "phalloidin", "er", "mito", "membrane", "wga",
          "cellmask", "cytosol", "cytoplasm", "cyto", "marker", "yellow", "cfp", "cyan", "bfp", "561", "561nm", "640nm", "647", "647nm",
          "594", "594nm", "structural", "nup49")  # fmt: skip
LABELS = ("labeled", "labelled", "labels", "label", "mask", "masks", "segmentation", "segmented", "seg", "cellmasks")

_SPLIT = re.compile(r"[_\-\s.()=,+]+")
_SUFFIX = re.compile(r"\.(?:ome\.tiff?|ome\.zarr|tiff?|png|jpe?g|zarr|npy)$", re.IGNORECASE)
_GUID = re.compile(r"^[0-9A-Fa-f]{8}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{4}-?[0-9A-Fa-f]{12}$")
_GUID_TAIL = re.compile(r"[0-9A-F]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}", re.IGNORECASE)
_NUMBERED = re.compile(r"(?<![A-Za-z])(field|fld|site|fov|position|pos|channel|plate|slice|plane)[ _\-]+(\d+)", re.IGNORECASE)
_WORDS = [re.compile(p, re.IGNORECASE) for p in (
    r"(?P<well>r\d{1,2}c\d{1,2})(?:f(?P<site>\d+))?(?:p(?P<plane>\d+))?",  # Opera, Operetta: r01c02f03p01
    r"(?P<channel>ch\d+)sk(?P<time>\d+)fk\d+fl\d+",
    r"t(?P<time>\d{4})f(?P<site>\d{3})l\d{2}a\d{2}z(?P<plane>\d{2})(?P<channel>c\d{2})?",  # CellVoyager
    r"(?P<channel>w\d(?:[a-z][a-z0-9 ]*)?)",  # MetaMorph, MetaXpress: w1, w1DAPI
    r"(?P<channel>(?:ch|chan|channel)\d{1,2}|c\d{1,2})",
    r"(?:s|f|fld|field|site|fov|pos|position|xy)(?P<site>\d+)",
    r"(?:z|plane|slice)(?P<plane>\d+)",
    r"(?:t|tp|time)(?P<time>\d+)",
    r"(?P<plate>plate\w*\d\w*)",
)]  # fmt: skip
_WELL = re.compile(r"([A-P])(0?[1-9]|1\d|2[0-4])", re.IGNORECASE)
_INCELL = re.compile(r"([A-P]) - (\d{1,2})\(fld (\d+) wv ([^)]*?)(?: - [^)]*)?\)(?:[ _]*z ?(\d+))?$")
_FIRST_NUMBER = re.compile(r"\d+$")


@dataclass(frozen=True)
class Named:
    """What the name of one file says.

    Attributes
    ----------
    path : str
        Relative to the folder that was looked at, with ``/``.
    field : str
        The name without channel, plane and suffix: the same for all channels of a field of view.
    folder : str
        The folders, without one that only names a channel or labels.
    channel : str
        As written, e.g. ``ch1``, ``w1DAPI``; "" = none.
    well, plate, site, plane, time : str
        "" = none.
    labels : bool
        The name calls it a label mask.
    numbered : str
        The name without the number at its end, "" = there is none.
    """

    path: str
    field: str
    folder: str
    channel: str = ""
    well: str = ""
    plate: str = ""
    site: str = ""
    plane: str = ""
    time: str = ""
    labels: bool = False
    numbered: str = ""


@dataclass(frozen=True)
class _Choice:
    """One way to read the channel of a name: which word of the stem (or folder, negative) it is, and what remains."""

    channel: str
    at: int
    rest: str


def kind_of(channel: str) -> str:
    """Tell from a channel's name what it is: ``nucleus``, ``protein``, ``brightfield``, ``marker`` or "" (the name does not say)."""
    words = [w for w in re.split(r"[^a-z0-9]+", re.sub(r"^w\d+", "", channel.lower())) if w]
    words += [re.sub(r"\d+$", "", w) for w in words if re.sub(r"\d+$", "", w)]
    for kind, known in (("protein", PROTEIN), ("nucleus", NUCLEUS), ("brightfield", BRIGHTFIELD), ("marker", OTHERS)):
        if set(words) & set(known):
            return kind
    return ""


def strip_suffix(name: str) -> str:
    """Return a file name without its image suffix; ``.ome.tif`` counts as one."""
    return _SUFFIX.sub("", name)


def parse_names(paths: Sequence[str]) -> list[Named]:
    """Read the names of all images of a folder together.

    Parameters
    ----------
    paths : sequence of str
        Relative paths with ``/``.

    Returns
    -------
    list of Named
        In the order given.
    """
    choices = [_choices(p) for p in paths]
    support: dict[tuple[int, str], set[str]] = defaultdict(set)
    for options in choices:
        for c in options:
            support[c.at, c.rest].add(c.channel.lower())
    letters: dict[int, set[str]] = defaultdict(set)  # first letters of words that could be wells, by place
    for path in paths:
        for at, word in enumerate(_words(path)):
            if _WELL.fullmatch(word):
                letters[at].add(word[0].upper())
    out = []
    for path, options in zip(paths, choices, strict=True):
        ranked = sorted(options, key=lambda c: _rank(c, len(support[c.at, c.rest])))
        best = ranked[-1] if ranked else None
        if best is not None and _WELL.fullmatch(best.channel) and _is_well(best.at, letters):
            rivals = [c for c in ranked if not _WELL.fullmatch(c.channel)]
            best = rivals[-1] if rivals else None
        out.append(_named(path, best, {at for at, seen in letters.items() if len(seen) > 1}))
    folders = [n.folder.split("/") if n.folder else [] for n in out if not n.labels]
    common = len(os.path.commonprefix(folders)) if folders else 0  # folders that hold everything tell nothing
    if common:
        gone = "_".join(folders[0][:common])
        out = [
            replace(n, folder="/".join(n.folder.split("/")[common:]), plate=n.plate.removeprefix(gone).lstrip("_"))
            if n.folder.split("/")[:common] == folders[0][:common]
            else n
            for n in out
        ]
    plates = {n.plate for n in out if n.well and not n.labels}
    return _by_contrast([replace(n, plate="") if len(plates) == 1 else n for n in out])


def _rank(choice: _Choice, siblings: int) -> tuple[int, bool, bool, int, int]:
    # a word that varies, in the name rather than in a folder, that is known, that takes more values, that stands last
    return min(siblings, 2), choice.at >= 0, bool(kind_of(choice.channel)), siblings, choice.at


def _is_well(at: int, letters: dict[int, set[str]]) -> bool:
    """Tell that a word like C01 is a well: in other names, other letters stand at its place."""
    return bool(letters[at] - {"C"})


def _words(path: str) -> list[str]:
    stem = _GUID_TAIL.sub("", strip_suffix(PurePosixPath(path).name))
    if cell := _INCELL.search(stem):
        well = f"{cell[1]}{int(cell[2]):02d}"
        stem = stem[: cell.start()] + "_".join([well, f"f{cell[3]}", cell[4].replace(" ", ""), *([f"z{cell[5]}"] if cell[5] else [])])
    stem = _NUMBERED.sub(r"\1\2", stem)
    return [w for w in _SPLIT.split(stem) if w and not _GUID.match(w)]


def _choices(path: str) -> list[_Choice]:
    words = _words(path)
    colours = [w for w in words if w.lower() in COLOURS]
    out = []
    for at, word in enumerate(words):
        spans = [m.span("channel") for p in _WORDS if "channel" in p.groupindex and (m := p.fullmatch(word)) and m["channel"]]
        known = bool(kind_of(word)) and not word[0].isdigit()
        if len(colours) > 1 and word in colours:
            continue  # a composite says all its colours
        if not spans and not known and not (word.isdigit() and kind_of(word)):
            continue
        a, b = spans[0] if spans else (0, len(word))
        left = "" if re.fullmatch(r"ch\d+sk\d+fk\d+fl\d+", word, re.IGNORECASE) else word[:a] + word[b:]
        out.append(_Choice(word[a:b], at, "/".join((str(PurePosixPath(path).parent), *words[:at], left, *words[at + 1 :]))))
    folders = PurePosixPath(path).parts[:-1]
    for i, folder in enumerate(folders):
        if kind_of(folder) or re.fullmatch(r"(?:ch|channel|w|c)[ _\-]?\d{1,2}", folder, re.IGNORECASE):
            # the files of a channel folder may repeat the channel's name, or all carry the same
            shorter = [w for w in words if w.lower() != folder.lower()]
            for rest in (words, shorter) if len(shorter) < len(words) else (words,):
                out.append(_Choice(folder, i - len(folders), "/".join((*folders[:i], *folders[i + 1 :], *rest))))
    return out


def _named(path: str, choice: _Choice | None, well_places: set[int]) -> Named:
    folders, words = list(PurePosixPath(path).parts[:-1]), _words(path)
    channel = choice.channel if choice else ""
    if choice and choice.at < 0:
        del folders[choice.at]
        if not choice.rest.endswith("/".join(words)):
            words = ["" if w.lower() == channel.lower() else w for w in words]
    elif choice:
        words[choice.at] = choice.rest.split("/")[choice.at - len(words)]
    found: dict[str, str] = {}
    labels = any(w.lower() in LABELS for w in words)
    for folder in list(folders):
        if {w.lower() for w in _SPLIT.split(folder)} & set(LABELS):
            labels = True
            folders.remove(folder)
    colours = [w.lower() in COLOURS for w in words]
    dropped = {*(LABELS if labels else ()), *(("cp",) if labels else ()), *(COLOURS if sum(colours) > 1 else ())}
    kept: list[str] = []
    without_site: list[str] = []
    before: list[str] = []
    for at, word in enumerate(words):
        if not word or word.lower() in dropped:
            continue
        told = _told(word, at in well_places) if "well" not in found or not _WELL.fullmatch(word) or at not in well_places else {}
        if "well" in told and "well" not in found:
            before = list(kept)
        found |= {k: v for k, v in told.items() if k not in found}
        left = _cut_number(word, "p|z|plane|slice", told.get("plane", ""))
        kept += [left] if left else []
        rest = _cut_number(left, "s|f|fld|field|site|fov|pos|position|xy", told.get("site", ""))
        without_site += [rest] if rest else []
    if "well" not in found:
        wells = [f for f in folders if _WELL.fullmatch(f) or re.fullmatch(r"r\d{2}c\d{2}", f)]
        if wells:
            found["well"] = wells[-1]
    if "well" in found:
        found["plate"] = "_".join([f for f in folders if f != found["well"]] + before)
    number = _FIRST_NUMBER.search(kept[-1]) if kept else None
    if found.get("site"):
        numbered = "_".join(without_site)
    else:
        numbered = "_".join([*kept[:-1], kept[-1][: number.start()]]).rstrip("_") if number and len(kept) > 1 else ""
    return Named(path, "_".join(kept), "/".join(folders), channel, labels=labels, numbered=numbered, **found)


def _told(word: str, well_place: bool) -> dict[str, str]:
    """Return what one word says; at a `well_place` several letters of wells stand, so that F11 is no field there."""
    if _WELL.fullmatch(word) and well_place:
        return {"well": word.upper()}
    for pattern in _WORDS:
        match = pattern.fullmatch(word)
        if match and match.groupdict().get("channel") != word:
            return {k: v for k, v in match.groupdict().items() if v and k != "channel"}
    return {"well": word.upper()} if _WELL.fullmatch(word) else {}


def _cut_number(word: str, letters: str, number: str) -> str:
    """Take ``z01``, with one of the `letters`, out of a word."""
    return re.sub(rf"(?<![a-z])(?:{letters}){number}(?!\d)", "", word, count=1, flags=re.IGNORECASE) if number else word


def _by_contrast(names: list[Named]) -> list[Named]:
    """Where no word is known: a last word, no number, that takes the same few values for each name is the channel."""
    if any(n.channel for n in names):
        return names
    split: dict[str, set[str]] = defaultdict(set)
    for n in names:
        head, _, tail = n.field.rpartition("_")
        if head and not tail.isdigit() and not n.labels and not _WELL.fullmatch(tail):
            split[f"{n.folder}/{head}"].add(tail)
    sets = Counter(frozenset(v) for v in split.values())
    if not sets:
        return names
    common, times = sets.most_common(1)[0]
    if not 2 <= len(common) <= 6 or times < 2 or times < 0.8 * len(split):
        return names
    out = []
    for n in names:
        head, _, tail = n.field.rpartition("_")
        out.append(replace(n, field=head, channel=tail) if tail in common and head and not n.labels else n)
    return out


@dataclass(frozen=True)
class Groups:
    """Names sorted into fields of view.

    Attributes
    ----------
    fields : dict of str to dict of str to list of Named
        By a unique name of the field, then channel ("" = the file is the whole field); more than one file = planes or time points.
    labels : dict of str to str
        Path of a field's label mask.
    lone_labels : list of str
        Masks that belong to no field, or to more than one.
    """

    fields: dict[str, dict[str, list[Named]]]
    labels: dict[str, str]
    lone_labels: list[str]


def group_fields(names: Sequence[Named], masks: Sequence[Named]) -> Groups:
    """Sort images into fields of view and give each its label mask.

    Parameters
    ----------
    names : sequence of Named
        Images.
    masks : sequence of Named
        Label masks; one belongs to the field of its own name, in its own folder if the name occurs more than once.
    """
    by_key: dict[tuple[str, str], dict[str, list[Named]]] = defaultdict(lambda: defaultdict(list))
    for n in names:
        by_key[n.folder, n.field][n.channel].append(n)
    often = Counter(field for _, field in by_key)
    unique = {key: key[1] if often[key[1]] == 1 and key[1] else "_".join(p for p in (*key[0].split("/"), key[1]) if p) for key in by_key}
    doubled = Counter(unique.values())
    unique = {k: v if doubled[v] == 1 else f"{k[0]}/{k[1]}" for k, v in unique.items()}
    exact: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key, channels in by_key.items():
        for files in channels.values():
            for n in files:
                exact[strip_suffix(PurePosixPath(n.path).name).lower()].append(key)
        exact[key[1].lower()].append(key)
    labels: dict[str, str] = {}
    lone = []
    for m in masks:
        stem = re.sub(rf"[_\-. ](?:cp_)?(?:{'|'.join(LABELS)})$", "", strip_suffix(PurePosixPath(m.path).name), flags=re.IGNORECASE)
        keys = set(exact.get(stem.lower(), [])) or set(exact.get(m.field.lower(), []))
        near = {k for k in keys if k[0] == m.folder} or {k for k in keys if k[0].split("/")[-1:] == m.folder.split("/")[-1:]}
        keys = near if near and len(keys) > 1 else keys
        if len(keys) == 1 and unique[next(iter(keys))] not in labels:
            labels[unique[next(iter(keys))]] = m.path
        else:
            lone.append(m.path)
    return Groups({unique[k]: {c: list(f) for c, f in v.items()} for k, v in by_key.items()}, labels, lone)


GROUPINGS = ("well", "name", "folder", "field")


def image_of(n: Named, field: str, grouping: str) -> str:
    """Return the image (whose cells may be paired) that a field belongs to; see `choose_grouping`."""
    if grouping == "well" and n.well:
        plate = n.plate.replace("/", "_")
        return f"{plate}_{n.well}" if plate else n.well
    if grouping == "name":
        return "_".join(p for p in (*n.folder.split("/"), n.numbered or field) if p)
    if grouping == "folder":
        return n.folder.replace("/", "_") or "all"
    return field


def choose_grouping(fields: dict[str, Named]) -> tuple[str, str]:
    """Choose what makes an image in the paper's sense: fields that show the same protein in the same cells.

    Parameters
    ----------
    fields : dict of str to Named
        One name of each field.

    Returns
    -------
    grouping : str
        ``well`` (plate and well), ``name`` (the name without its field number), ``folder`` or ``field`` (each its own).
    why : str
    """
    n = max(1, len(fields))
    if sum(bool(f.well) for f in fields.values()) >= 0.8 * n:
        return "well", "the names tell plate and well"
    for grouping, why, can in (
        ("name", "the names tell the field's number", sum(bool(f.site and f.numbered) for f in fields.values()) >= 0.8 * n),
        ("folder", "the fields lie in several folders", len({f.folder for f in fields.values()}) > 1),
        ("name", "names that differ in the number at their end only", sum(bool(f.numbered) for f in fields.values()) >= 0.8 * n),
    ):
        sizes = Counter(image_of(f, name, grouping) for name, f in fields.items())
        if can and len(sizes) > 1 and sum(s > 1 for s in sizes.values()) >= 0.5 * len(sizes):
            return grouping, why
    return "field", "nothing in the names says which fields show the same protein"
