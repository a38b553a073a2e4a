"""Crops to pooled features: compiled or not, in batches of any size, they are the encoder's."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from pci_core import recipe as recipes
from pci_core.encoders import LAYERS
from pci_core.networks import build
from pci_core.pooled import Pooler, arrays
from pci_core.preprocess import preprocess

CPU, SPEC = torch.device("cpu"), recipes.load("authors-toy-yeast").preprocess


def pooler() -> Pooler:
    encoder = build("pci", 1, 1, 0.05, seed=0).source.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Pooler(encoder, SPEC, 1, LAYERS, "max", CPU, torch.float32)


def crops(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 2, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@torch.inference_mode()
@pytest.mark.parametrize("compiled", [False, True])
def test_features_are_the_encoders_in_order(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, raw = pooler(), crops(11)
    expected = pool.encoder.features(preprocess(raw, SPEC, 1))
    if compiled:  # traced as torch.compile does, without writing C++, which takes a minute
        torch.compiler.reset()
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
        assert pool.compile("default", raw[:4]).startswith("compiled in")
    found = list(arrays(pool, raw.split(4)))
    assert [len(part["conv1"]) for part in found] == [4, 4, 3]
    for layer in LAYERS:
        # rounding of float32 sums of at most a thousand terms, in another order for another batch size
        np.testing.assert_allclose(np.concatenate([part[layer] for part in found]), expected[layer].numpy(), rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_without_a_compiler_it_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(function: object, **_: object) -> object:
        def call(*_: object) -> None:
            raise ImportError("triton is missing")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    pool, raw = pooler(), crops(4)
    assert pool.compile("default", raw) == "not compiled: ImportError: triton is missing"
    assert torch.equal(pool(raw)["conv3"], pooler()(raw)["conv3"])
