"""Crops to pooled features, batch by batch, with nothing waiting for anything it does not need.

On CUDA a batch's features travel to the processor while the next batch is computed, so neither the
device waits for the disk nor the file for the device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from pci_core import device as devices
from pci_core.encoders import Encoder
from pci_core.preprocess import preprocess
from pci_core.recipe import Preprocess

Pooled = dict[str, Tensor]


class Pooler:
    """The encoder with what comes before it, as one function of raw crops, compiled or not.

    Parameters
    ----------
    encoder : Encoder
        On `device`, in evaluation mode; its weights must not change afterwards.
    spec : Preprocess
        As in training.
    n_protein : int
        Number of protein channels.
    layers : tuple of str
        Layers to pool.
    pooling : str
        ``"max"`` or ``"mean"``.
    device : torch.device
    dtype : torch.dtype
        What products are computed in.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: Preprocess,
        n_protein: int,
        layers: tuple[str, ...],
        pooling: str,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.encoder, self.spec, self.n_protein, self.layers, self.pooling = encoder, spec, n_protein, layers, pooling
        self.device, self.dtype = device, dtype
        self.rising = encoder.norms_rise()
        self._compiled: Callable[[Tensor], Pooled] = self._pool
        self._size = 0

    def _pool(self, raw: Tensor) -> Pooled:
        x = preprocess(raw, self.spec, self.n_protein).contiguous(memory_format=torch.channels_last)
        with devices.autocast(self.device, self.dtype):
            return self.encoder.features(x, self.layers, self.pooling, self.rising)

    def compile(self, mode: str, raw: Tensor) -> str:
        """Compile for batches like `raw`, (N, C, H, W) on the device; return what happened, to print."""
        self._compiled, self._size = torch.compile(self._pool, mode=mode, dynamic=False), len(raw)
        with torch.inference_mode():
            told = devices.warm_up(lambda: self(raw))
        if told.startswith(devices.NOT_COMPILED):
            self._compiled, self._size = self._pool, 0
        return told

    def __call__(self, raw: Tensor) -> Pooled:
        """Return the pooled features of a batch of raw crops, (N, filters) float32 for each layer, on the device."""
        if len(raw) == 1 and self._size != 1:
            # alone, a crop is convolved by another kernel on the CPU, whose sums differ in their last bits (up to 9e-7 of the largest
            # feature was seen): the last cell of 257 would not be what it is among 256. Two at a time are as any number is
            return {name: values[:1] for name, values in self._pool(torch.cat([raw, raw])).items()}
        if len(raw) != self._size:
            return self._pool(raw)
        torch.compiler.cudagraph_mark_step_begin()
        return self._compiled(raw)


def arrays(pool: Callable[[Tensor], Pooled], batches: Iterable[Tensor]) -> Iterator[dict[str, np.ndarray]]:
    """Yield the features of each batch of raw crops as numpy arrays, in order.

    On CUDA the copy of a batch ends while the next one is computed: what is yielded is one batch behind.
    """
    behind: deque[tuple[Pooled, torch.cuda.Event]] = deque()
    for raw in batches:
        pooled = pool(raw)
        if raw.device.type != "cuda":
            yield {name: values.cpu().numpy() for name, values in pooled.items()}
            continue
        host = {name: torch.empty(values.shape, dtype=values.dtype, pin_memory=True) for name, values in pooled.items()}
        for name, values in pooled.items():
            host[name].copy_(values, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(raw.device))
        behind.append((host, done))
        if len(behind) > 1:
            yield _arrived(*behind.popleft())
    while behind:
        yield _arrived(*behind.popleft())


def _arrived(host: Pooled, done: torch.cuda.Event) -> dict[str, np.ndarray]:
    done.synchronize()  # of this copy alone, not of what was queued after it
    return {name: values.numpy() for name, values in host.items()}
