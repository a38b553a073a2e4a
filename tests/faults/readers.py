"""All readers of the package, each with a small good file, the way the command line reads it, and what counts as a right answer.

A damaged file must be refused by an error of ours that names it, or give an answer that is right. What is right depends on the
format: where it carries check sums, or we keep a hash, only the value of the good file; where it carries none, a changed number
cannot be seen, and the answer must have the shape and kinds of the good one (`alike`), or be what an independent reader finds in the
same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

TESTS = Path(__file__).resolve().parent.parent
for _folder in (TESTS, TESTS / "data", TESTS / "imaging"):  # good files come from the tests' own makers
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

Right = Callable[[Any, Any, Path], str]


def digest(value: Any) -> str:
    """Return a hash of a value of any kind that a reader gives."""
    out = hashlib.sha256()
    _feed(value, out)
    return out.hexdigest()


def _feed(value: Any, out: Any) -> None:
    out.update(type(value).__name__.encode() + b"\0")
    if _is(value, "torch"):
        _feed(value.detach().cpu().numpy(), out)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        out.update(f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif _is(value, "anndata"):
        _feed([np.asarray(value.X), value.obs, list(value.var_names), dict(value.uns)], out)
    elif isinstance(value, pd.DataFrame):
        _feed([[str(c) for c in value.columns], [value[c].astype(object).tolist() for c in value.columns], value.index.tolist()], out)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            _feed([str(key), value[key]], out)
    elif isinstance(value, (frozenset, set)):
        _feed(sorted(map(str, value)), out)
    elif isinstance(value, (list, tuple, np.ndarray)):
        out.update(str(len(value)).encode())
        for item in value:
            _feed(item, out)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _feed({f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, out)
    else:
        out.update(repr(value).encode())


def _is(value: Any, library: str) -> bool:
    """Tell whether a value is a tensor or an AnnData without importing what takes seconds."""
    return type(value).__module__.split(".")[0] == library and type(value).__name__ in ("Tensor", "Parameter", "AnnData")


def exact(good: Any, found: Any, path: Path) -> str:
    """The format carries check sums, or a hash is kept: any other value is wrong."""
    return "another value, though the file could have told"


def alike(good: Any, found: Any, path: Path) -> str:
    """No check sum: shape, type and finiteness must be those of the good value; which numbers they are cannot be told."""
    if _is(good, "torch"):
        good, found = good.numpy(), found.numpy()
    if isinstance(good, np.ndarray):
        if not isinstance(found, np.ndarray) or found.shape != good.shape:
            return f"shape {getattr(found, 'shape', found)} instead of {good.shape}"
        return "NaN or infinite numbers" if found.dtype.kind == "f" and not np.isfinite(found).all() else ""
    if isinstance(good, Mapping):
        if list(map(str, good)) != list(map(str, found)):
            return f"keys {list(found)[:5]} instead of {list(good)[:5]}"
        return next((f"{k}: {w}" for k in good if (w := alike(good[k], found[k], path))), "")
    return "" if isinstance(found, type(good)) else f"{type(found).__name__} instead of {type(good).__name__}"


def anything(good: Any, found: Any, path: Path) -> str:
    """What the file says is free: any answer of the right kind is one."""
    return "" if isinstance(found, type(good)) else f"{type(found).__name__} instead of {type(good).__name__}"


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes
    ----------
    name : str
    make : callable
        Writes good files into an empty folder and returns those to be damaged, one at a time.
    read : callable
        Reads in that folder as the command line does and returns a value that `digest` takes.
    right : callable
        Told the good value, the one found and the damaged file, says what is wrong, or nothing.
    text : bool
        The file is text for people, and damaged as an editor would.
    named : str
        Another part of the message that names the file, where it is one of many of a folder.
    costly : bool
        Takes seconds: only where the whole suite runs.
    """

    name: str
    make: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]
    right: Right
    text: bool = False
    named: str = ""
    costly: bool = False


def of(parts: Iterable[str]) -> dict[str, Reader]:
    """Return the readers of some parts by name; only what these need is imported."""
    import importlib

    return {reader.name: reader for part in parts for reader in importlib.import_module(f"readers_{part}").READERS}
