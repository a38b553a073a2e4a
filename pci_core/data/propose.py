"""Roles, segmentation, cell size and crop for a surveyed folder: each with its reason and whether a person must check it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pci_core import recipe as recipes
from pci_core.data.guess import GROUPINGS, choose_grouping, image_of, kind_of
from pci_core.data.roles import Sampled, as_yeast, is_whole, labels_of, middle_of, protein_by_picture, segmentation
from pci_core.data.survey import Survey, channel_names
from pci_core.errors import ImageError, unknown_name
from pci_core.imaging.cell_size import CELL_FACTOR, NUCLEUS_FACTOR, CellSize, propose_crop, segment_plane, settings_for, summarise
from pci_core.imaging.crop import crop_cells
from pci_core.imaging.read import downscale, read_field
from pci_core.imaging.segment import tidy
from pci_core.recipe import SEGMENTERS, Recipe

SAMPLE = 8  # fields that are read
_EMPTY_8BIT = 12  # grey levels of the 99.99th percentile up to which an 8-bit channel holds nothing but noise
_CHECKED = 150  # fields of 8 bit that are all read to find empty channels; of more, only if the sample has one
_DIM = 0.3  # of the usual brightness of a channel: below it an 8-bit marker holds only what shines through from others
_PAPER = {True: 30, False: 5}  # fewest cells of an image: yeast (whole cells) and human


@dataclass
class Proposal:
    """All that the recipe and the contact sheet need.

    ``order``: indices of the survey's channels, protein first, then the segmented one; ``checks``: what a person must look at,
    by key of the recipe; ``size``: px of the unreduced field; ``reduced``: the same on reduced fields.
    """

    survey: Survey
    name: str
    names: list[str]
    order: list[int]
    method: str
    segment: int | None
    whole: bool
    size: CellSize
    reduced: CellSize
    crop: int
    downscale: int
    grouping: str
    images: dict[str, str]
    um_per_px: float
    min_cells: int
    cells_per_image: float
    sample: list[Sampled]
    checks: dict[str, str] = field(default_factory=dict)

    @property
    def channels(self) -> list[str]:
        """Recipe names of the channels, protein first."""
        return [self.names[i] for i in self.order]


def propose(
    survey: Survey,
    name: str,
    *,
    protein: str | None = None,
    segment: str | None = None,
    group: str | None = None,
    method: str | None = None,
) -> Proposal:
    """Look at a sample of the fields and propose a recipe.

    Parameters
    ----------
    survey : Survey
        Fields with an empty protein or segmented channel are taken out of it.
    name : str
        Of the recipe.
    protein, segment : str, optional
        Channels, as the files or the recipe name them, instead of a guess.
    group : str, optional
        One of `guess.GROUPINGS`.
    method : str, optional
        One of the recipe's segmentation methods.

    Raises
    ------
    UnknownNameError
        No such channel, grouping or method.
    ImageError
        Fields cannot be read, or fewer than two channels hold anything.
    """
    for value, known, what in ((group, GROUPINGS, "grouping"), (method, SEGMENTERS, "segmentation method")):
        if value is not None and value not in known:
            raise unknown_name(what, value, known)
    checks: dict[str, str] = {}
    grouping, why = choose_grouping(survey.names)
    if group:
        grouping, why = group, "as asked"
    names = channel_names(survey.channels)
    chosen = {k: _index(v, survey.channels, names) for k, v in (("protein", protein), ("segment", segment)) if v is not None}
    sample = _read_sample(survey, grouping, names)
    _drop_empty(survey, sample, names)
    names = channel_names(survey.channels)
    chosen = {k: _index(v, survey.channels, names) for k, v in (("protein", protein), ("segment", segment)) if v is not None}
    images = {f: image_of(n, f, grouping) for f, n in survey.names.items()}
    sample = [s for s in sample if s.name in survey.fields]
    kinds = [kind_of(c) for c in survey.channels]
    protein_at = chosen.get("protein", next((i for i, k in enumerate(kinds) if k == "protein"), None))
    segment_at, how, size = segmentation(survey, sample, kinds, protein_at, chosen.get("segment"), method, checks)
    for s in sample:
        if how == "labels":
            s.labels = labels_of(survey, s)
        elif segment_at is not None:
            s.labels = segment_plane(s.planes[segment_at], size.method, size.settings)
    if protein_at is None:
        protein_at = protein_by_picture(sample, size, segment_at, images, names, checks)
    elif "protein" not in chosen and kinds.count("protein") > 1:
        checks["protein"] = f"'{names[protein_at]}' is the first of several channels whose names could be the protein's"
    if protein_at == segment_at:
        checks["segment"] = f"cells are found on the protein channel '{names[protein_at]}': better a structural marker"
    whole = is_whole(sample, size, segment_at, kinds, checks)
    if how == "nuclei-split" and whole and method is None and segment_at is not None and kinds[segment_at] != "nucleus":
        how, size = as_yeast(sample, segment_at, size, checks)
    um = _pixel_size(survey, checks)
    crop, factor = 64, 1
    if math.isfinite(size.diameter):
        shortest = min(min(survey.shape(s.name).height, survey.shape(s.name).width) for s in sample)
        crop, factor = propose_crop(size.diameter, whole, shortest)
        wanted = size.diameter * (CELL_FACTOR if whole else NUCLEUS_FACTOR)
        if crop * factor < 0.9 * wanted:
            checks["crop"] = (
                f"a crop that holds an average cell would be {wanted:.0f} px, too wide for fields of {shortest} px: held to half of that"
            )
    reduced = _reduce(sample, segment_at, size, factor, whole, crop)
    checks["image"] = f"fields with the same 'image' must show the same protein in the same kind of cells; grouped by {grouping}: {why}"
    per_field = float(np.median([len(s.crops.labels) for s in sample if s.crops is not None]))
    per_image = per_field * len(survey.fields) / max(1, len(set(images.values())))
    least = max(2, min(_PAPER[whole], int(per_image // 2)))
    rest = [i for i in range(len(names)) if i not in (protein_at, segment_at)]
    order = [i for i in (protein_at, None if segment_at == protein_at else segment_at, *rest) if i is not None]
    return Proposal(
        survey=survey, name=name, names=names, order=order, method=how, segment=segment_at, whole=whole, size=size, reduced=reduced,
        crop=crop, downscale=factor, grouping=grouping, images=images, um_per_px=um, min_cells=least, cells_per_image=per_image,
        sample=sample, checks=checks,
    )  # fmt: skip


def draft(survey: Survey, names: Sequence[str]) -> Recipe:
    """Return a recipe that reads the survey's fields, channels in the survey's order."""
    content: dict[str, Any] = {
        "name": "draft", "title": "", "source": {"kind": "table", "path": "."}, "fields": fields_section(survey, names, range(len(names))),
        "channels": [{"name": n, "role": "protein" if i == 0 else "structural"} for i, n in enumerate(names)],
    }  # fmt: skip
    return recipes.parse(content, f"{survey.folder}")


def fields_section(survey: Survey, names: Sequence[str], order: Sequence[int]) -> dict[str, Any]:
    """Return the keys of [fields] that say how files are read: format, and what each plane holds."""
    out: dict[str, Any] = {"format": survey.format}
    if survey.format == "named":
        out["file_channels"] = [survey.channels[i] for i in order]
    elif survey.format != "separate":
        out["order"] = [names[survey.channels.index(p)] if p in survey.channels else "" for p in survey.order]
    return out


def row_of(survey: Survey, name: str, names: Sequence[str]) -> dict[str, str]:
    """Return a field's row of the field table, paths relative to the surveyed folder."""
    files = survey.fields[name]
    row = {"path": files[""]} if "" in files else {f"path_{n}": files[c] for c, n in zip(survey.channels, names, strict=True)}
    return {"field": name, **row, **({"labels": survey.labels[name]} if survey.labels else {})}


