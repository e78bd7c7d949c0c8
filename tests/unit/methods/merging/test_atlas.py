"""aTLAS: gradients, a start at the base, blocks and parts, the few-shot use, and what it asks for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from graftwork.core.errors import ConfigError, DataError
from graftwork.interfaces.model_merger import MergeModel
from graftwork.methods.merging.atlas import Atlas, AtlasConfig, _loss
from graftwork.methods.merging.learned_coefficients import Coefficients
from graftwork.methods.merging.task_vectors import TaskVectors

from .merge_worlds import COLOUR, LATE, build, context_of, make_suite, model_of, models_of


def test_without_steps_it_is_the_base() -> None:
    base, experts = models_of((COLOUR,), (LATE,))
    merged = Atlas(AtlasConfig(steps=0)).merge(base, experts, context_of(make_suite()))
    assert set(merged) == set(base.tensors)
    for name, value in base.tensors.items():
        np.testing.assert_array_equal(merged[name], value)


@pytest.mark.parametrize(("grain", "parts"), [("model", 1), ("tensor", 1), ("tensor", 3)])
def test_weights_are_the_written_out_sum(grain: Any, parts: int) -> None:
    base, experts = models_of((COLOUR,), (LATE,))
    vectors = TaskVectors(base, experts, context_of(make_suite()))
    coefficients = Coefficients(vectors, grain, 0.0, parts=parts, seed=3)
    tensors = len(vectors.names)
    assert coefficients.values.shape == (2, 1 if grain == "model" else tensors * parts)
    with torch.no_grad():
        coefficients.values.copy_(torch.randn(coefficients.values.shape))
    found, by = vectors.combine(coefficients.by_name()), coefficients.by_name()
    for place, name in enumerate(vectors.names):
        changes = [model.tensors[name] - base.tensors[name] for model in experts]
        for index in np.ndindex(*changes[0].shape):
            if parts > 1:
                numbers = by[name][(slice(None), *index)]
                allowed = coefficients.values[:, place * parts : (place + 1) * parts]
                assert any(torch.equal(numbers, allowed[:, part]) for part in range(parts))
            else:
                numbers = coefficients.values[:, 0 if grain == "model" else place]
            expected = base.tensors[name][index] + sum(
                float(number) * change[index] for number, change in zip(numbers, changes, strict=True)
            )
            assert float(found[name][index]) == pytest.approx(float(expected), rel=1e-4, abs=1e-5)
    if parts > 1:
        sizes = torch.bincount(coefficients._parts[vectors.names[-1]].flatten(), minlength=parts)
        assert int(sizes.max() - sizes.min()) <= 1


def test_gradients_are_those_of_finite_differences() -> None:
    base, experts = models_of((COLOUR,), (LATE,))
    vectors = TaskVectors(base, experts, context_of(make_suite()))
    coefficients = Coefficients(vectors, "tensor", 0.2)
    questions = vectors.questions()
    pools = vectors.pools(questions, "val", labelled=True, num_rows=100)
    losses = [_loss(vectors, question, pool.rows) for question, pool in zip(questions, pools, strict=True)]
    vectors.backward(vectors.combine(coefficients.by_name()), losses)
    gradient = coefficients.values.grad
    assert gradient is not None
    direction, size = gradient / gradient.norm(), 0.01

    def total(shift: float) -> float:
        with torch.no_grad():
            coefficients.values += shift * direction
            weights = vectors.combine(coefficients.by_name())
            value = sum(float(loss(weights)) for loss in losses)
            coefficients.values -= shift * direction
        return value

    assert (total(size) - total(-size)) / (2 * size) == pytest.approx(float(gradient.norm()), rel=0.01)


def loss_of(vectors: TaskVectors, merged: dict[str, np.ndarray]) -> float:
    weights = {name: torch.from_numpy(merged[name]) for name in vectors.names}
    questions = vectors.questions()
    pools = vectors.pools(questions, "val", labelled=True, num_rows=100)
    return sum(float(_loss(vectors, question, pool.rows)(weights)) for question, pool in zip(questions, pools, strict=True))


@pytest.mark.parametrize(
    "options", [{}, {"grain": "model"}, {"parts": 2}, {"penalty": "l1", "penalty_weight": 1e-3}, {"looks": 1}]
)
def test_learning_lowers_the_loss(options: dict[str, Any]) -> None:
    base, experts = models_of((COLOUR,), (LATE,))
    context = context_of(make_suite())
    merger = Atlas(AtlasConfig(steps=20, learning_rate=0.1, batch_size=50, **options))
    merged = merger.merge(base, experts, context)
    vectors = TaskVectors(base, experts, context_of(make_suite()))
    assert loss_of(vectors, merged) < loss_of(vectors, dict(base.tensors)) - 0.01
    assert context.costs["steps"] == 20
    assert merger.weights is not None
    assert merger.settings()["weights"] == merger.weights


def test_a_penalty_holds_coefficients_near_zero() -> None:
    base, experts = models_of((COLOUR,), (LATE,))

    def size(**options: Any) -> float:
        merger = Atlas(AtlasConfig(steps=20, learning_rate=0.1, looks=1, **options))
        merged = merger.merge(base, experts, context_of(make_suite()))
        return sum(float(np.square(merged[name] - base.tensors[name]).sum()) for name in base.tensors)

    free = size(penalty="none")
    assert size(penalty="l2", penalty_weight=10.0) < 0.5 * free
    assert size(penalty="l1", penalty_weight=10.0) < 0.5 * free


def test_a_target_without_a_model_of_its_own_is_answered_by_the_base() -> None:
    _, experts = models_of((COLOUR,), (COLOUR,))
    tensors = {name: value.numpy() for name, value in build((LATE,), 5).state_dict().items()}
    base = model_of(tensors, lambda: build((LATE,), 5), "base")
    merged = Atlas(AtlasConfig(steps=10, learning_rate=0.1, batch_size=50)).merge(
        base, experts, context_of(make_suite(tasks=(LATE,)))
    )
    assert set(merged) == set(tensors)
    for name, value in tensors.items():
        assert np.array_equal(merged[name], value) == name.startswith("heads.")


def test_what_is_missing_is_named() -> None:
    base, experts = models_of((COLOUR,), (LATE,))
    suite = make_suite()
    with pytest.raises(DataError, match="None of the 'val' rows is one of the task 'late'"):
        late = np.full_like(suite.targets["late"], -1)
        Atlas().merge(base, experts, context_of(dataclasses.replace(suite, targets={**suite.targets, "late": late})))
    with pytest.raises(ConfigError, match="m1 holds weights only"):
        Atlas().merge(base, [MergeModel(name="m1", tensors=experts[0].tensors)], context_of(suite))
    with pytest.raises(ConfigError, match="no task is in both"):
        Atlas().merge(base, experts[:1], context_of(make_suite(tasks=(LATE,))))
    with pytest.raises(ConfigError, match="`parts` divide tensors"):
        AtlasConfig(parts=2, grain="model")
    with pytest.raises(ConfigError, match="`parts` and `looks` must be at least 1"):
        AtlasConfig(looks=0)
