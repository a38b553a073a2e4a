"""Which channel is the protein, which one shows the cells, and what their outlines are: from names first, then from the pictures."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from pci_core.data.guess import kind_of
from pci_core.data.survey import Survey, channel_names
from pci_core.errors import ImageError
from pci_core.imaging.cell_size import WHOLE, CellSize, contrast, estimate, fill, is_nuclear, segment_plane, summarise
from pci_core.imaging.crop import CellCrops
from pci_core.imaging.masks import channel_kind
from pci_core.imaging.segment import read_labels

LARGEST = 2500  # px: of larger fields the middle is looked at
_TRIED = 2  # fields on which all channels are tried
_NUCLEUS_FILLED = 0.45  # evenness of a nuclear marker from which the outlines are those of nuclei
_GOOD, _FAIR = 0.75, 0.5  # scores of `CellSize`


@dataclass
class Sampled:
    """One field that was looked at: planes in the survey's channel order, later reduced and labelled."""

    name: str
    planes: np.ndarray
    labels: np.ndarray | None = None
    crops: CellCrops | None = None


def middle_of(planes: np.ndarray) -> np.ndarray:
    """Return the middle of a large field, (..., H, W)."""
    y, x = (max(0, (s - LARGEST) // 2) for s in planes.shape[-2:])
    return planes[..., y : y + LARGEST, x : x + LARGEST]


def labels_of(survey: Survey, s: Sampled) -> np.ndarray:
    facts = survey.shape(s.name)
    return middle_of(read_labels(survey.folder / survey.labels[s.name], (facts.height, facts.width)))


def segmentation(
    survey: Survey,
    sample: list[Sampled],
    kinds: list[str],
    protein: int | None,
    asked: int | None,
    method: str | None,
    checks: dict[str, str],
) -> tuple[int | None, str, CellSize]:
    names = channel_names(survey.channels)
    if survey.labels and method in (None, "labels"):
        size = summarise([labels_of(survey, s) for s in sample], "labels")
        if asked is not None:
            checks["segment"] = "label masks lie beside the fields and are used; the channel asked for is not"
        return None, "labels", size
    if method == "labels":
        raise ImageError(
            f"{survey.folder}: no label masks were found for --method labels. Name them as the fields, with _labels or _mask at the end."
        )
    classic = method if method not in (None, "cellpose") else None
    planes = {i: [s.planes[i] for s in sample] for i in range(len(names))}
    marker = asked if asked is not None else next((i for i, k in enumerate(kinds) if k == "nucleus" and i != protein), None)
    if marker is not None:
        by = _method_of(names[marker]) if asked is not None else "nuclei-split"
        if by:
            size = estimate(planes[marker], classic or by)
            if size.score < _FAIR:
                checks["segment"] = f"'{names[marker]}' by its name, but {_quality(size)}"
            return marker, method or size.method, size
    candidates = [marker] if marker is not None else [i for i in planes if i != protein]
    found = {}
    for i in candidates:
        few = sorted(planes[i], key=contrast, reverse=True)[: _TRIED if len(candidates) > 1 else None]
        size = estimate(few, classic or _method_of(names[i]) or "nuclei-split")
        even, clear = _filled(few, size)
        # round, alike, evenly lit and clear of the background: a marker of whole cells or nuclei rather than of a part of them
        found[i] = (size.score * (0.3 + even) * clear / (clear + 10), size)
    ranked = sorted(found, key=lambda i: found[i][0], reverse=True)
    best, size = ranked[0], found[ranked[0]][1]
    if len(ranked) > 1 and math.isfinite(size.diameter):
        size = estimate(planes[best], size.method, size.diameter / 2)
    if size.method == "yeast-brightfield" or len(ranked) > 1 or size.score < _GOOD:
        others = f"; next best '{names[ranked[1]]}'" if len(ranked) > 1 else ""
        doubt = "NOT SURE: " if len(ranked) > 1 and found[ranked[1]][0] > 0.5 * found[best][0] else ""
        checks["segment"] = f"{doubt}'{names[best]}' by the picture ({_quality(size)}){others}"
    return best, method or size.method, size


def _method_of(name: str) -> str:
    if kind_of(name) == "nucleus":
        return "nuclei-split"
    kind = {"ring": "yeast-ring", "brightfield": "yeast-brightfield"}.get(channel_kind(name), "")
    return kind or ("yeast-brightfield" if kind_of(name) == "brightfield" else "")


def _quality(size: CellSize) -> str:
    if not math.isfinite(size.diameter):
        return "NO cells were found"
    word = (
        "round objects of like size"
        if size.score >= _GOOD
        else "objects of mixed shape"
        if size.score >= _FAIR
        else "objects that hardly look like cells"
    )
    return f"{word}, score {size.score:.2f} of 1"


def _filled(planes: list[np.ndarray], size: CellSize) -> tuple[float, float]:
    if not math.isfinite(size.diameter):
        return 0.0, 0.0
    best = int(np.argmax(np.array(size.counts) * np.array(size.trust)))
    return fill(planes[best], segment_plane(planes[best], size.method, size.settings))


def protein_by_picture(
    sample: list[Sampled], size: CellSize, segment: int | None, images: dict[str, str], names: list[str], checks: dict[str, str]
) -> int:
    """Take the channel whose light differs most between images against within, where that can be told; else the first."""
    candidates = [i for i in range(len(names)) if i != segment]
    use = [s for s, t, n in zip(sample, size.trust, size.counts, strict=True) if t > size.unsure and n > 1]
    groups = Counter(images[s.name] for s in use)
    repeated = [s for s in use if groups[images[s.name]] > 1]
    ratios: dict[int, float] = {}
    if len({images[s.name] for s in repeated}) > 1:
        for i in candidates:
            traits = np.array([_traits(s.planes[i]) for s in repeated])
            own = np.array([images[s.name] for s in repeated])
            middle = np.array([traits[own == g].mean(0) for g in own])
            within = ((traits - middle) ** 2).sum(0) / max(1, len(own) - len(set(own)))
            between = ((middle - traits.mean(0)) ** 2).sum(0) / (len(set(own)) - 1)
            ratios[i] = float(np.mean(np.log((between + 1e-6) / (within + 1e-6))))
    ranked = sorted(ratios, key=lambda i: ratios[i], reverse=True)
    if len(ranked) == 1 or (ranked and ratios[ranked[0]] - ratios[ranked[1]] > math.log(2)):
        why = "its light differs most between images against within them" if len(ranked) > 1 else "the other channel shows the cells"
        checks["protein"] = f"NOT SURE: no name says which channel is the protein; took '{names[ranked[0]]}', {why}"
        return ranked[0]
    checks["protein"] = (
        f"NOT SURE: no name says which channel is the protein; took '{names[candidates[0]]}', the first that cells are not found on"
    )
    return candidates[0]


def _traits(plane: np.ndarray) -> list[float]:
    low, middle, high, top = np.percentile(plane[::2, ::2], (5, 50, 95, 99.8))
    fine = float(np.abs(np.diff(plane[::2, ::2].astype(np.float32), axis=1)).mean())
    span = max(float(top - low), 1.0)
    return [
        math.log(span),
        math.log(max(float(high - low), 0.5) / span),
        math.log(max(float(middle - low), 0.5) / span),
        math.log((fine + 1e-3) / span),
    ]


def is_whole(sample: list[Sampled], size: CellSize, segment: int | None, kinds: list[str], checks: dict[str, str]) -> bool:
    """Tell whether outlines are those of whole cells, from the method, the channel's name, or the light inside and around them."""
    if size.method in WHOLE:
        return True
    if segment is not None and kinds[segment] == "nucleus":
        return False
    dna = kinds.index("nucleus") if "nucleus" in kinds else None
    votes = [
        (_outlines_nucleus(s, size, dna), count)
        for s, count, trust in zip(sample, size.counts, size.trust, strict=True)
        if s.labels is not None and trust > size.unsure and math.isfinite(size.diameter)
    ]
    told = sum(n for vote, n in votes if vote is not None)
    nuclear = sum(n for vote, n in votes if vote) / max(told, 1)
    if not told or 0.25 < nuclear < 0.75:
        checks["crop"] = "NOT SURE whether the outlines are those of nuclei or of whole cells"
    return told > 0 and nuclear <= 0.25  # in doubt a nucleus: its crop is the wider one


def _outlines_nucleus(s: Sampled, size: CellSize, dna: int | None) -> bool | None:
    assert s.labels is not None
    if dna is not None and fill(s.planes[dna], s.labels)[0] > _NUCLEUS_FILLED:
        return True
    return is_nuclear(s.planes, s.labels, size.diameter)


def as_yeast(sample: list[Sampled], segment: int, size: CellSize, checks: dict[str, str]) -> tuple[str, CellSize]:
    """Take the method for yeast on a channel that fills whole round cells, unless it finds far fewer of them."""
    again = estimate([s.planes[segment] for s in sample], "yeast", size.diameter / 2)
    before = sum(n for n, t in zip(size.counts, size.trust, strict=True) if t > size.unsure)
    # with buds joined to their mothers, cells are fewer and less round
    if again.score < 0.4 * size.score or sum(again.counts) < 0.4 * before:
        return size.method, size
    for s in sample:
        s.labels = segment_plane(s.planes[segment], again.method, again.settings)
    told = checks.get("segment", "")
    checks["segment"] = (
        f"{told}{'; ' if told else ''}the channel fills whole round cells: taken for yeast (method 'yeast' joins buds to mothers)"
    )
    return again.method, again