def _index(name: str, channels: Sequence[str], names: Sequence[str]) -> int:
    for known in (channels, names, [c.lower() for c in channels]):
        if name in known or name.lower() in known:
            return list(known).index(name if name in known else name.lower())
    raise unknown_name("channel", name, list(channels))


def _spread(survey: Survey, grouping: str, most: int) -> list[str]:
    """Choose fields from as many images as possible, evenly over the folder."""
    by_image: dict[str, list[str]] = {}
    for f, n in survey.names.items():
        by_image.setdefault(image_of(n, f, grouping), []).append(f)
    images = list(by_image)
    repeated = [i for i in images if len(by_image[i]) > 1]
    wide = repeated if len(repeated) >= most // 2 else images
    count = min(len(wide), most // 2 if wide is repeated else most)
    chosen = [wide[i] for i in np.unique(np.linspace(0, len(wide) - 1, count).astype(int))]
    turns = [by_image[i][k] for k in range(most) for i in chosen if k < len(by_image[i])]
    return turns[:most]


def _read_sample(survey: Survey, grouping: str, names: Sequence[str]) -> list[Sampled]:
    recipe, out, wrong = draft(survey, names), [], []
    for name in _spread(survey, grouping, SAMPLE):
        try:
            planes = read_field(row_of(survey, name, names), recipe, survey.folder)
        except ImageError as error:
            wrong.append(str(error))
            survey.drop_field(name, f"unreadable: {error}")
            continue
        out.append(Sampled(name, middle_of(planes)))
    if not out:
        raise ImageError(f"{survey.folder}: none of the {len(wrong)} fields that were tried can be read, e.g. {wrong[0]}")
    return out


def is_empty(plane: np.ndarray) -> bool:
    """Tell that a channel holds nothing: constant, or 8 bit and no brighter than noise."""
    if plane.dtype == np.uint8 and np.percentile(plane, 99.99) <= _EMPTY_8BIT:
        return True
    return bool(plane.min() == plane.max())


def _bright(plane: np.ndarray) -> float:
    return float(np.percentile(plane[::2, ::2], 99))  # a scale bar in white takes less


def _drop_empty(survey: Survey, sample: list[Sampled], names: list[str]) -> None:
    """Take out channels that are empty everywhere, and fields that lack one of the others."""
    empty = np.array([[is_empty(p) for p in s.planes] for s in sample])
    dead = [i for i in range(len(names)) if empty[:, i].all()]
    live = [i for i in range(len(names)) if i not in dead]
    if len(live) < 2:
        raise ImageError(
            f"{survey.folder}: of the channels {', '.join(names)}, {', '.join(names[i] for i in dead)} hold nothing in all {len(sample)} "
            "fields that were looked at. Paired cell inpainting needs at least two channels."
        )
    eight_bit = sample[0].planes.dtype == np.uint8
    if empty[:, live].any() or (eight_bit and len(survey.fields) <= _CHECKED):
        # a protein may be rare or absent; a marker that the others have must be there
        markers = [eight_bit and kind_of(c) in ("nucleus", "marker") for c in survey.channels]
        usual = [float(np.median([_bright(s.planes[i]) for s in sample])) if eight_bit else 0.0 for i in range(len(names))]
        recipe = draft(survey, names)
        for name in list(survey.fields):
            try:
                planes = read_field(row_of(survey, name, names), recipe, survey.folder)
            except ImageError as error:
                survey.drop_field(name, f"unreadable: {error}")
                continue
            gone = [names[i] for i in live if is_empty(planes[i]) or (markers[i] and _bright(planes[i]) < _DIM * usual[i])]
            if gone:
                survey.drop_field(name, f"channel {', '.join(gone)} is empty")
    for i in reversed(dead):
        survey.seen.append(f"channel '{names[i]}' is empty in all fields looked at: not used")
        channel = survey.channels.pop(i)
        for files in survey.fields.values():
            files.pop(channel, None)
        for s in sample:
            s.planes = np.delete(s.planes, i, axis=0)


def _pixel_size(survey: Survey, checks: dict[str, str]) -> float:
    told = Counter(round(survey.shape(f).um_per_px, 5) for f in survey.fields)
    size = told.most_common(1)[0][0]
    if len(told) > 1:
        listed = ", ".join(f"{v:g} ({n} fields)" for v, n in told.most_common(5))
        checks["um_per_px"] = f"the files give several pixel sizes: {listed}; bring all fields to one scale first"
        return 0.0
    if not size:
        checks["um_per_px"] = "the files do not say how large a pixel is; write it here, in µm"
    return size


def _reduce(sample: list[Sampled], segment: int | None, size: CellSize, factor: int, whole: bool, crop: int) -> CellSize:
    """Reduce the sample as the recipe will, find its cells again and cut them out."""
    settings = settings_for(size.method, size.diameter / 2 / factor if math.isfinite(size.diameter) else 10.0)
    low, high = (0.05, 0.95) if whole else (0.0, 1.0)
    for s in sample:
        s.planes = downscale(s.planes, factor)
        if segment is not None:
            s.labels = segment_plane(s.planes[segment], size.method, settings)
        elif s.labels is not None:
            half = factor // 2
            s.labels = tidy(s.labels[half::factor, half::factor][: s.planes.shape[1], : s.planes.shape[2]], settings.min_area, True)
        if s.labels is not None:
            s.crops = crop_cells(s.planes, s.labels, crop, 64, min_fraction=low, max_fraction=high)
    return summarise([s.labels for s in sample if s.labels is not None], size.method, settings)
