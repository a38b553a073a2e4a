"""A training step: compiled it is the plain one, and compiling leaves no trace in what is trained."""

from __future__ import annotations

import functools

import pytest
import torch

from pci_core import device as devices
from pci_core import recipe as recipes
from pci_core.augment import STRENGTHS, Strength
from pci_core.networks import build
from pci_core.preprocess import preprocess
from pci_core.step import TrainingStep, prepare

CPU, SPEC = torch.device("cpu"), recipes.load("authors-toy-yeast").preprocess


def step(dtype: torch.dtype = torch.float32, pretext: str = "inpainting", strength: Strength | None = None) -> TrainingStep:
    model = build("pci", 1, 1, 0.05, seed=0, pretext=pretext).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    return TrainingStep(model, torch.optim.Adam(model.parameters(), lr=1e-3), SPEC, CPU, dtype, strength=strength)


def batch(pairs: int = 4, side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    raw = torch.randint(0, 256, (2 * pairs, 2, side, side), generator=generator, dtype=torch.uint8)
    return raw, torch.randint(0, 2, (pairs, 4), generator=generator).bool()


@pytest.fixture
def without_code_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace and differentiate as torch.compile does, but write no C++: that takes minutes on two cores."""
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


def test_sources_come_before_targets_and_each_is_flipped_as_told() -> None:
    raw, flips = batch()
    source, target = prepare(raw, flips, SPEC, 1)
    for i in range(4):
        for found, crop, (vertical, horizontal) in ((source[i], raw[i], flips[i, :2]), (target[i], raw[4 + i], flips[i, 2:])):
            expected = preprocess(crop[None], SPEC, 1)[0]
            expected = expected.flip(1) if vertical else expected
            assert torch.equal(found, expected.flip(2) if horizontal else expected)


def test_a_step_returns_the_sum_of_the_losses_and_trains() -> None:
    one = step()
    raw, flips = batch()
    before = one.losses(raw, flips).sum()
    assert one(raw, flips) == pytest.approx(float(before.detach()), rel=1e-6)  # BatchNorm takes the batch's statistics both times
    assert one.losses(raw, flips).sum() < before


@pytest.mark.usefixtures("without_code_generation")
def test_compiled_it_gives_what_the_plain_one_gives() -> None:
    plain, compiled = step(), step()
    raw, flips = batch()
    before = {name: value.clone() for name, value in compiled.model.state_dict().items()}
    assert compiled.compile("default", devices.blank(tuple(raw.shape), "uint8", CPU)).startswith("compiled in")
    assert all(torch.equal(value, before[name]) for name, value in compiled.model.state_dict().items())
    assert all(p.grad is None for p in compiled.model.parameters())
    for cut in (4, 4, 3):  # the last one is of another size and goes on uncompiled
        part = torch.cat([raw[:cut], raw[4 : 4 + cut]])
        # the same operations, decomposed: float32 rounding of sums of a few thousand terms
        assert float(compiled(part, flips[:cut])) == pytest.approx(float(plain(part, flips[:cut])), rel=1e-5)
    for a, b in zip(compiled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3)  # Adam's first steps are of 1e-3 whatever the gradient's size


@pytest.mark.usefixtures("without_code_generation")
@pytest.mark.parametrize("pretext", ["contrast", "redundancy", "inpainting+contrast"])
def test_compiled_other_pretexts_see_the_same_images_and_changes(pretext: str) -> None:
    plain, compiled = (step(pretext=pretext, strength=STRENGTHS["strong"]) for _ in range(2))
    raw, flips = batch()
    group = torch.tensor([0, 0, 1, 2])
    assert compiled.compile("default", devices.blank(tuple(raw.shape), "uint8", CPU)).startswith("compiled in")
    for epoch in range(2):
        found, expected = (float(s(raw, flips, 4, group, (0, epoch, 5))) for s in (compiled, plain))
        # decomposed, and normed over eight cells: float32 rounding, amplified; Adam's first step may turn with a gradient near 0
        assert found == pytest.approx(expected, rel=0.05 if epoch else 1e-4)
    again = step(pretext=pretext, strength=STRENGTHS["strong"])
    first = float(again(raw, flips, 4, group, (0, 0, 5)))
    assert first == float(step(pretext=pretext, strength=STRENGTHS["strong"])(raw, flips, 4, group, (0, 0, 5)))
    assert first != float(step(pretext=pretext, strength=STRENGTHS["strong"])(raw, flips, 4, group, (0, 0, 6)))
    if pretext != "redundancy":  # which has no negatives
        assert first != float(step(pretext=pretext, strength=STRENGTHS["strong"])(raw, flips, 4, torch.arange(4), (0, 0, 5)))


def test_without_a_compiler_it_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(function: object, **_: object) -> object:
        def call(*_: object) -> None:
            raise RuntimeError("no C++ compiler\nfound")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    one, plain = step(), step()
    raw, flips = batch()
    assert one.compile("default", raw) == "not compiled: RuntimeError: no C++ compiler found"
    assert float(one(raw, flips)) == float(plain(raw, flips))
