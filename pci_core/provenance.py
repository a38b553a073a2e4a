"""Where a file comes from: one record of recipe, code, data, weights, seed and parents, carried by the file itself.

A record holds no date, no measured time and no path of a machine, so that the same work gives the same bytes. Parents are named from the
folder of all runs (``own/features/conv4.h5ad``), from the root of the repository (``book/method.md``), from the package
(``pci_core/pretrained/…``) or, where the file is a user's own, by name alone. `pci_core.lineage` reads records back.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import html
import json
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pci_core
from pci_core.errors import ProvenanceError
from pci_core.storage import content_hash, file_sha256

FORM = 1
KEY = "pci_provenance"  # in the metadata of Parquet, PNG and notebooks; HTML has <meta name="pci_provenance">
CSV_KEY = "pci_csv_sha256"  # in the metadata of a Parquet: of the CSV of the same name beside it


@dataclass(frozen=True)
class Parent:
    """A file that another one was made from.

    Attributes
    ----------
    path : str
        See the module; a name without ``/`` is a user's own file.
    sha256 : str
        Of its bytes when it was used; of cells, the identity of the dataset.
    record : Record or None
        What the file said of itself, None where it carries nothing.
    """

    path: str
    sha256: str
    record: Record | None = None

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return f"{self.path}@{self.sha256[:12]}"


@dataclass(frozen=True)
class Record:
    """Where one file comes from.

    Attributes
    ----------
    kind : str
        ``cells``, ``weights``, ``features``, ``table``, ``figure``, ``notebook``, ``page``, ``atlas`` or ``result``.
    name : str
    recipe, recipe_sha256 : str
        Name and `pci_core.recipe.Recipe.identity`.
    data : str
        SHA-256 of the cell dataset.
    weights : str
        SHA-256 of the file of weights, or in words how they were drawn.
    seed : int or None
    settings : dict
        Plain values: layer, pooling, parameters.
    parents : tuple of Parent
    version, code : str
        Of the package: its number and the hash of its files, see `package_code`.
    """

    kind: str
    name: str = ""
    recipe: str = ""
    recipe_sha256: str = ""
    data: str = ""
    weights: str = ""
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[Parent, ...] = ()
    version: str = pci_core.__version__
    code: str = ""

    def plain(self) -> dict[str, Any]:
        """Return it as plain values: this record, and under ``files`` every parent once."""
        files: dict[str, Any] = {}

        def add(parents: tuple[Parent, ...]) -> None:
            for parent in parents:
                if parent.key not in files:
                    known = {} if parent.record is None else {"record": _shallow(parent.record)}
                    files[parent.key] = {"path": parent.path, "sha256": parent.sha256, **known}
                    add(parent.record.parents if parent.record else ())

        add(self.parents)
        return {"form": FORM, **_shallow(self), "files": dict(sorted(files.items()))}

    def text(self) -> str:
        """Return it as one line of ASCII, the same for the same record."""
        return json.dumps(self.plain(), sort_keys=True, separators=(",", ":"))


_FIELDS = ("kind", "name", "recipe", "recipe_sha256", "data", "weights", "seed", "settings", "version", "code")
_current: ContextVar[Record | None] = ContextVar("pci_provenance", default=None)


def _shallow(record: Record) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in _FIELDS}
    kept = {k: dict(v) if k == "settings" else v for k, v in values.items() if v not in ("", None, {})}
    return kept | {"parents": sorted({p.key for p in record.parents})}


def parse(content: Any, where: str) -> Record:
    """Read a record from its text or plain values.

    Raises
    ------
    ProvenanceError
        It is none, or is damaged; `where` is named.
    """
    try:
        plain = json.loads(content) if isinstance(content, (str, bytes)) else content
        if plain["form"] != FORM:
            raise ProvenanceError(f"{where}: its record has the form {plain['form']}, known is {FORM}. Use a newer pci_core to read it.")
        return _build(plain, plain["files"], ())
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        told = f"{type(error).__name__}: {str(error)[:80]}"
        raise ProvenanceError(f"{where}: its record of where it comes from is damaged ({told}). Make the file again.") from None


def _build(plain: Mapping[str, Any], files: Mapping[str, Any], above: tuple[str, ...]) -> Record:
    parents = []
    for key in plain["parents"]:
        if key in above:
            raise ValueError(f"{key} is its own parent")
        found = files[key]
        known = _build(found["record"], files, (*above, key)) if "record" in found else None
        parents.append(Parent(str(found["path"]), str(found["sha256"]), known))
    return Record(**{k: plain[k] for k in _FIELDS if k in plain}, parents=tuple(parents))


@contextlib.contextmanager
def context(base: Record) -> Iterator[None]:
    """Let every `record` made under the block start from `base`: what a `pci_core.run.Run` knows and a writer does not."""
    token = _current.set(base)
    try:
        yield
    finally:
        _current.reset(token)


def record(kind: str, name: str, **facts: Any) -> Record:
    """Return the record of a file that is about to be written, with this package's version and code.

    Parameters
    ----------
    kind, name : str
        See `Record`.
    **facts
        Further fields; empty ones leave what the `context` says, ``settings`` are added to it.
    """
    base = _current.get() or Record(kind)
    known = {k: v for k, v in facts.items() if v not in ("", None, ())}
    settings = {**base.settings, **known.pop("settings", {})}
    return replace(base, **known, kind=kind, name=name, settings=settings, version=pci_core.__version__, code=package_code())


@functools.cache
def package_files() -> dict[str, str]:
    """Return the SHA-256 of every file of the package by its name, as it was when this process first asked."""
    folder = Path(pci_core.__file__).parent
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and "__pycache__" not in p.parts and not p.name.startswith(".")]
    return {p.relative_to(folder).as_posix(): file_sha256(p) for p in files}


@functools.cache
def package_code() -> str:
    """Return the SHA-256 of the package's files, its Python and what it reads; the shipped weights are named where they are used."""
    return content_hash([item for item in package_files().items() if not item[0].endswith((".safetensors", ".log.json"))])


def in_html(page: str, made: Record) -> str:
    """Put a record into the head of a page of HTML, in place of one that is there."""
    tag = f'<meta name="{KEY}" content="{html.escape(made.text(), quote=True)}">'
    start = page.find(f'<meta name="{KEY}"')
    if start >= 0:
        return page[:start] + tag + page[page.index(">", start) + 1 :]
    lowered = page[:4096].lower()
    for mark in ("<head>", "<meta charset"):
        at = lowered.find(mark)
        if at >= 0:
            at = page.index(">", at) + 1
            return page[:at] + "\n" + tag + page[at:]
    raise ProvenanceError("a page without <head> and <meta charset> has no place for where it comes from.")


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a text as UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
