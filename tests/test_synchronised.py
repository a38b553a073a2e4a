"""BatchNorm over all processes equals torch's own where there is one, and takes any number of crops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked import Forked
from torch import nn

from pci_core.networks import build
from pci_core.synchronised import GlobalBatchNorm, plain, synchronise


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A group of one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_it_is_torchs_batch_norm(alone: None) -> None:
    torch.manual_seed(0)
    ours, theirs = GlobalBatchNorm(4, 1e-3, 0.01), nn.BatchNorm2d(4, 1e-3, 0.01)
    x = (torch.randn(5, 4, 6, 6) * 0.1 + 30).requires_grad_()  # a mean far from 0 is where a difference of squares loses digits
    other = x.detach().clone().requires_grad_()
    weight = torch.randn(5, 4, 6, 6)
    a, b = ours(x), theirs(other)
    (a * weight).sum().backward()
    (b * weight).sum().backward()
    assert x.grad is not None and other.grad is not None
    # float32: values near 30 have steps of 2e-6, divided by a spread of 0.1
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
    torch.testing.assert_close(x.grad, other.grad, rtol=0, atol=1e-3 * other.grad.abs().max().item())
    for (name, p), q in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6, msg=name)
    assert torch.equal(ours.eval()(x), theirs.eval()(other)) or torch.allclose(ours(x), theirs(other), atol=1e-4)


SCRIPT = """
import os, sys, torch, torch.distributed as dist
from pci_core.networks import build
from pci_core.synchronised import loss_of_all, synchronise
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
torch.Tensor.float = torch.Tensor.double  # all of it in float64, so that rounding hides nothing
cpu = torch.device("cpu")
torch.manual_seed(0)
x, y = torch.rand(2, 8, 2, 16, 16).double()
for split in (5, 8):  # the second time, one process has no pair at all
    whole, shared = (build("pci", 1, 1, 0.05, seed=0).double().train() for _ in range(2))
    whole.loss(x, y).mean().backward()
    synchronise(shared, cpu)
    mine = slice(0, split) if rank == 0 else slice(split, 8)
    loss = loss_of_all(shared, cpu)
    (loss(x[mine], y[mine]).sum() * 2 / 8).backward()
    for (name, p), q in zip(whole.named_parameters(), shared.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-10, atol=1e-12, msg=lambda m: f"{name}, {split}: {m}")
    for (name, p), q in zip(whole.named_buffers(), shared.buffers(), strict=True):
        torch.testing.assert_close(q, p, rtol=1e-10, atol=1e-12, msg=lambda m: f"{name}, {split}: {m}")
dist.destroy_process_group()
"""


def test_gradients_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    processes = [Forked(SCRIPT, r, tmp_path / "meet") for r in range(2)]
    try:
        told = [p.communicate(timeout=120)[1] for p in processes]
    finally:
        for p in processes:
            p.kill()
    assert [p.returncode for p in processes] == [0, 0], told


def test_a_network_keeps_names_and_parameters(alone: None) -> None:
    model = build("pci", 1, 1, 0.05, seed=0)
    names, parameters = list(model.state_dict()), [id(p) for p in model.parameters()]
    synchronise(model, torch.device("cpu"))
    assert sum(isinstance(m, GlobalBatchNorm) for m in model.modules()) == 8
    assert list(model.state_dict()) == names and [id(p) for p in model.parameters()] == parameters
    again = plain(model)
    assert not any(isinstance(m, GlobalBatchNorm) for m in again.modules()) and list(again.state_dict()) == names


def test_an_empty_part_of_a_batch_has_gradients_of_zero(alone: None) -> None:
    model = build("pci", 1, 1, 0.05, seed=0).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # a whole batch of nothing has no mean; a part of one is tested with two processes
    none = torch.zeros(0, 2, 16, 16)
    model.loss(none, none).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
