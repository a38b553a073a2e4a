"""Crops that a camera or a segmentation spoilt: how they are told, and what becomes of them.

A crop is flagged by its own pixels alone, so that the flag depends on no other cell and on no key of the recipe. Flagged cells stay
unless the recipe says ``[crop] flagged = "leave out"``: which images are too bright for a question is the user's to say, and results
must not change because a rule came later. The thresholds are here and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

COLUMN = "flag"
CONSTANT_PROTEIN, CONSTANT_MARKER, EMPTY, SATURATED = "constant protein", "constant marker", "empty", "saturated"
TERMS = (CONSTANT_PROTEIN, CONSTANT_MARKER, EMPTY, SATURATED)
KEEP, LEAVE_OUT = "keep", "leave out"
CHOICES = (KEEP, LEAVE_OUT)

LEVELS = 1  # grey levels that the pixels of a constant channel of whole numbers differ by at most: rounding alone gives one
RELATIVE = 1e-6  # the same for float32, as a share of the largest value: its rounding
FULL_SCALES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # the largest value of 8, 10, 12, 14, 16 bits; 1 for floats only
SATURATED_SHARE = 0.01  # of the pixels of a protein channel: 41 of 64 x 64. Fewer are the tip of one bright spot

RULE = (
    f"constant: the pixels of a channel differ by at most {LEVELS} level ({RELATIVE:g} of the largest for floats); "
    f"{CONSTANT_PROTEIN}: a protein channel is constant; {EMPTY}: every structural channel is; {CONSTANT_MARKER}: some are; "
    f"{SATURATED}: at least {SATURATED_SHARE:.0%} of the pixels of a protein channel have the same largest value, and it is the full "
    "scale of 8, 10, 12, 14 or 16 bits (or 1 for floats)"
)
_BYTES = 4 << 20  # of crops compared at a time, so that they stay in the caches


def flag_crops(crops: np.ndarray, n_protein: int) -> np.ndarray:
    """Name what is wrong with crops.

    Parameters
    ----------
    crops : ndarray
        (N, C, H, W), any dtype of a `CellDataset`, protein channels first.
    n_protein : int
        Number of protein channels.

    Returns
    -------
    ndarray of str
        (N,) of dtype object: terms of `TERMS` joined by ``;``, empty where nothing is wrong.
    """
    out = np.full(len(crops), "", object)
    step = max(1, _BYTES // max(1, crops[:1].nbytes))
    for start in range(0, len(crops), step):
        part = crops[start : start + step]
        found = _found(part, n_protein)
        for i in np.flatnonzero(found.any(1)):
            out[start + i] = ";".join(t for t, yes in zip(TERMS, found[i], strict=True) if yes)
    return out


def _found(crops: np.ndarray, n_protein: int) -> np.ndarray:
    """Return (N, terms) bool."""
    flat = crops.reshape(len(crops), crops.shape[1], -1)
    low, high = flat.min(2).astype(np.float64), flat.max(2).astype(np.float64)
    whole = crops.dtype.kind in "ui"
    constant = high - low <= (LEVELS if whole else RELATIVE * np.abs(high))
    protein, marker = constant[:, :n_protein], constant[:, n_protein:]
    scales = FULL_SCALES[1:] if whole else FULL_SCALES
    saturated = np.zeros(len(crops), bool)
    for i, c in zip(*np.nonzero(np.isin(high[:, :n_protein], scales) & ~protein), strict=True):  # few: the pixels are counted there only
        saturated[i] |= (flat[i, c] == flat[i, c].max()).mean() >= SATURATED_SHARE
    empty = marker.all(1)
    return np.stack([protein.any(1), marker.any(1) & ~empty, empty, saturated], 1)


@dataclass(frozen=True)
class Rule:
    """What becomes of flagged cells.

    Attributes
    ----------
    leave_out : bool
        They are not written.
    min_cells : int
        An image that keeps fewer cells after that is left out as a whole.
    """

    leave_out: bool = False
    min_cells: int = 1


class Gate:
    """Flags the cells of a dataset as they are written, counts them, and holds back those that the rule leaves out.

    Where cells are left out, those of an image wait until it has `Rule.min_cells` of them; no more are held in memory.
    """

    def __init__(self, rule: Rule, n_protein: int) -> None:
        self.rule, self.n_protein = rule, n_protein
        self.seen, self.left_out = 0, 0
        self.counts = dict.fromkeys(TERMS, 0)
        self.short: dict[str, int] = {}
        self._image: str | None = None
        self._waiting: list[tuple[np.ndarray, pd.DataFrame]] = []
        self._held = 0
        self._open = False  # the image has enough cells
        self._seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # a digest of each crop, its image and cell

    def pass_through(self, crops: np.ndarray, table: pd.DataFrame) -> list[tuple[np.ndarray, pd.DataFrame]]:
        """Take the next cells; return what is to be written now, with the column ``flag``."""
        flags = flag_crops(crops, self.n_protein)
        self.seen += len(flags)
        for term in TERMS:
            self.counts[term] += sum(term in f.split(";") for f in flags if f)
        table = table.assign(**{COLUMN: _joined(table[COLUMN], flags) if COLUMN in table else flags})
        if {"image", "cell_id"} <= set(table):
            self._look_at(crops, table, flags)
        if not self.rule.leave_out or "image" not in table:  # without images the table is refused at the end
            return [(crops, table)]
        out: list[tuple[np.ndarray, pd.DataFrame]] = []
        names = table["image"].astype(str).to_numpy()
        ends = [*(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
        begin = 0
        for end in ends if len(names) else []:
            if names[begin] != self._image:
                self._close()
                self._image = names[begin]
            good = begin + np.flatnonzero(flags[begin:end] == "")
            self.left_out += end - begin - len(good)
            self._held += len(good)
            self._waiting.append((crops[good], table.iloc[good]))
            self._open |= self._held >= self.rule.min_cells
            if self._open:
                out += [w for w in self._waiting if len(w[1])]
                self._waiting = []
            begin = end
        return out

    def _look_at(self, crops: np.ndarray, table: pd.DataFrame, flags: np.ndarray) -> None:
        """Keep 8 bytes of each crop that shows something, to find it again: it takes 20 µs for 16 kB."""
        rows = np.flatnonzero(flags == "")
        digests = [hashlib.blake2b(np.ascontiguousarray(crops[i]).data, digest_size=8).digest() for i in rows]
        known = table.iloc[rows]
        self._seen.append((np.frombuffer(b"".join(digests), np.uint64), known["image"].to_numpy(object), known["cell_id"].to_numpy(object)))

    def doubled(self) -> list[tuple[str, str]]:
        """Return the cells whose crop is in another image, too: (the first one, the other), by cell id."""
        if not self._seen:
            return []
        digest, image, cell = (np.concatenate(parts) for parts in zip(*self._seen, strict=True))
        _, first, same, times = np.unique(digest, return_index=True, return_inverse=True, return_counts=True)
        again = np.flatnonzero(times[same] > 1)
        return [(str(cell[first[same[i]]]), str(cell[i])) for i in again if str(image[first[same[i]]]) != str(image[i])]

    def _close(self) -> None:
        if self._image is not None and not self._open:
            self.short[self._image] = self._held
        self._waiting, self._held, self._open = [], 0, False

    def summary(self) -> dict[str, Any]:
        """Return what ``dataset.json`` keeps under ``flagged``; call it when all cells have passed."""
        self._close()
        self._image = None
        doubled = self.doubled()
        return {
            "rule": RULE,
            "flagged_cells": LEAVE_OUT if self.rule.leave_out else KEEP,
            "cells_seen": self.seen,
            "cells": self.counts,
            "left_out": self.left_out,
            "images_below_min_cells_then": self.short,
            "doubled": len(doubled),
            "doubled_examples": doubled[:20],
        }


def _joined(own: pd.Series, flags: np.ndarray) -> list[str]:
    """Add flags to those that a column of that name has already: a sample's, or a user's own."""
    texts = own.fillna("").astype(str)
    return [";".join(dict.fromkeys(filter(None, [*t.split(";"), *f.split(";")]))) for t, f in zip(texts, flags, strict=True)]


def told(flagged: dict[str, Any] | None) -> str:
    """Say in one line how many cells of a dataset are flagged and what became of them.

    Parameters
    ----------
    flagged : dict or None
        ``info["flagged"]`` of a `CellDataset`; None where it was made before cells were flagged.
    """
    if flagged is None:
        return "cells flagged: not looked at (made by an earlier version; 'pci check RECIPE' looks)"
    doubled = ""
    if flagged.get("doubled"):
        first, second = flagged["doubled_examples"][0]
        doubled = (
            f"\nWARNING: {flagged['doubled']} crops stand in two images, e.g. {first} and {second}: an image under two names would be on "
            "both sides of a split. Take one of them out"
        )
    found = [f"{n} {term}" for term, n in flagged["cells"].items() if n]
    if not found:
        return f"cells flagged: none of {flagged['cells_seen']}{doubled}"
    left = flagged["flagged_cells"] == LEAVE_OUT
    short = sum(flagged["images_below_min_cells_then"].values())
    more = f", and {short} more in images that then had too few" if short else ""
    what = f"left out{more}" if left else "kept ([crop] flagged = \"leave out\" leaves them out; column 'flag')"
    return f"cells flagged: {', '.join(found)} of {flagged['cells_seen']}; {what}{doubled}"


def flagged_rows(table: pd.DataFrame, terms: Sequence[str] = TERMS) -> np.ndarray:
    """Tell which cells of a table carry one of the terms: (cells,) bool, all false where there is no column ``flag``."""
    if COLUMN not in table:
        return np.zeros(len(table), bool)
    return np.array([bool(set(str(f).split(";")) & set(terms)) for f in table[COLUMN]], bool)
