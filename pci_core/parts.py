"""One array written by several processes: each its own rows, the first puts them together. All must see the same folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from pci_core.distributed import World
from pci_core.errors import StorageError
from pci_core.storage import as_storage_error, temporary_path

_BLOCK = 8192  # rows copied at a time, so that memory stays flat


def own_rows(n: int, batch_size: int, rank: int, size: int) -> range:
    """Return the rows of one of `size` processes: whole batches, so that every batch is one that a single process would have."""
    batches = -(-n // batch_size)
    first, last = (-(-r * batches // size) for r in (rank, rank + 1))
    return range(min(n, first * batch_size), min(n, last * batch_size))


class Part:
    """The rows of one process, written one after another to a temporary file beside the final one.

    Use as a context manager; the file is removed at its end. One that a killed process leaves is found by
    `pci_core.storage.sweep_temporaries`.

    Parameters
    ----------
    path : Path
        The file that all parts are for.
    start : int
        Row of the whole that this part begins with.
    columns : int
    """

    def __init__(self, path: Path, start: int, columns: int) -> None:
        self.path, self.start, self.columns = temporary_path(path.with_name(f"{path.name}.rows-{start}")), start, columns
        self.rows = 0

    def __enter__(self) -> Part:
        with as_storage_error(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = open(self.path, "wb")
        return self

    def __setitem__(self, rows: slice, values: np.ndarray) -> None:
        """Append (n, columns) float32 values; `rows` must follow on those before."""
        assert rows.start == self.start + self.rows and values.shape[1] == self.columns
        with as_storage_error(self.path):
            self._handle.write(np.ascontiguousarray(values, np.float32).data)
        self.rows += len(values)

    def close(self) -> dict[str, Any]:
        """End writing; return where what lies, as plain values."""
        with as_storage_error(self.path):
            self._handle.close()
        return {"path": str(self.path.absolute()), "start": self.start, "rows": self.rows}

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # on a full disk closing fails once more; `close` has told of it
            self._handle.close()
        self.path.unlink(missing_ok=True)


def put_together(world: World, writers: Mapping[str, h5py.Dataset | Part]) -> None:
    """Copy the parts of all other processes into the arrays of rank 0; all call this, and none returns before the last copy.

    Raises
    ------
    StorageError
        Rank 0 does not see another's part whole: the folder is not the same for both.
    """
    mine = {name: part.close() for name, part in writers.items() if isinstance(part, Part)}
    parts = world.gather(mine)

    def copy() -> None:
        for rank, found in enumerate(parts[1:], 1):
            for name, part in found.items():
                out: Any = writers[name]
                path, row = Path(part["path"]), int(part["start"])
                wanted = int(part["rows"]) * out.shape[1] * 4
                if (size := path.stat().st_size if path.exists() else 0) != wanted:
                    raise StorageError(
                        f"{path}, written by rank {rank}, has {size} bytes here and {wanted} there. "
                        "All processes must see the same folder: choose one on a shared file system with --runs."
                    )
                with open(path, "rb") as handle:
                    while len(values := np.fromfile(handle, np.float32, _BLOCK * out.shape[1])):
                        block = values.reshape(-1, out.shape[1])
                        out[row : row + len(block)] = block
                        row += len(block)

    world.first(copy)
