"""Images of the Human Protein Atlas (HPA) for a list of genes or all of them: a plan first, then the download.

`plan` fetches entries and says which fields of view there are; `fetch` has the images. The folder then holds
``images/<antibody>/<plate>_<well>_<n>_blue_red_green.jpg``, ``fields.csv`` (the field table that recipe ``hpa``
reads), ``manifest.csv`` (what was had, what failed and why), ``LICENCE.txt`` and ``CREDIT.txt``. The same again
fetches only what is missing.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from tqdm import tqdm

from pci_core.data import download
from pci_core.data.hpa_addresses import CREDIT, Release, variants
from pci_core.data.hpa_cost import Cost, cost, describe, describe_unseen, terms
from pci_core.data.hpa_entries import Entries
from pci_core.data.hpa_plan import Plan, Selection, plan
from pci_core.data.manifest import FAILED, NOT_THERE, OK, Manifest
from pci_core.data.polite import GaveUp, NotThere, PoliteSession, Stopped
from pci_core.data.side_by_side import side_by_side
from pci_core.errors import DownloadError, ImageError
from pci_core.storage import atomic_path, locked, write_text
from pci_core.tables import write_rows

__all__ = ["Cost", "Outcome", "Plan", "Selection", "check_jpeg", "cost", "describe", "describe_unseen", "fetch", "has_whole_atlas",
           "missing_rows", "plan"]  # fmt: skip

FAILED_IN_A_ROW, NOT_THERE_IN_A_ROW = 20, 100  # after so many the server is left alone
FIELD_COLUMNS = ("field", "image", "path", "protein", "ensembl", "antibody", "cell_line", "location", "go", "reliability",
                 "variation_intensity", "variation_spatial", "plate", "well", "release")  # fmt: skip
_LARGEST = 64 << 20  # bytes of an image
_LARGEST_SIDE = 10_000  # px
_TABLE_EVERY = 500  # images after which manifest.csv is written anew


@dataclass(frozen=True)
class Outcome:
    """What became of a plan: fields in ``fields.csv``, fetched now, there before, failed, not there; bytes that came over the line."""

    fields: int
    fetched: int
    had: int
    failed: int
    not_there: int
    received: int


def check_jpeg(path: Path) -> None:
    """Decode a JPEG of three colours to its end; damage that the decoder glosses over is not seen.

    Raises
    ------
    ImageError
        It is no JPEG, cut off, damaged, empty, far too large, or has no three colour channels.
    """
    content = path.read_bytes()
    if not content.startswith(b"\xff\xd8"):
        start = content[:200].lstrip()
        raise ImageError(f"no JPEG but {'a web page' if start.startswith(b'<') else repr(start[:20])}, {len(content)} bytes")
    if content.rfind(b"\xff\xd9") < len(content) // 2:  # its end mark, which no picture data can hold
        raise ImageError(f"a JPEG that is cut off after {len(content)} bytes")
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            if min(image.size) < 1 or max(image.size) > _LARGEST_SIDE:
                raise ImageError(f"a JPEG of {image.size[0]}x{image.size[1]} px")
            if image.mode != "RGB":
                raise ImageError(f"a JPEG of mode {image.mode} instead of three colours")
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"a damaged JPEG ({error})") from error


def has_whole_atlas(folder: str | os.PathLike[str], release: Release) -> bool:
    """Whether the file of all entries lies in the folder of a download already."""
    return Entries(Path(folder), release, PoliteSession()).whole_file.is_file()


def missing_rows(plan: Plan, manifest: Manifest | None = None, again: bool = False, progress: bool = False) -> list[dict[str, str]]:
    """Return the rows of a plan whose image is not there yet; those that the server does not have only with `again`."""
    manifest = manifest or Manifest(plan.folder)
    out = []
    for row in tqdm(plan.rows, desc="looking at what is there", unit=" images", disable=not progress or len(manifest.rows) < 1000):
        known = manifest.rows.get(row["file"], {}).get("status")
        if not manifest.has(row["file"], check_jpeg, variants(row["url"], plan.release)[0]) and (again or known != NOT_THERE):
            out.append(row)
    return out


def fetch(
    plan: Plan,
    *,
    session: PoliteSession | None = None,
    newer: Release | None = None,
    again: bool = False,
    progress: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Download the images of a plan and write the field table.

    Parameters
    ----------
    plan : Plan
        See `plan`.
    session : PoliteSession, optional
        With other manners than the default ones.
    newer : Release, optional
        Look for an image that is not there under the address that this release's entry gives it, e.g. ``release("newest")``.
    again : bool
        Ask once more for images that were not there in an earlier run.
    progress : bool
        Progress bar on stderr.
    say : callable
        Told what is done, line by line.

    Returns
    -------
    Outcome

    Raises
    ------
    DownloadError
        The server refuses persistently, or no image of the plan could be had. What was had is kept and noted.
    StorageError
        Too little room, or the folder cannot be written.
    """
    session = session or PoliteSession(trusted=plan.release.trusts)
    folder = plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        manifest = Manifest(folder)
        if manifest.torn:
            say(f"{manifest.journal}: {manifest.torn} lines that a crash tore were left out")
        rows = missing_rows(plan, manifest, again, progress)
        cost(rows, plan.release, folder, session, measure=False).require_space(folder)
        manners, hosts = session.manners, sorted({urlsplit(variants(r["url"], plan.release)[0]).netloc for r in rows})
        if rows and os.environ.get(download.MIRROR):
            say(f"{len(rows)} images from the folder {os.environ[download.MIRROR]} ({download.MIRROR} is set), not from the network")
        elif rows:
            say(
                f"{len(rows)} images from {', '.join(hosts)}: {manners.connections} connections, at least {manners.interval:g} s between "
                f"two requests, {manners.tries} tries"
            )
        other = newer is not None and newer.name != plan.release.name
        run = _Run(plan, manifest, session, Entries(folder, newer, session) if newer is not None and other else None)
        try:
            run.all(rows, progress)
        finally:
            manifest.write_table(plan.left_out)
        return _write_results(plan, manifest, run.counts)


