"""Crops to the device: held there as they are stored, or streamed from disk in constant memory.

The GPU holds the whole data set if it fits in half of its free memory; otherwise, and always on the
CPU, batches are read ahead from disk by a thread, so that memory does not grow with the cells.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from pci_core.cells import CellDataset
from pci_core.errors import unknown_name

MODES = ("auto", "resident", "streamed")
_AHEAD = 2  # batches read ahead


class Feed:
    """Deliver raw crops by row.

    Parameters
    ----------
    dataset : CellDataset
        Where the crops are.
    device : torch.device
        Where they shall go.
    mode : str
        ``"resident"``, ``"streamed"`` or ``"auto"`` (see the module).

    Attributes
    ----------
    waited : float
        Seconds spent waiting for crops so far.
    """

    def __init__(self, dataset: CellDataset, device: torch.device, mode: str = "auto") -> None:
        if mode not in MODES:
            raise unknown_name("data mode", mode, MODES)
        if mode == "auto":
            fits = device.type == "cuda" and dataset.crops.nbytes < torch.cuda.mem_get_info(device)[0] / 2
            mode = "resident" if fits else "streamed"
        self.dataset, self.device, self.mode, self.waited = dataset, device, mode, 0.0
        self._held = torch.from_numpy(np.array(dataset.crops)).to(device) if mode == "resident" else None

    def batches(self, rows: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the crops of each tensor of rows, (len(rows), C, H, W), stored dtype, on the device."""
        if self._held is not None:
            for index in rows:
                yield _take(self._held, index.to(self.device))
            return
        with ThreadPoolExecutor(1, thread_name_prefix="crops") as reader:
            ahead: deque[Future[Tensor]] = deque()
            source = iter(rows)
            while True:
                for wanted in itertools.islice(source, _AHEAD - len(ahead)):
                    ahead.append(reader.submit(self._read, wanted))
                if not ahead:
                    return
                before = time.perf_counter()
                crops = ahead.popleft().result().to(self.device, non_blocking=True)
                self.waited += time.perf_counter() - before
                yield crops

    def _read(self, index: Tensor) -> Tensor:
        crops = torch.from_numpy(self.dataset.read(index.cpu().numpy()))
        return crops.pin_memory() if self.device.type == "cuda" else crops


def _take(held: Tensor, index: Tensor) -> Tensor:
    if held.dtype == torch.uint16:  # indexing is not there for it on every device; the bits are the same
        return held.view(torch.int16)[index].view(torch.uint16)
    return held[index]
