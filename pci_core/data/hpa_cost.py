"""What a download from the Human Protein Atlas (HPA) costs before it begins: images, bytes, hours, room on the disk, terms of use."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pci_core.data.hpa_addresses import CREDIT, Release, variants
from pci_core.data.hpa_plan import Plan
from pci_core.data.polite import Manners, PoliteSession
from pci_core.errors import StorageError

BYTES_AN_IMAGE = 600_000  # taken where no server tells a size: RGB JPEGs, most of them 2048x2048 px
PAPER = {"proteins": 12_068, "images": 41_517, "fields": 83_000}  # release 18, Lu et al. 2019, Methods; usually 2 fields an image
SAMPLE = 5  # images whose size is asked for


@dataclass(frozen=True)
class Cost:
    """What a download needs.

    Attributes
    ----------
    fields : int
        Images still to be fetched.
    bytes_each : float
        Mean size of one.
    measured : int
        How many sizes the server told; 0 = `bytes_each` is assumed.
    hours : float
        At least, by the pause between requests.
    free : int
        Bytes free on the disk.
    """

    fields: int
    bytes_each: float
    measured: int
    hours: float
    free: int

    @property
    def total(self) -> float:
        """Bytes of all that is still to be fetched."""
        return self.fields * self.bytes_each

    def require_space(self, folder: Path) -> None:
        """Raise a `StorageError` where the disk has too little room, with a twentieth to spare."""
        if self.total * 1.05 > self.free:
            raise StorageError(
                f"{self.fields} images need about {self.total / 1e9:.1f} GB, but {folder} has {self.free / 1e9:.1f} GB free. "
                "Free some space, choose a folder on another disk with --out, or ask for fewer (--genes, --images-per-gene)."
            )


def cost(rows: Sequence[dict[str, str]], release: Release, folder: Path, session: PoliteSession, measure: bool = True) -> Cost:
    """Return what fetching these rows of a plan costs; with `measure`, the server is asked for the size of some."""
    sizes: list[int] = []
    if measure and rows:
        for i in np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(int)):
            size = session.size(variants(rows[i]["url"], release)[0])
            sizes += [size] if size else []
    each = float(np.mean(sizes)) if sizes else float(BYTES_AN_IMAGE)
    return Cost(len(rows), each, len(sizes), _hours(len(rows), session.manners), _free(folder))


def _hours(requests: int, manners: Manners) -> float:
    return requests * manners.interval / 3600


def _free(folder: Path) -> int:
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def describe(plan: Plan, cost: Cost) -> list[str]:
    """Return lines that say what a plan holds, leaves out and costs."""
    said = sorted({row["release"] for row in plan.rows} - {"", plan.release.name})  # "newest" is the name of none
    of = f"release {plan.release.name}" + (f" (its entries say {', '.join(said)})" if said else "")
    had = len(plan.rows) - cost.fields
    source = f"measured on {cost.measured}" if cost.measured else "assumed, no size was told"
    lines = [
        f"Human Protein Atlas, {of}: {plan.count('ensembl')} genes, {plan.count('antibody')} antibodies, "
        f"{plan.count('image')} images (protein x cell line x antibody), {len(plan.rows)} fields of view",
        f"to fetch: {cost.fields} fields{f' ({had} are there)' if had else ''}, about {_size(cost.total)} "
        f"({cost.bytes_each / 1e6:.2f} MB each, {source}), at least {_time(cost.hours)}; {_size(cost.free)} free on the disk",
    ]
    lines += [f"left out: {n} fields, {why}" for why, n in _counts(row["reason"] for row in plan.left_out)]
    lines += [f"not asked for: {n} fields ({why})" for why, n in plan.skipped.most_common()]
    lines += [f"genes without images of cells: {_some(plan.empty)}"] if plan.empty else []
    lines += [f"genes that the release does not have: {_some(plan.unknown)}"] if plan.unknown else []
    return [*lines, *terms(plan.release)]


def describe_unseen(release: Release, folder: Path, session: PoliteSession) -> list[str]:
    """Return lines on the cost of the whole atlas before its file of all entries is there."""
    size = session.size(release.whole_atlas)
    fields = PAPER["fields"]
    return [
        f"Human Protein Atlas, release {release.name}, whole: the numbers are known once {release.whole_atlas} "
        f"({_size(size) if size else 'size not told'}) is there, which this dry run does not fetch",
        f"for scale, release 18 as the paper had it: {PAPER['proteins']:,} proteins, {PAPER['images']:,} images of usually 2 fields; about "
        f"{_size(fields * BYTES_AN_IMAGE)} at an assumed {BYTES_AN_IMAGE / 1e6:.1f} MB a field, at least "
        f"{_time(_hours(fields, session.manners))}; {_size(_free(folder))} free on the disk",
        *terms(release),
    ]


def terms(release: Release) -> list[str]:
    """Return the lines on licence and credit."""
    return [f"licence: {release.licence}; what counts is {release.licence_page}", f"credit: {CREDIT}"]


def _counts(values: Iterable[str]) -> list[tuple[str, int]]:
    return Counter(values).most_common()


def _size(n: float) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB"


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(hours * 60))} min"


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:10])}{' …' if len(names) > 10 else ''})"
