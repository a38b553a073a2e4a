"""Read where a file comes from, and look whether its parents are still there and unchanged; for ``pci provenance``."""

from __future__ import annotations

import functools
import hashlib
import html
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pci_core
from pci_core.cells import CROPS, HEADER, TABLE
from pci_core.checkpoint import LOSSES, WEIGHTS
from pci_core.errors import ProvenanceError
from pci_core.logs import read_log
from pci_core.provenance import CSV_KEY, KEY, Parent, Record, package_code, parse
from pci_core.storage import file_sha256

MANIFEST = "provenance.json"  # of a folder of kept results
READS = "feature sets (.h5ad, .parquet), tables (.parquet, .csv, .json), figures (.png, .svg), weights (.safetensors), notebooks (.ipynb), "
READS += "pages (.html) and folders of cells"
UNCHANGED, CHANGED, GONE, ELSEWHERE = "unchanged", "changed since", "gone", "elsewhere"
_META = re.compile(f'<meta name="{KEY}" content="([^"]*)">')


def read(path: str | os.PathLike[str]) -> Record:
    """Return the record that a file, or a folder of cells, carries.

    Raises
    ------
    ProvenanceError
        It is not there, cannot be read, is of another kind, or carries none.
    """
    path = Path(path)
    if path.is_dir() and not (path / HEADER).is_file():
        raise ProvenanceError(f"{path} is a folder without {HEADER}. Name a file of it; read are {READS}.")
    if not path.exists():
        raise ProvenanceError(f"{path} is not there.")
    if path.name in (CROPS, TABLE) and (path.parent / HEADER).is_file():
        path = path.parent
    reader = _cells if path.is_dir() else _READERS.get(path.suffix.lower())
    if reader is None:
        raise ProvenanceError(f"{path}: what a '{path.suffix}' file comes from cannot be read. Read are {READS}.")
    try:
        found = reader(path)
    except ProvenanceError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, SyntaxError, RuntimeError) as error:  # Pillow: SyntaxError
        raise ProvenanceError(f"{path} cannot be read as a {path.suffix or 'cell dataset'} ({str(error)[:120]}). Make it again.") from error
    if found is None:
        raise ProvenanceError(
            f"{path} does not say where it comes from: another program wrote it, or a pci_core from before files did. Make it again; "
            f"read are {READS}, and CSV beside the .parquet of the same name."
        )
    return found


def _h5ad(path: Path) -> Record | None:
    import h5py

    with h5py.File(path) as store:
        facts = {k: v[()] for k, v in store["uns/pci"].items() if isinstance(v, h5py.Dataset) and v.shape == ()}
    plain = {k: v.decode() if isinstance(v, bytes) else v.item() if hasattr(v, "item") else v for k, v in facts.items()}
    text = plain.pop("provenance", None)
    return parse(text, str(path)) if text else _of_earlier("features", path, plain)


def _parquet(path: Path) -> Record | None:
    text = _parquet_metadata(path).get(KEY.encode())
    return parse(text, str(path)) if text else None


def _parquet_metadata(path: Path) -> Mapping[bytes, bytes]:
    import pyarrow.parquet as pq

    return pq.read_schema(path).metadata or {}


def _csv(path: Path) -> Record | None:
    """Read the record of what lies beside it: the Parquet or the manifest of kept results, which must name this very CSV, or weights."""
    found, known, holder = None, "", path.with_suffix(".parquet")
    if holder.is_file():
        found, known = _parquet(holder), _parquet_metadata(holder).get(CSV_KEY.encode(), b"").decode()
    elif path.name == LOSSES and (holder := path.with_name(WEIGHTS)).is_file():
        found = _safetensors(holder)
    elif (holder := path.with_name(MANIFEST)).is_file():
        entry = json.loads(holder.read_text(encoding="utf-8")).get(path.stem, {})
        known = entry.get("sha256", "")
        found = parse(entry["provenance"], str(holder)) if "provenance" in entry else _of_earlier("result", path, entry)
    if found is not None and known and known != file_sha256(path):
        raise ProvenanceError(f"{path} is not the file that {holder.name} beside it speaks of: it was changed since. Make it again.")
    return found


def _json(path: Path) -> Record | None:
    content = json.loads(path.read_text(encoding="utf-8"))
    return parse(content["provenance"], str(path)) if isinstance(content, dict) and "provenance" in content else None


