"""AdaMerging: its gradients against finite differences, that entropy falls, that labels are not looked at."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.methods.merging.adamerging import AdaMerging, AdaMergingConfig, EntropyRows, learn_coefficients
from graftwork.methods.merging.answer_entropy import answer_entropy, has_entropy
from graftwork.methods.merging.learned_coefficients import Coefficients
from graftwork.methods.merging.task_arithmetic import TaskArithmeticMerger
from graftwork.methods.merging.task_vectors import TaskVectors

from .merge_worlds import COLOUR, LATE, SIZE, context_of, make_suite, models_of


def vectors_of(**options: Any) -> TaskVectors:
    base, experts = models_of((COLOUR,), (LATE,))
    return TaskVectors(base, experts, context_of(make_suite(**options)))


def in_double(vectors: TaskVectors) -> TaskVectors:
    """Finite differences need more digits."""
    vectors.start = {name: value.double() for name, value in vectors.start.items()}
    vectors.changes = {name: value.double() for name, value in vectors.changes.items()}
    for answering in vectors.answering:
        answering.network.double()
    return vectors


@pytest.mark.parametrize("grain", ["model", "tensor"])
def test_gradients_are_those_of_finite_differences(grain: Any) -> None:
    vectors = in_double(vectors_of())
    coefficients = Coefficients(vectors, grain, 0.3)
    coefficients.values = coefficients.values.detach().double().requires_grad_()
    rows = EntropyRows(vectors, "val", 8, 100)
    for pool in rows._pools:
        object.__setattr__(pool.rows, "inputs", {name: value.double() for name, value in pool.rows.inputs.items()})
    losses = rows.losses()

    def total() -> float:
        with torch.no_grad():
            weights = vectors.combine(coefficients.by_name())
            return sum(float(loss(weights)) for loss in losses)

    said = vectors.backward(vectors.combine(coefficients.by_name()), losses)
    assert sum(said) == pytest.approx(total(), rel=1e-9)
    gradient = coefficients.values.grad
    assert gradient is not None
    assert gradient.shape == ((2, 1) if grain == "model" else (2, len(vectors.names)))
    for place in np.ndindex(*gradient.shape):
        with torch.no_grad():
            coefficients.values[place] += 1e-5
            above = total()
            coefficients.values[place] -= 2e-5
            below = total()
            coefficients.values[place] += 1e-5
        assert float(gradient[place]) == pytest.approx((above - below) / 2e-5, rel=1e-4, abs=1e-8)


def test_without_steps_it_is_task_arithmetic() -> None:
    base, experts = models_of((COLOUR,), (LATE,))
    merged = AdaMerging(AdaMergingConfig(steps=0)).merge(base, experts, context_of(make_suite()))
    rule = TaskArithmeticMerger(scaling=0.3)
    assert set(merged) == set(base.tensors)
    for name, value in base.tensors.items():
        expected = rule.merge_tensor(name, value, [model.tensors[name] for model in experts])
        np.testing.assert_allclose(merged[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("grain", ["model", "tensor"])
def test_entropy_falls(grain: Any) -> None:
    vectors = vectors_of()
    coefficients = Coefficients(vectors, grain, 0.3, clamp=True)
    curve = learn_coefficients(vectors, coefficients, EntropyRows(vectors, "val", 100, 100), steps=25, learning_rate=0.03)
    assert curve[-1] < curve[0] - 0.01
    assert vectors.context.costs["steps"] == 25
    assert all(0.0 <= value <= 1.0 for value in coefficients.means())


def test_labels_are_not_looked_at() -> None:
    base, experts = models_of((COLOUR,), (LATE,))
    suite = make_suite()
    other = dataclasses.replace(suite, targets={name: np.where(value >= 0, 0, -1) for name, value in suite.targets.items()})
    config = AdaMergingConfig(steps=3, learning_rate=0.05)
    first = AdaMerging(config)
    found = first.merge(base, experts, context_of(suite))
    for name, value in AdaMerging(config).merge(base, experts, context_of(other)).items():
        np.testing.assert_array_equal(found[name], value)
    assert first.weights is not None
    assert len(first.weights) == 2
    assert first.settings()["weights"] == first.weights
    # Rows without any label count for both tasks.
    AdaMerging(config).merge(base, experts, context_of(make_suite(labels=False)))


@pytest.mark.parametrize("task", [COLOUR, LATE, TaskSpec(name="tags", kind="multilabel", size=3, classes=("a", "b", "c"))])
def test_entropy_is_that_of_the_answers_up_to_a_constant(task: TaskSpec) -> None:
    assert has_entropy(task)
    outputs = torch.randn(2, 7, 3 if task.size == 3 else 1, dtype=torch.float64)
    if task.kind == "multiclass":
        true = [float(-(F.softmax(one, 1) * F.log_softmax(one, 1)).sum(1).mean()) for one in outputs]
    else:
        true = [float(-(one.sigmoid() * F.logsigmoid(one) + (-one).sigmoid() * F.logsigmoid(-one)).mean()) for one in outputs]
    said = [float(answer_entropy(task, one)) for one in outputs]
    assert said[0] - said[1] == pytest.approx(true[0] - true[1], rel=1e-9)
    assert all(value <= 0.0 for value in said)


def test_answers_that_are_numbers_have_none() -> None:
    assert not has_entropy(SIZE)
    base, experts = models_of((SIZE,), (SIZE,))
    with pytest.raises(ConfigError, match="The answers of size are numbers"):
        AdaMerging().merge(base, experts, context_of(make_suite(tasks=(SIZE,))))
    base, experts = models_of((SIZE,), (COLOUR,))
    with pytest.warns(UserWarning, match="The answers of size have no entropy"):
        AdaMerging(AdaMergingConfig(steps=1)).merge(base, experts, context_of(make_suite(tasks=(SIZE, COLOUR))))


def test_what_is_missing_is_named() -> None:
    base, experts = models_of((COLOUR,), (LATE,))
    context = context_of(make_suite())
    with pytest.raises(ConfigError, match="Name the base with --base"):
        AdaMerging().merge(None, experts, context)
    with pytest.raises(ConfigError, match="no data was given"):
        AdaMerging().merge(base, experts, dataclasses.replace(context, tasks=(), rows={}))
    with pytest.raises(ConfigError, match="needs rows for 'other'"):
        AdaMerging(AdaMergingConfig(role="other")).merge(base, experts, context)
    with pytest.raises(ConfigError, match="`steps` must be at least 0"):
        AdaMergingConfig(steps=-1)
