"""What every task kind must do, for all that are found. A kind without an example here is tested where its module is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graftwork.core.kinds import all_kinds, find_kind
from graftwork.core.records import TaskSpec
from graftwork.evaluation.metrics import METRICS, default_metric, prepare_metric, score_task
from graftwork.interfaces.task_kind import TaskKind, task_kind
from graftwork.tasks.decode import decode_output
from graftwork.tasks.divergence import output_divergence
from graftwork.tasks.losses import label_count, prior_loss, task_loss

ROWS, PIXELS, STEPS = 12, (3, 2), (5,)


def spec(kind: str, size: int, positions: str = "", **fields: Any) -> TaskSpec:
    return TaskSpec(name="task", kind=kind, size=size, positions=positions, **fields)


def classes(size: int, *shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda generator: torch.randint(0, size, (ROWS, *shape), generator=generator)


def values(*shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda generator: 3.0 + 2.0 * torch.randn(ROWS, *shape, generator=generator)


def times(generator: torch.Generator) -> Tensor:
    return torch.stack([4.0 * torch.rand(ROWS, generator=generator), torch.arange(ROWS) % 3 > 0], dim=1)


def relevance(generator: torch.Generator) -> Tensor:
    return torch.stack([torch.randint(0, 4, (ROWS,), generator=generator), torch.arange(ROWS) % 3], dim=1).float()


def tokens(generator: torch.Generator) -> Tensor:
    lengths = torch.randint(1, 5, (ROWS, 1), generator=generator)
    drawn = torch.randint(1, 3, (ROWS, 4), generator=generator)
    drawn[torch.arange(4) == lengths - 1] = 0
    drawn[torch.arange(4) >= lengths] = -1
    return drawn


SCALED = {"center": (3.0,), "scale": (2.0,)}
EXAMPLES: dict[tuple[str, str], tuple[TaskSpec, Callable[[torch.Generator], Tensor]]] = {
    ("binary", ""): (spec("binary", 1), classes(2)),
    ("multiclass", ""): (spec("multiclass", 4), classes(4)),
    ("ordinal", ""): (spec("ordinal", 4), classes(4)),
    ("multilabel", ""): (spec("multilabel", 3), lambda generator: classes(2, 3)(generator).float()),
    ("regression", ""): (spec("regression", 1, **SCALED), values(1)),
    ("binary", "pixels"): (spec("binary", 1, "pixels"), classes(2, *PIXELS)),
    ("multiclass", "pixels"): (spec("multiclass", 4, "pixels"), classes(4, *PIXELS)),
    ("regression", "pixels"): (spec("regression", 1, "pixels", **SCALED), values(1, *PIXELS)),
    ("normals", "pixels"): (spec("normals", 3, "pixels"), values(3, *PIXELS)),
    ("offsets", "pixels"): (spec("offsets", 2, "pixels", center=(3.0, 3.0), scale=(2.0, 2.0)), values(2, *PIXELS)),
    ("binary", "steps"): (spec("binary", 1, "steps"), classes(2, *STEPS)),
    ("multiclass", "nodes"): (spec("multiclass", 4, "nodes"), classes(4, *STEPS)),
    ("regression", "points"): (spec("regression", 1, "points", **SCALED), values(1, *STEPS)),
    ("normals", "points"): (spec("normals", 3, "points"), values(3, *STEPS)),
    ("offsets", "points"): (spec("offsets", 2, "points", center=(3.0, 3.0), scale=(2.0, 2.0)), values(2, *STEPS)),
    ("survival", ""): (spec("survival", 4, details={"edges": [0.5, 1.0, 2.0, 3.0]}), times),
    ("ranking", ""): (spec("ranking", 1, center=(1.0,), scale=(2.0,)), relevance),
    ("sequence", ""): (spec("sequence", 3, details={"length": 4}), tokens),
    ("embedding", ""): (spec("embedding", 5), lambda generator: torch.arange(ROWS) % 4),
}
NAMES = sorted(EXAMPLES)


def example(name: tuple[str, str], seed: int = 0) -> tuple[TaskSpec, Tensor, Tensor]:
    """A task, raw outputs and fully labelled targets."""
    generator = torch.Generator().manual_seed(seed)
    task, make = EXAMPLES[name]
    target = make(generator)
    shape = target.shape[2:] if target.is_floating_point() else target.shape[1:]
    return task, torch.randn(ROWS, task.num_outputs, *(shape if task.positions else ()), generator=generator), target


def unlabelled(target: Tensor) -> Tensor:
    return torch.full_like(target, float("nan") if target.is_floating_point() else -1)


def test_all_kinds_of_the_package_have_an_example() -> None:
    have = {(name, bool(positions)) for name, positions in EXAMPLES}
    ours = [kind for kind in all_kinds() if type(kind).__module__.startswith("graftwork.")]
    assert [kind.name for kind in ours if (kind.name, kind.over_positions) not in have] == []


@pytest.mark.parametrize("name", NAMES, ids="-".join)
def test_a_batch_without_labels_has_zero_loss_and_zero_gradient(name: tuple[str, str]) -> None:
    task, output, target = example(name)
    output.requires_grad_()
    loss = task_loss(task, output, unlabelled(target))
    loss.backward()
    assert loss.item() == 0.0
    assert output.grad is not None
    assert not output.grad.any()
    assert int(label_count(task, unlabelled(target))) == 0
    assert prior_loss(task, unlabelled(target)) > 0


@pytest.mark.parametrize("name", NAMES, ids="-".join)
@pytest.mark.parametrize("robust", [False, True])
def test_the_loss_is_finite_with_a_gradient_and_the_same_without_a_mask(name: tuple[str, str], robust: bool) -> None:
    task, output, target = example(name)
    output.requires_grad_()
    loss = task_loss(task, output, target, robust=robust)
    loss.backward()
    assert output.grad is not None
    assert bool(loss.isfinite())
    assert bool(output.grad.isfinite().all())
    assert bool(output.grad.any())
    if bool((target >= 0).all()):
        torch.testing.assert_close(task_loss(task, output, target, robust=robust, complete=True), loss)


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.integers(0, 10_000))
def test_unlabelled_rows_and_the_order_of_rows_change_nothing(name: tuple[str, str], seed: int) -> None:
    task, output, target = example(name, seed)
    order = torch.randperm(2 * ROWS, generator=torch.Generator().manual_seed(seed))
    outputs, targets = torch.cat([output, output.flip(0)])[order], torch.cat([target, unlabelled(target)])[order]
    torch.testing.assert_close(task_loss(task, outputs, targets), task_loss(task, output, target))
    assert int(label_count(task, targets)) == int(label_count(task, target))
    assert prior_loss(task, targets) == pytest.approx(prior_loss(task, target), rel=1e-5)
    found = score_task(task, targets.numpy(), decode_output(task, outputs).numpy())
    expected = score_task(task, target.numpy(), decode_output(task, output).numpy())
    assert found == pytest.approx(expected, rel=1e-5, nan_ok=True)


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.integers(0, 10_000))
def test_the_loss_is_the_mean_over_entries_unless_it_compares_rows(name: tuple[str, str], seed: int) -> None:
    task, output, target = example(name, seed)
    if task_kind(task).compares_rows:
        return
    parts = [(task_loss(task, output[[row]], target[[row]]), label_count(task, target[[row]])) for row in range(ROWS)]
    total = torch.stack([loss * count for loss, count in parts]).sum()
    torch.testing.assert_close(task_loss(task, output, target) * label_count(task, target), total, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES, ids="-".join)
def test_answers_have_their_shape_and_are_json(name: tuple[str, str]) -> None:
    task, output, target = example(name)
    kind = task_kind(task)
    answer = decode_output(task, output).numpy()
    assert answer.shape == kind.answer_shape(task, tuple(target.shape))
    assert len(decode_output(task, output[:0])) == 0
    answers = kind.answers(task, answer, probabilities=True)
    assert len(json.loads(json.dumps(answers, allow_nan=False))) == ROWS
    allowed = {"value", "probability", "probabilities", "values", "map", "maps", "classes", *kind.answer_fields}
    assert {key for one in answers for key in one} <= allowed
    broken = answer.copy()
    broken[0] = np.nan
    json.dumps(kind.answers(task, broken, probabilities=True), allow_nan=False)
    if not task.positions:
        columns = kind.table(task, answer, probabilities=True)
        assert all(len(column) == ROWS for column in columns.values())
        assert kind.describe(task, answer[0], is_prediction=True) or name == ("embedding", "")
    assert kind.describe(task, unlabelled(target)[0].numpy(), is_prediction=False) == ""
    assert kind.is_right(task, unlabelled(target)[0].numpy(), answer[0]) is None


@pytest.mark.parametrize("name", NAMES, ids="-".join)
def test_metrics_are_in_range_and_undefined_without_labels(name: tuple[str, str]) -> None:
    task, output, target = example(name)
    answer = decode_output(task, output).numpy()
    assert default_metric(task) == task_kind(task).metrics[0].name
    for metric, value in score_task(task, target.numpy(), answer).items():
        assert METRICS[metric].low <= value <= METRICS[metric].high, metric
    assert all(np.isnan(value) for value in score_task(task, unlabelled(target).numpy(), answer).values())
    diverged = np.full_like(answer, np.nan)
    assert np.isnan(prepare_metric(task, target.numpy(), diverged)(np.ones((1, ROWS)))).all()


@pytest.mark.parametrize("name", NAMES, ids="-".join)
def test_divergence_is_zero_for_equal_outputs_only(name: tuple[str, str]) -> None:
    task, output, _ = example(name)
    output = output.double()
    assert output_divergence(task, output, output).item() == pytest.approx(0.0, abs=1e-9)
    assert output_divergence(task, output, -output).item() > 0


@pytest.mark.parametrize("name", NAMES, ids="-".join)
def test_what_is_fitted_once_stays_and_survives_json(name: tuple[str, str]) -> None:
    task, _, target = example(name)
    kind = cast(TaskKind, find_kind(*name))
    fitted = kind.fit_spec(task, target.numpy())
    assert kind.fit_spec(fitted, target[:3].numpy()) == fitted
    assert TaskSpec.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted
    for column in [*kind.label_columns(task, target.numpy()), *kind.strata(task, target.numpy())]:
        assert column.values.shape == (ROWS,)
