"""Concrete merging: masks and their gradients, the two rules, the control, and what it asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.methods.merging.adamerging import EntropyRows
from graftwork.methods.merging.concrete_merging import ConcreteConfig, ConcreteMask, ConcreteMerging, masked_weights
from graftwork.methods.merging.learned_coefficients import Coefficients
from graftwork.methods.merging.task_vectors import TaskVectors

from .merge_worlds import COLOUR, LATE, context_of, make_suite, models_of


def mask_of(shape: tuple[int, ...], temperature: float = 0.5, seed: int = 0) -> ConcreteMask:
    return ConcreteMask({"w": torch.zeros(shape)}, temperature, torch.Generator().manual_seed(seed))


def world() -> TaskVectors:
    base, experts = models_of((COLOUR,), (LATE,))
    return TaskVectors(base, experts, context_of(make_suite()))


def test_a_mask_is_the_relaxed_draw_divided_by_its_mean() -> None:
    mask = mask_of((200, 50))
    with torch.no_grad():
        mask.logits["w"].copy_(torch.linspace(-4, 4, 10000).reshape(200, 50))
    noise = torch.rand(200, 50, generator=torch.Generator().manual_seed(0)).double()
    raw = 1.0 / (1.0 + torch.exp(-(mask.logits["w"].double() + torch.log(noise) - torch.log1p(-noise)) / 0.5))
    drawn = mask.draw()["w"].detach()
    torch.testing.assert_close(drawn.double(), raw / raw.mean(), rtol=1e-3, atol=1e-4)
    assert float(drawn.mean()) == pytest.approx(1.0, abs=1e-5)
    # An entry of a cold mask is on as often as its logit says.
    cold = mask_of((20000,), temperature=1e-3)
    with torch.no_grad():
        cold.logits["w"].fill_(1.0)
    assert float((cold.draw()["w"] > 0.5).float().mean()) == pytest.approx(1 / (1 + np.exp(-1)), abs=0.02)
    assert cold.kept() == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-5)


def test_gradients_reach_the_logits_as_finite_differences_say() -> None:
    vectors = world()
    mask = ConcreteMask(vectors.start, 0.5, torch.Generator().manual_seed(0))
    changes = vectors.sums(Coefficients(vectors, "model", 0.3).by_name())
    changes = {name: value.detach() for name, value in changes.items()}
    losses = EntropyRows(vectors, "val", 40, 100).losses()

    def total() -> float:
        mask._generator.manual_seed(7)
        with torch.no_grad():
            weights = masked_weights(vectors, changes, mask.draw())
            return sum(float(loss(weights)) for loss in losses)

    mask._generator.manual_seed(7)
    vectors.backward(masked_weights(vectors, changes, mask.draw()), losses)
    name = max(vectors.names, key=lambda key: float(mask.logits[key].grad.abs().max()))  # type: ignore[union-attr]
    logits, gradient = mask.logits[name], mask.logits[name].grad
    assert gradient is not None
    # Along the gradient: the derivative is its norm, far above what rounding adds.
    direction, size = gradient / gradient.norm(), 0.05
    with torch.no_grad():
        logits += size * direction
        above = total()
        logits -= 2 * size * direction
        below = total()
    assert (above - below) / (2 * size) == pytest.approx(float(gradient.norm()), rel=0.02)


@pytest.mark.parametrize("rule", ["task-arithmetic", "adamerging"])
def test_masks_learn_and_heads_stay(rule: Any) -> None:
    base, experts = models_of((COLOUR,), (LATE,))
    config = ConcreteConfig(rule=rule, steps=4, learning_rate=0.5, adapt_steps=3, batch_size=30)
    merger, context = ConcreteMerging(config), context_of(make_suite())
    merged = merger.merge(base, experts, context)
    assert set(merged) == set(base.tensors)
    assert any(not np.allclose(merged[name], value) for name, value in base.tensors.items())
    assert merger.kept is not None
    assert merger.kept != pytest.approx(0.5, abs=1e-4)
    assert merger.settings()["kept"] == merger.kept
    assert context.costs["steps"] == (4 if rule == "task-arithmetic" else 4 * 2 + 3)
    if rule == "task-arithmetic":
        assert merger.weights == pytest.approx((0.3, 0.3))
    again = ConcreteMerging(config).merge(base, experts, context_of(make_suite()))
    for name, value in merged.items():
        np.testing.assert_array_equal(value, again[name])


def test_learning_lowers_the_entropy() -> None:
    base, experts = models_of((COLOUR,), (LATE,), noise=0.6)

    def entropy(**options: Any) -> float:
        config = ConcreteConfig(batch_size=50, scaling=0.6, binary=True, **options)
        merged = ConcreteMerging(config).merge(base, experts, context_of(make_suite()))
        vectors = TaskVectors(base, experts, context_of(make_suite()))
        weights = {name: torch.from_numpy(merged[name]) for name in vectors.names}
        return sum(float(loss(weights)) for loss in EntropyRows(vectors, "val", 100, 100).losses())

    learned = entropy(steps=30, learning_rate=0.3)
    assert learned < entropy(steps=0)
    assert learned < entropy(steps=30, learning_rate=0.3, shuffle=True)


def test_the_control_keeps_as_many_entries() -> None:
    mask = mask_of((4, 5))
    with torch.no_grad():
        mask.logits["w"].copy_(torch.arange(20.0).reshape(4, 5) - 10.0)
    before, kept = mask.logits["w"].detach().clone(), mask.kept()
    mask.shuffle()
    assert not torch.equal(mask.logits["w"], before)
    assert torch.equal(mask.logits["w"].flatten().sort().values, before.flatten())
    assert mask.kept() == pytest.approx(kept)


def test_one_mask_serves_all_models() -> None:
    vectors = world()
    drawn = ConcreteMask(vectors.start, 0.5, torch.Generator().manual_seed(0)).draw()
    coefficients = Coefficients(vectors, "model", 0.3)
    weights = masked_weights(vectors, vectors.sums(coefficients.by_name()), drawn)
    each = {name: change * drawn[name] for name, change in vectors.changes.items()}
    for name, value in vectors.combine(coefficients.by_name(), each).items():
        torch.testing.assert_close(weights[name], value)


def test_a_binary_mask_keeps_what_is_likely_kept() -> None:
    mask = mask_of((4,))
    with torch.no_grad():
        mask.logits["w"].copy_(torch.tensor([-1.0, 2.0, 3.0, -0.1]))
    assert mask.binary()["w"].tolist() == [0.0, 2.0, 2.0, 0.0]
    with torch.no_grad():
        mask.logits["w"].fill_(-1.0)
    assert mask.binary()["w"].tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": 0.0}, "`temperature` must be above 0"),
        ({"inner_rate": -1.0}, "`inner_rate`"),
        ({"adapt_rate": 0.0}, "0.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ConcreteConfig(**settings)
