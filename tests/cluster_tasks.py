"""Tasks for the workers of a Dask cluster: a light module, since each worker imports it."""

from __future__ import annotations

import os
import time

import numpy as np
from threadpoolctl import threadpool_info

from pci_core.errors import ImageError


def later_ones_first(i: int) -> tuple[int, int]:
    time.sleep(0.2 / (1 + i % 4))
    return i, os.getpid()


def fail_at(i: int, bad: int) -> int:
    if i == bad:
        raise ImageError(f"field {i} is broken.")
    if i < 0:
        raise TimeoutError("my own")
    return i


def threads() -> int:
    np.ones((2, 2)) @ np.ones((2, 2))
    return max(p["num_threads"] for p in threadpool_info())
