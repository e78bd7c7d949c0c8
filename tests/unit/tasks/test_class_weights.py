"""Class weights: what they are, and that losses of all kinds weigh rows by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.class_weights import LARGEST, WEIGHTS, balanced_weights, column_weights, weights_of

torch = pytest.importorskip("torch")

from graftwork.tasks.losses import prior_loss, task_loss  # noqa: E402


@given(arrays(np.int64, st.integers(2, 6), elements=st.integers(0, 1000)))
def test_balanced_classes_weigh_the_same_together(counts) -> None:
    weights = balanced_weights(counts)
    together = (weights * counts)[counts > 0]
    if counts.any():
        assert together.sum() == pytest.approx(counts.sum()), "a mean of 1 over rows"
    if counts.any() and counts.max() < LARGEST * counts[counts > 0].min():
        np.testing.assert_allclose(together, together[:1].repeat(len(together)))


def test_a_very_rare_class_does_not_outweigh_all_others() -> None:
    weights = balanced_weights(np.array([1_000_000, 1]))
    assert weights[1] == pytest.approx(LARGEST * weights[0])


TARGETS = {
    "binary": (TaskSpec(name="a", kind="binary", size=1), torch.tensor([0, 0, 0, 1, -1]), torch.randn(5, 1)),
    "multiclass": (TaskSpec(name="a", kind="multiclass", size=3), torch.tensor([0, 0, 1, 2, -1]), torch.randn(5, 3)),
    "ordinal": (TaskSpec(name="a", kind="ordinal", size=3), torch.tensor([0, 0, 1, 2, -1]), torch.randn(5, 2)),
    "multilabel": (
        TaskSpec(name="a", kind="multilabel", size=2),
        torch.tensor([[0, 1], [0, 0], [1, 0], [0, float("nan")], [0, 0]]),
        torch.randn(5, 2),
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_weighted_loss_is_that_of_repeated_rows(name: str) -> None:
    """Each row as often as its weight says; of labels, each entry."""
    spec, target, output = TARGETS[name]
    kind = task_kind(spec)
    weighted = kind.class_weighted(spec, "balanced", target.numpy())
    found = float(task_loss(weighted, output, target))
    if name == "multilabel":
        total, known = 0.0, 0
        for row in range(5):
            for label in range(2):
                truth = target[row, label]
                if not truth.isnan():
                    weight = column_weights(weighted, label)[int(truth)]
                    one = TaskSpec(name="a", kind="binary", size=1)
                    total += weight * float(task_loss(one, output[row : row + 1, [label]], truth.long()[None]))
                    known += 1
    else:
        rows = [row for row in range(5) if target[row] >= 0]
        losses = [float(task_loss(spec, output[[row]], target[[row]])) for row in rows]
        total = sum(weights_of(weighted)[int(target[row])] * loss for row, loss in zip(rows, losses, strict=True))
        known = len(rows)
    assert found == pytest.approx(total / known, rel=1e-5)
    labelled = ~target.isnan().any(dim=1) if target.is_floating_point() else target >= 0
    complete = float(task_loss(weighted, output[labelled], target[labelled], complete=True))
    assert complete == pytest.approx(float(task_loss(weighted, output[labelled], target[labelled])), rel=1e-5)
    # Balanced answers are the best constant ones.
    assert prior_loss(weighted, target) >= prior_loss(spec, target) - 1e-9


@pytest.mark.parametrize("name", TARGETS)
def test_without_weights_losses_are_what_they_were(name: str) -> None:
    spec, target, output = TARGETS[name]
    even = replace(spec, details={WEIGHTS: np.ones((spec.size, 2) if name == "multilabel" else max(spec.size, 2)).tolist()})
    assert float(task_loss(even, output, target)) == pytest.approx(float(task_loss(spec, output, target)), rel=1e-6)
    assert TaskSpec.from_json(even.to_json()) == even


def test_other_kinds_and_other_words_are_refused() -> None:
    number = TaskSpec(name="price", kind="regression", size=1)
    with pytest.raises(ConfigError, match="'price' .*has no classes to weigh"):
        task_kind(number).class_weighted(number, "balanced", np.zeros((3, 1)))
    spec = TARGETS["binary"][0]
    with pytest.raises(ConfigError, match="can be balanced; got 'even'"):
        task_kind(spec).class_weighted(spec, "even", np.array([0, 1]))
    with pytest.raises(ConfigError, match="must be numbers of at least 0"):
        replace(spec, details={WEIGHTS: [1.0, -1.0]})