def _cells(path: Path) -> Record | None:
    return _json(path / HEADER)


def _png(path: Path) -> Record | None:
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as picture:
        text = picture.info.get(KEY)
    return parse(text, str(path)) if text else None


def _svg(path: Path) -> Record | None:
    from defusedxml import ElementTree

    element = ElementTree.parse(path).getroot().find(".//{http://purl.org/dc/elements/1.1/}source")
    return parse(element.text, str(path)) if element is not None and element.text else None


def _safetensors(path: Path) -> Record | None:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as handle:  # type: ignore[no-untyped-call]
            card = json.loads((handle.metadata() or {}).get("card", "{}"))
    except safetensors.SafetensorError as error:  # a class of its own, under nothing but Exception
        raise ValueError(str(error)) from error
    return parse(card["provenance"], str(path)) if "provenance" in card else _of_earlier("weights", path, card)


def _notebook(path: Path) -> Record | None:
    content = json.loads(path.read_text(encoding="utf-8"))["metadata"].get(KEY)
    return parse(content, str(path)) if content else None


def _html(path: Path) -> Record | None:
    with open(path, encoding="utf-8") as handle:
        match = _META.search(handle.read(1_000_000))  # it stands in the head
    return parse(html.unescape(match[1]), str(path)) if match else None


_READERS: dict[str, Callable[[Path], Record | None]] = {
    ".h5ad": _h5ad, ".parquet": _parquet, ".csv": _csv, ".json": _json, ".png": _png, ".svg": _svg, ".safetensors": _safetensors,
    ".ipynb": _notebook, ".html": _html,
}  # fmt: skip


def _of_earlier(kind: str, path: Path, facts: Mapping[str, Any]) -> Record | None:
    """Return what a file from before there were records says of itself: what it knows, without code and parents."""
    data = facts.get("dataset")
    if not isinstance(data, str):
        return None
    training, versions = facts.get("training"), facts.get("versions")
    seed = training.get("seed") if isinstance(training, dict) else None
    version = versions.get("pci_core", "") if isinstance(versions, dict) else facts.get("version", "")
    settings = {k: facts[k] for k in ("model", "layer", "pooling", "command", "encoder") if facts.get(k)}
    weights = str(facts.get("weights") or facts.get("sha256") or "")
    return Record(kind, path.stem, str(facts.get("recipe", "")), "", data, weights, seed, settings, version=str(version))


# --- parents


def parent_of(path: Path, label: str) -> Parent:
    """Return a file as the parent of another one, by the name that `label` gives it, with what it says of itself."""
    file = path / HEADER if path.is_dir() else path
    stat = file.stat()
    return _parent_of(path, label, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _parent_of(path: Path, label: str, size: int, time: int) -> Parent:
    try:
        known = read(path)
    except ProvenanceError:
        known = None  # a field table, a user's own file
    digest = json.loads((path / HEADER).read_text(encoding="utf-8"))["sha256"] if path.is_dir() else _sha256(path, size, time)
    return Parent(label, digest, known)


def state(parent: Parent, near: Path, runs: Path | None = None) -> tuple[str, str]:
    """Tell whether a parent is still there and unchanged.

    Parameters
    ----------
    parent : Parent
    near : Path
        The file whose parent it is: looked for in the folders above it, then in `runs` and the current folder.
    runs : Path, optional
        Folder of all runs.

    Returns
    -------
    state : str
        ``unchanged``, ``changed since``, ``gone``, or ``elsewhere`` for a user's own file, which is named without its folder.
    sha256 : str
        Of what is there now; empty where nothing is.
    """
    if "/" not in parent.path:
        return ELSEWHERE, ""
    found = _locate(parent.path, near, runs)
    if found is None:
        return GONE, ""
    stat = (found / HEADER if found.is_dir() else found).stat()
    digest = _cells_sha256(found) if found.is_dir() else _sha256(found, stat.st_size, stat.st_mtime_ns)
    return (UNCHANGED if digest == parent.sha256 else CHANGED), digest


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, size: int, time: int) -> str:
    """Return the hash of a file, read once as long as size and time stay: a tree names the same one many times."""
    return file_sha256(path)


