"""One step of training: raw crops in, the batch's loss out; nothing on the way leaves the device.

Flips and rescaling are part of the step, so that crops travel and wait as they are stored (uint8), and
what compiles the step sees all of it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pci_core import device as devices
from pci_core.model import Model
from pci_core.preprocess import flip, preprocess
from pci_core.recipe import Preprocess
from pci_core.synchronised import loss_of_all


def prepare(raw: Tensor, flips: Tensor, spec: Preprocess, n_protein: int) -> tuple[Tensor, Tensor]:
    """Flip and rescale the crops of a batch of pairs.

    Parameters
    ----------
    raw : Tensor
        (2 N, C, H, W) as stored: the sources, then the targets.
    flips : Tensor
        (N, 4) bool, see `pci_core.pairs.Pairs`.
    spec : Preprocess
        The recipe's section.
    n_protein : int
        Number of protein channels; they come first.

    Returns
    -------
    source, target : Tensor
        (N, C, H, W) float32 in [0, 1], channels last.
    """
    n = len(raw) // 2
    raw = flip(raw, torch.cat([flips[:, :2], flips[:, 2:]]).to(raw.device))  # on the stored integers: a quarter of the bytes
    x = preprocess(raw, spec, n_protein).contiguous(memory_format=torch.channels_last)
    return x[:n], x[n:]


class TrainingStep:
    """Forward, backward and update for one batch.

    Parameters
    ----------
    model : Model
        On `device`, in training mode when called.
    optimizer : torch.optim.Optimizer
    spec : Preprocess
        The recipe's section.
    device : torch.device
    dtype : torch.dtype
        What products are computed in.
    processes : int
        How many train together, each calling this with its part of the batch, see `pci_core.synchronised`.
    """

    def __init__(
        self,
        model: Model,
        optimizer: torch.optim.Optimizer,
        spec: Preprocess,
        device: torch.device,
        dtype: torch.dtype,
        processes: int = 1,
    ) -> None:
        self.model, self.optimizer, self.spec, self.device, self.dtype = model, optimizer, spec, device, dtype
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.processes = processes
        self._loss: Callable[[Tensor, Tensor], Tensor] = loss_of_all(model, device) if processes > 1 else model.loss
        self._compiled, self._size = self.losses, 0

    def compile(self, mode: str, raw: Tensor) -> str:
        """Compile forward and backward for batches of one size; other sizes go on as they are.

        Parameters
        ----------
        mode : str
            See `pci_core.device.compile_mode`.
        raw : Tensor
            Crops of a batch of that size, (2 N, C, H, W) on the device; any values. Nothing is learnt from them.

        Returns
        -------
        str
            What to print, see `pci_core.device.warm_up`.
        """
        if self.processes > 1:
            return f"{devices.NOT_COMPILED}: that was never tried with several processes"
        flips = torch.zeros(len(raw) // 2, 4, dtype=torch.bool, device=self.device)
        kept = {name: value.clone() for name, value in self.model.named_buffers()}
        self._compiled, self._size = torch.compile(self.losses, mode=mode, dynamic=False), len(flips)
        self.model.train()
        told = devices.warm_up(lambda: self._trained(raw, flips).mean().backward())
        if told.startswith(devices.NOT_COMPILED):
            self._compiled, self._size = self.losses, 0
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, value in self.model.named_buffers():
                value.copy_(kept[name])
        return told

    def losses(self, raw: Tensor, flips: Tensor) -> Tensor:
        """Return the loss of each pair, (N,) float32, see `prepare` for the arguments."""
        return self._losses(raw, flips, self.model.loss)

    def _losses(self, raw: Tensor, flips: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        source, target = prepare(raw, flips, self.spec, self.model.architecture["n_protein"])
        with devices.autocast(self.device, self.dtype):
            return loss(source, target)

    def _trained(self, raw: Tensor, flips: Tensor) -> Tensor:
        if not self._size or len(flips) != self._size:  # 0: nothing is compiled, and a part of a batch may be empty
            return self._losses(raw, flips, self._loss)
        torch.compiler.cudagraph_mark_step_begin()
        return self._compiled(raw, flips)

    def __call__(self, raw: Tensor, flips: Tensor, pairs: int | None = None) -> Tensor:
        """Train on one batch, or on this process' part of one of `pairs` pairs (it may be empty).

        Returns the sum of the losses of the pairs given here, on the device (reading it makes a GPU wait).
        """
        each = self._trained(raw, flips)
        # the mean over the whole batch; gradients are averaged over processes, so each gives `processes` times its part
        mean = each.mean() if self.processes == 1 or pairs is None else each.sum() * (self.processes / pairs)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(mean).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return each.detach().sum()
