"""One step of training: raw crops in, the batch's loss out; nothing on the way leaves the device.

Flips and rescaling are part of the step, so that crops travel and wait as they are stored (uint8), and
what compiles the step sees all of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pci_core import device as devices
from pci_core.augment import Draws, Strength, change, draw
from pci_core.networks import Model
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
    strength : Strength, optional
        Of the random changes of what the encoder sees, see `pci_core.augment`.
    """

    def __init__(
        self,
        model: Model,
        optimizer: torch.optim.Optimizer,
        spec: Preprocess,
        device: torch.device,
        dtype: torch.dtype,
        processes: int = 1,
        strength: Strength | None = None,
    ) -> None:
        self.model, self.optimizer, self.spec, self.device, self.dtype = model, optimizer, spec, device, dtype
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.processes = processes
        self._loss: Callable[..., Tensor] = loss_of_all(model, device) if processes > 1 else model.loss
        self._compiled, self._size = self.losses, 0
        self.strength = strength
        self._generator = torch.Generator(device if device.type != "mps" else "cpu")

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
        group = torch.arange(len(flips), device=self.device)
        kept = {name: value.clone() for name, value in self.model.named_buffers()}
        self._compiled, self._size = torch.compile(self.losses, mode=mode, dynamic=False), len(flips)
        self.model.train()
        told = devices.warm_up(lambda: self._trained(raw, flips, group).mean().backward())
        if told.startswith(devices.NOT_COMPILED):
            self._compiled, self._size = self.losses, 0
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, value in self.model.named_buffers():
                value.copy_(kept[name])
        return told

    def losses(self, raw: Tensor, flips: Tensor, group: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """Return the loss of each pair, (N,) float32.

        Parameters
        ----------
        raw, flips
            See `prepare`.
        group : Tensor, optional
            (N,) number of each pair's image.
        draws : dict of str to Tensor, optional
            Random changes of what the encoder sees, of `pci_core.augment.draw`.
        """
        return self._losses(raw, flips, self.model.loss, group, draws)

    def _losses(
        self, raw: Tensor, flips: Tensor, loss: Callable[..., Tensor], group: Tensor | None = None, draws: Draws | None = None
    ) -> Tensor:
        source, target = prepare(raw, flips, self.spec, self.model.architecture["n_protein"])
        views = None
        if draws is not None:
            first, second = change(torch.cat([source, target]), draws).chunk(2)
            views = (first, second)
        with devices.autocast(self.device, self.dtype):
            return loss(source, target, group, views)

    def _trained(self, raw: Tensor, flips: Tensor, group: Tensor | None) -> Tensor:
        draws = None
        if self.strength is not None and len(raw):
            drawn = draw(tuple(raw.shape), self.strength, self._generator)  # outside of what is compiled, which knows no generators
            draws = {name: value.to(self.device) for name, value in drawn.items()}
        if not self._size or len(flips) != self._size:  # 0: nothing is compiled, and a part of a batch may be empty
            return self._losses(raw, flips, self._loss, group, draws)
        torch.compiler.cudagraph_mark_step_begin()
        return self._compiled(raw, flips, group, draws)

    def __call__(
        self, raw: Tensor, flips: Tensor, pairs: int | None = None, group: Tensor | None = None, seed: tuple[int, ...] = (0,)
    ) -> Tensor:
        """Train on one batch, or on this process' part of one of `pairs` pairs (it may be empty).

        Parameters
        ----------
        raw, flips, group
            See `losses`.
        pairs : int, optional
            Of the whole batch.
        seed : tuple of int
            What the random changes depend on: of the training, epoch and step, so that a cut training goes on with the same.

        Returns
        -------
        Tensor
            The sum of the losses of the pairs given here, on the device (reading it makes a GPU wait).
        """
        if self.strength is not None:
            self._generator.manual_seed(int(np.random.SeedSequence([*seed, 0xA6]).generate_state(1, np.uint64)[0] >> 1))
        each = self._trained(raw, flips, group)
        # the mean over the whole batch; gradients are averaged over processes, so each gives `processes` times its part
        mean = each.mean() if self.processes == 1 or pairs is None else each.sum() * (self.processes / pairs)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(mean).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return each.detach().sum()