class _Run:
    """One download: asks for images and notes what became of each."""

    def __init__(self, plan: Plan, manifest: Manifest, session: PoliteSession, newer: Entries | None) -> None:
        self.plan, self.manifest, self.session, self.newer = plan, manifest, session, newer
        self.counts: Counter[str] = Counter()
        self._addresses: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def all(self, rows: Iterable[dict[str, str]], progress: bool) -> None:
        rows = list(rows)
        in_a_row: Counter[str] = Counter()
        patient = bool(os.environ.get(download.MIRROR))  # a mirror answers at once, so that its gaps can all be counted
        work = side_by_side(rows, self._one, self.session.manners.connections, self.session.stop)
        with closing(work), tqdm(total=len(rows), desc="images", unit=" images", disable=not progress or not rows) as bar:
            for row, fate in work:
                if isinstance(fate, Exception):
                    raise fate
                self.manifest.add(row["file"], **fate)
                status = fate["status"]
                self.counts[status] += 1
                self.counts["received"] += fate["received"]
                in_a_row = Counter({status: in_a_row[status] + 1})
                bar.update()
                rate = self.counts["received"] / 1e6 / max(bar.format_dict["elapsed"], 1e-9)
                bar.set_postfix_str(f"{rate:.1f} MB/s, {self.counts[FAILED]} failed, {self.counts[NOT_THERE]} not there", refresh=False)
                if bar.n % _TABLE_EVERY == 0:
                    self.manifest.write_table(self.plan.left_out)
                if not patient and in_a_row[FAILED] >= FAILED_IN_A_ROW or in_a_row[NOT_THERE] >= NOT_THERE_IN_A_ROW:
                    raise DownloadError(
                        f"{in_a_row[status]} images in a row could not be had, so the server is left alone ({fate['reason']}). "
                        f"{self.counts[OK]} images were had and are kept. Look at {self.manifest.table} and run the same command "
                        "again later."
                    )

    def _one(self, row: dict[str, str]) -> dict[str, Any]:
        """Fetch one image from the first of its addresses that has it; runs in a thread."""
        tried: list[str] = []
        tries, reason, gave_up = 0, "", ""
        silent: set[str] = set()
        target = self.plan.folder / row["file"]
        sources: tuple[Callable[[], Iterable[str]], ...] = (lambda: variants(row["url"], self.plan.release), lambda: self._newer(row))
        for addresses in sources:
            for url in addresses():
                host = urlsplit(url).netloc
                if url in tried or host in silent:
                    continue
                tried.append(url)
                try:
                    had = self.session.download(url, target, check=check_jpeg, limit=_LARGEST)
                except NotThere as error:
                    tries, reason = tries + error.tries, str(error)
                except GaveUp as error:
                    tries, gave_up = tries + error.tries, str(error)
                    if "wrong content" not in gave_up:
                        silent.add(host)  # it has had all the tries that one image may cost
                else:
                    return _fate(OK, url, tried, tries + had.tries, "", bytes=had.size, sha256=had.sha256, received=had.received,
                                 mtime_ns=target.stat().st_mtime_ns)  # fmt: skip
        known = not gave_up and not os.environ.get(download.MIRROR)  # a gap in a mirror says nothing about the server
        return _fate(NOT_THERE if known else FAILED, row["url"], tried, tries, gave_up or reason)

    def _newer(self, row: dict[str, str]) -> list[str]:
        if self.newer is None:
            return []
        with self._lock:  # one entry is asked for once
            gene = row["ensembl"]
            if gene not in self._addresses:
                try:
                    self._addresses[gene] = self.newer.newer_addresses(gene)
                except Stopped:
                    raise
                except DownloadError:
                    self._addresses[gene] = []  # a help that could not be had; the image is noted as it is without
            found = self._addresses[gene]
        return variants(row["url"], self.newer.release, found)


def _fate(status: str, url: str, tried: list[str], tries: int, reason: str, **more: Any) -> dict[str, Any]:
    return {"url": url, "status": status, "reason": reason, "tries": tries, "tried": " ".join(tried), "received": 0, **more}


def _write_results(plan: Plan, manifest: Manifest, counts: Counter[str]) -> Outcome:
    """Write the field table of what is there, licence and credit."""
    there = [row for row in plan.rows if manifest.rows.get(row["file"], {}).get("status") == OK]
    if not there:
        reasons = Counter(str(r["reason"]) for r in manifest.rows.values()).most_common(1)
        raise DownloadError(
            f"none of the {len(plan.rows)} images could be had{f' ({reasons[0][0]})' if reasons else ''}. See {manifest.table}."
        )
    with atomic_path(plan.folder / "fields.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        write_rows(handle, FIELD_COLUMNS, ({**row, "path": row["file"]} for row in there))
    release: Release = plan.release
    write_text(plan.folder / "CREDIT.txt", f"{CREDIT}\n")
    write_text(plan.folder / "LICENCE.txt", "\n".join([f"Images and entries of the Human Protein Atlas, release {release.name}, "
               f"{release.site}", *terms(release)]) + "\n")  # fmt: skip
    known = [manifest.rows.get(row["file"], {}).get("status") for row in plan.rows]
    return Outcome(len(there), counts[OK], len(there) - counts[OK], known.count(FAILED), known.count(NOT_THERE), counts["received"])