def _locate(name: str, near: Path, runs: Path | None) -> Path | None:
    package = Path(pci_core.__file__).parent
    if name.startswith(f"{package.name}/"):
        places = [package.parent]
    else:
        above = list(near.resolve().parents)
        places = [*above, *([runs] if runs else []), *(a / "runs" for a in above), Path.cwd(), Path.cwd() / "runs"]
    return next((p / name for p in places if (p / name).exists()), None)


def _cells_sha256(folder: Path) -> str:
    """Return the identity of a dataset as it lies there; crops are read only where size or time differ from the step's stamp."""
    try:
        info = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        stamp = folder.parent / "steps" / f"{folder.name}.json"
        seen = json.loads(stamp.read_text(encoding="utf-8"))["files"] if stamp.is_file() else {}
        now = {name: [s.st_size, s.st_mtime_ns] for name in info["files"] if (s := (folder / name).stat())}
        if seen == now:
            return str(info["sha256"])
        return hashlib.sha256("".join(file_sha256(folder / name) for name in info["files"]).encode()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        return ""


# --- for reading


def walk(
    record: Record, near: Path, runs: Path | None = None, depth: int = 0, seen: set[str] | None = None
) -> Iterator[tuple[int, Parent, str, str]]:
    """Yield every parent of a record with its depth, its state and the hash of what is there now.

    The parents of a parent follow it, where it stands for the first time.
    """
    seen = set() if seen is None else seen
    for parent in sorted(record.parents, key=lambda p: p.key):
        yield depth, parent, *state(parent, near, runs)
        if parent.record is not None and parent.key not in seen:
            seen.add(parent.key)
            yield from walk(parent.record, near, runs, depth + 1, seen)


def as_plain(path: Path, runs: Path | None = None) -> dict[str, Any]:
    """Return the record of a file with the state of each of its parents, as plain values."""
    record = read(path)
    plain = record.plain()
    for _, parent, found, now in walk(record, path, runs):
        plain["files"][parent.key] |= {"state": found, **({"sha256_now": now} if now else {})}
    return plain


def describe(path: Path, runs: Path | None = None) -> str:
    """Return where a file comes from, in lines: what made it, then its parents as a tree."""
    record = read(path)
    lines = [f"{path.name}: {record.kind}" + (f" '{record.name}'" if record.name and record.name != path.stem else "")]
    parents = list(walk(record, path, runs))
    above = [record, *(p.record for _, p, _, _ in parents if p.record is not None)]
    known = {
        "recipe": _first(f"{r.recipe} ({_short(r.recipe_sha256)})" for r in above if r.recipe),
        "code": f"pci_core {record.version} ({_short(record.code)})" + _this_code(record),
        "data": ", ".join(dict.fromkeys(_short(r.data) for r in above if r.data)),
        "weights": ", ".join(dict.fromkeys(_short(r.weights) for r in above if r.weights)),
        "seed": str(record.seed) if record.seed is not None else _first(f"{r.seed} (of the {r.kind})" for r in above if r.seed is not None),
        "settings": ", ".join(f"{k} {v}" for k, v in sorted(record.settings.items()) if v not in (None, "")),
        "cost": _cost(path),
    }
    lines += [f"  {key:9} {text}" for key, text in known.items() if text]
    lines += ["  from" if parents else "  from      no file"]
    for depth, parent, found, now in parents:
        what = f"{parent.record.kind}, " if parent.record else ""
        change = f": was {_short(parent.sha256)}, is {_short(now)}" if found == CHANGED else ""
        lines.append(f"{'  ' * (depth + 2)}{parent.path}  {what}{_short(parent.sha256)}  {found}{change}")
    return "\n".join(lines)


def _this_code(record: Record) -> str:
    if not record.code:
        return ""
    return ", as installed here" if record.code == package_code() else ", not the code installed here"


def _first(texts: Iterator[str]) -> str:
    return next(texts, "")


def _short(text: str) -> str:
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text or "hash not known"


def _cost(path: Path) -> str:
    log = read_log(path)
    parts = [
        f"made {log['made']}" if "made" in log else "",
        f"{log['seconds']:.3g} s" if isinstance(log.get("seconds"), (int, float)) else "",
    ]
    return ", ".join(p for p in [*parts, str(log.get("hardware", ""))] if p)
