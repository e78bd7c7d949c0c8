from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Normal, kl_divergence

from graftwork.core.records import TaskSpec
from graftwork.tasks.divergence import output_divergence

KINDS: dict[str, tuple[int, tuple[int, ...]]] = {
    "binary": (1, (5, 1)),
    "multiclass": (4, (5, 4)),
    "multilabel": (3, (5, 3)),
    "ordinal": (4, (5, 3)),
    "regression": (2, (5, 2)),
    "dense_multiclass": (4, (5, 4, 2, 3)),
    "dense_regression": (2, (5, 2, 2, 3)),
    "dense_normals": (3, (5, 3, 2, 3)),
}


def outputs(kind: Any) -> tuple[TaskSpec, torch.Tensor, torch.Tensor]:
    size, shape = KINDS[kind]
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return TaskSpec(name="task", kind=kind, size=size), first, second


@pytest.mark.parametrize("kind", ["multiclass", "dense_multiclass"])
def test_classes_agree_with_torch(kind: str) -> None:
    spec, reference, output = outputs(kind)
    expected = kl_divergence(Categorical(logits=reference.movedim(1, -1)), Categorical(logits=output.movedim(1, -1))).mean()
    torch.testing.assert_close(output_divergence(spec, reference, output), expected)


@pytest.mark.parametrize("kind", ["binary", "multilabel", "ordinal"])
def test_yes_or_no_agrees_with_torch(kind: str) -> None:
    spec, reference, output = outputs(kind)
    expected = kl_divergence(Bernoulli(logits=reference), Bernoulli(logits=output)).mean()
    torch.testing.assert_close(output_divergence(spec, reference, output), expected)


@pytest.mark.parametrize("kind", ["regression", "dense_regression"])
def test_values_agree_with_torch(kind: str) -> None:
    spec, reference, output = outputs(kind)
    expected = kl_divergence(Normal(reference, 1.0), Normal(output, 1.0)).mean()
    torch.testing.assert_close(output_divergence(spec, reference, output), expected)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_zero_for_equal_outputs_and_above_for_others(kind: str) -> None:
    spec, reference, output = outputs(kind)
    assert float(output_divergence(spec, reference, reference)) == pytest.approx(0.0, abs=1e-12)
    assert float(output_divergence(spec, reference, output)) > 0.01


def test_the_reference_is_the_first_argument() -> None:
    spec = TaskSpec(name="task", kind="multiclass", size=2)
    sure, open_ = torch.tensor([[20.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    assert float(output_divergence(spec, sure, open_)) == pytest.approx(0.6931, abs=1e-3)  # log 2
    assert float(output_divergence(spec, open_, sure)) == pytest.approx(10.0 - 0.6931, abs=1e-3)


def test_extreme_logits_stay_finite() -> None:
    for kind in ("multiclass", "binary"):
        spec = TaskSpec(name="task", kind=kind, size=2 if kind == "multiclass" else 1)  # type: ignore[arg-type]
        far = torch.full((1, spec.size), 1e4)
        far[0, 0] = -1e4
        assert bool(output_divergence(spec, far, -far).isfinite())
