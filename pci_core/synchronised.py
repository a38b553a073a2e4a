"""What a network needs to be trained by several processes: gradients averaged, BatchNorm over the whole batch.

BatchNorm is synchronised, that is, its mean and variance are those of the global batch. So a training does not depend on how
many processes share it beyond rounding. On CUDA it is `torch.nn.SyncBatchNorm`; the CPU, where torch has none, gets `GlobalBatchNorm`.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pci_core.networks import Model, build


class _AllReduce(torch.autograd.Function):
    """The sum over all processes. Its gradient is the sum of theirs, as the loss is the sum of their parts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad


class GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm whose mean and variance are those of all processes' crops together; each may hold any number, also none.

    Parameters, buffers and their names are those of `torch.nn.BatchNorm2d`, and so is inference.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W); N may differ between processes and be 0."""
        if not self.training:
            return super().forward(x)
        n = x.numel() // x.shape[1]
        wide = x.float()
        if n:
            var, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
        else:
            var = mean = wide.sum((0, 2, 3))  # zeros that hang in the graph: this process, too, must take part in the backward pass
        # each process' variance is taken around its own mean; put together in float64, nothing is lost in the difference of squares
        mean, var = mean.double(), var.double()
        sums = _AllReduce.apply(torch.cat([n * mean, n * (var + mean.square()), mean.new_full((1,), n)]))  # type: ignore[no-untyped-call]
        count = sums[-1]
        mean, square = (sums[:-1] / count).chunk(2)
        var = square - mean.square()
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.float(), self.momentum or 0.0)
            self.running_var.lerp_((var * count / (count - 1)).float(), self.momentum or 0.0)
        scale = self.weight.double() * torch.rsqrt(var + self.eps)
        shape = (1, -1, 1, 1)
        y = (wide - mean.float().view(shape)) * scale.float().view(shape) + self.bias.view(shape)
        out: Tensor = y.to(x.dtype)
        return out


class _LossOf(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, source: Tensor, target: Tensor, group: Tensor | None = None, views: tuple[Tensor, Tensor] | None = None) -> Tensor:
        return self.model.loss(source, target, group, views)


def synchronise(model: Model, device: torch.device) -> None:
    """Let every BatchNorm of a network take its statistics over all processes; names and parameters stay."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm) is nn.BatchNorm2d:
                new = GlobalBatchNorm(norm.num_features, norm.eps, norm.momentum)
                new.weight, new.bias = norm.weight, norm.bias
                new.running_mean, new.running_var, new.num_batches_tracked = norm.running_mean, norm.running_var, norm.num_batches_tracked
                setattr(parent, name, new)


def loss_of_all(model: Model, device: torch.device) -> nn.Module:
    """Return what computes the loss of each pair, (N,), and averages the gradients over processes in the backward pass.

    Keep it until then: with it goes what averages them.
    """
    parallel = nn.parallel.DistributedDataParallel
    # buffers are the same everywhere already, as BatchNorm is synchronised; newer versions of torch call the option by another name
    known = inspect.signature(parallel.__init__).parameters
    option: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
    devices = [device.index] if device.type == "cuda" else None
    return parallel(_LossOf(model), device_ids=devices, **option)


def plain(model: Model) -> Model:
    """Return the same network with ordinary BatchNorm, for inference by one process."""
    device = next(model.parameters()).device
    other = build(**model.architecture)
    other.load_state_dict(model.state_dict())
    return other.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
