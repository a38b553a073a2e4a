"""What making a file cost, kept beside it: seconds, date, speed and hardware differ from run to run, the file itself must not.

``weights.safetensors`` has ``weights.log.json``, ``conv3.h5ad`` has ``conv3.log.json``. A log is no part of a result: without it the
file says all the same what it is and where it came from (see `pci_core.provenance`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pci_core.reading import read_note
from pci_core.storage import write_json

SUFFIX = ".log.json"
MEASURED = ("seconds", "cells_per_second", "hardware", "made")  # keys of cards and facts that belong into a log


def log_path(path: str | os.PathLike[str]) -> Path:
    """Return the log beside a file: its name with the last ending replaced by ``.log.json``."""
    return Path(path).with_name(Path(path).stem + SUFFIX)


def split(facts: Mapping[str, Any], keys: tuple[str, ...] = MEASURED) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide facts into those that are computed and those that are measured."""
    return {k: v for k, v in facts.items() if k not in keys}, {k: v for k, v in facts.items() if k in keys}


def write_log(path: str | os.PathLike[str], measured: Mapping[str, Any]) -> None:
    """Write what a file cost beside it, with the date; nothing where nothing was measured."""
    if measured:
        write_json(log_path(path), {"made": now(), **measured})


def read_log(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what is known of the cost of a file; empty where no log lies beside it, or none that can be read."""
    return read_note(log_path(path)) or {}  # files made before there were logs hold their cost themselves


def now() -> str:
    """Return date and time as logs and stamps write them, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
