"""What a check found, the table of all of them, and how it is kept."""

from __future__ import annotations

import json
import math
import os
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import pci_core
from pci_core.errors import ParameterError
from pci_core.storage import write_text
from pci_core.tables import write_csv


@dataclass(frozen=True)
class Finding:
    """One number that a check measured, and the limits that it must keep.

    Attributes
    ----------
    check : str
        Name of the check, as ``--only`` takes it.
    measured : str
        What was measured, on what.
    value : float
        The number; NaN where it could not be had, which never passes.
    low, high : float
        Limits, both allowed; infinite where there is none.
    required : bool
        Whether it counts; else the number is only reported.
    """

    check: str
    measured: str
    value: float
    low: float = -math.inf
    high: float = math.inf
    required: bool = True

    @property
    def passed(self) -> bool:
        """Whether the number lies within its limits, or is only reported."""
        return not self.required or bool(self.low <= self.value <= self.high)

    @property
    def verdict(self) -> str:
        """``passed``, ``FAILED`` or ``reported``."""
        return "reported" if not self.required else "passed" if self.passed else "FAILED"

    @property
    def limits(self) -> str:
        """The limits in words."""
        if not self.required:
            return ""
        if math.isinf(self.low):
            return f"at most {_number(self.high)}"
        if math.isinf(self.high):
            return f"at least {_number(self.low)}"
        return _number(self.low) if self.low == self.high else f"{_number(self.low)} to {_number(self.high)}"


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e6 else f"{value:.3g}"


def table(findings: Sequence[Finding]) -> pd.DataFrame:
    """Return the findings as columns ``check, measured, value, low, high, required, passed``."""
    columns = ["check", "measured", "value", "low", "high", "required", "passed"]
    return pd.DataFrame([{**asdict(f), "passed": f.passed} for f in findings], columns=columns)


def text(findings: Sequence[Finding], width: int = 74) -> str:
    """Lay the findings out for reading: check, what was measured, value, limits, verdict."""
    heads = ("check", "measured", "value", "limits", "")
    rows = [(f.check, f.measured, _number(f.value), f.limits, f.verdict) for f in findings]
    wide = [max(len(r[i]) for r in [heads, *rows]) for i in range(5)]
    wide[1] = min(wide[1], width)
    lines = []
    for row in [heads, *rows]:
        first, *more = textwrap.wrap(row[1], wide[1]) or [""]
        cells = (row[0].ljust(wide[0]), first.ljust(wide[1]), row[2].rjust(wide[2]), row[3].ljust(wide[3]), row[4])
        lines += ["  ".join(cells).rstrip(), *(" " * (wide[0] + 2) + line for line in more)]
    return "\n".join(lines)


def save(findings: Sequence[Finding], path: str | os.PathLike[str], settings: dict[str, Any]) -> None:
    """Write the findings as ``.json`` (with what they were measured with) or ``.csv``.

    Raises
    ------
    ParameterError
        Another ending.
    StorageError
        The file cannot be written.
    """
    path = check_ending(path)
    if path.suffix == ".csv":
        write_csv(table(findings), path)
        return
    rows = [{**asdict(f), "passed": f.passed} for f in findings]
    for row in rows:  # JSON knows no infinite number and no NaN
        row.update({k: v if math.isfinite(v) else None for k, v in row.items() if isinstance(v, float)})
    write_text(path, json.dumps({"version": pci_core.__version__, **settings, "findings": rows}, indent=1) + "\n")


def check_ending(path: str | os.PathLike[str]) -> Path:
    """Return the path if its ending is one that `save` writes.

    Raises
    ------
    ParameterError
        It is not.
    """
    path = Path(path)
    if path.suffix not in (".json", ".csv"):
        raise ParameterError(f"{path}: a result of 'pci check' is kept as .json or .csv, found '{path.suffix}'. Change the ending.")
    return path
