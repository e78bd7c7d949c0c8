from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.losses import prior_loss, standardise, task_loss

KINDS = (
    *("binary", "multiclass", "multilabel", "ordinal", "regression"),
    *("dense_binary", "dense_multiclass", "dense_regression", "dense_normals", "dense_offsets"),
)


def spec_of(kind: str) -> TaskSpec:
    size = {"binary": 1, "dense_binary": 1, "dense_normals": 3, "dense_offsets": 2}.get(kind, 4)
    values = ("regression", "dense_regression", "dense_offsets")
    scaled = {"center": (1.0,) * size, "scale": (2.0,) * size} if kind in values else {}
    return TaskSpec(name=kind, kind=kind, size=size, **scaled)


def example(kind: str, rows: int = 5, seed: int = 0) -> tuple[TaskSpec, Tensor, Tensor]:
    """Outputs and fully labelled targets."""
    generator = torch.Generator().manual_seed(seed)
    spec = spec_of(kind)
    pixels = (3, 2) if spec.is_dense else ()
    output = torch.randn(rows, spec.num_outputs, *pixels, generator=generator)
    if kind in ("binary", "multiclass", "ordinal", "dense_binary", "dense_multiclass"):
        target = torch.randint(0, max(spec.size, 2), (rows, *pixels), generator=generator)
    elif kind == "multilabel":
        target = torch.randint(0, 2, (rows, spec.size), generator=generator).float()
    else:
        target = torch.randn(rows, spec.size, *pixels, generator=generator)
    return spec, output, target


def unlabelled(target: Tensor) -> Tensor:
    return torch.full_like(target, float("nan") if target.is_floating_point() else -1)


def test_values_by_hand() -> None:
    half = math.log(2.0)
    assert task_loss(spec_of("binary"), torch.zeros(2, 1), torch.tensor([0, 1])).item() == pytest.approx(half)
    assert task_loss(spec_of("multiclass"), torch.zeros(2, 4), torch.tensor([0, 3])).item() == pytest.approx(math.log(4.0))
    # Class 1 of 4 is above threshold 0 only: wanted signs + - -.
    logits = torch.tensor([[1.0, 2.0, -3.0]])
    wanted = (math.log1p(math.exp(-1.0)) + math.log1p(math.exp(2.0)) + math.log1p(math.exp(-3.0))) / 3
    assert task_loss(spec_of("ordinal"), logits, torch.tensor([1])).item() == pytest.approx(wanted, rel=1e-6)
    # (5 - 1) / 2 = 2 standard deviations, output 0: squared error 4, smooth L1 2 - 0.5.
    spec = TaskSpec(name="price", kind="regression", size=1, center=(1.0,), scale=(2.0,))
    assert task_loss(spec, torch.zeros(1, 1), torch.tensor([[5.0]])).item() == pytest.approx(4.0)
    assert task_loss(spec, torch.zeros(1, 1), torch.tensor([[5.0]]), robust=True).item() == pytest.approx(1.5)
    opposite = torch.tensor([0.0, 0.0, 2.0]).view(1, 3, 1, 1)
    assert task_loss(spec_of("dense_normals"), -opposite, opposite).item() == pytest.approx(2.0)


def test_both_classes_of_a_picture_weigh_the_same() -> None:
    target = torch.tensor([[[1, 0, 0, 0, -1]], [[0, 0, 0, 0, 0]], [[-1, -1, -1, -1, -1]]])
    output = torch.tensor([[[2.0, -1.0, -1.0, 5.0, 9.0]], [[0.0, 0.0, 0.0, 0.0, 0.0]], [[7.0, 7.0, 7.0, 7.0, 7.0]]]).unsqueeze(1)
    below, above = math.log1p(math.exp(-1.0)), math.log1p(math.exp(5.0))
    first = 0.5 * math.log1p(math.exp(-2.0)) + 0.5 * (below + below + above) / 3
    second = 0.5 * math.log(2.0)  # no pixel of class 1: that half is empty
    assert task_loss(spec_of("dense_binary"), output, target).item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_multilabel_and_multiclass_agree_with_torch() -> None:
    spec, output, target = example("multilabel")
    torch.testing.assert_close(task_loss(spec, output, target), F.binary_cross_entropy_with_logits(output, target))
    spec, output, target = example("dense_multiclass")
    torch.testing.assert_close(task_loss(spec, output, target), F.cross_entropy(output, target))


def test_label_smoothing_spreads_a_share_of_the_target_over_all_classes() -> None:
    output, target = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, -1, 2, 1])
    spec = replace(spec_of("multiclass"), details={"label_smoothing": 0.2})
    log, known = output.log_softmax(dim=1), target >= 0
    each = -(0.8 * log.gather(1, target.clamp(min=0)[:, None])[:, 0] + 0.2 * log.mean(dim=1))
    torch.testing.assert_close(task_loss(spec, output, target), each[known].mean())
    torch.testing.assert_close(task_loss(spec, output[known], target[known]), each[known].mean())
    complete = task_kind(spec).complete_loss(spec, output[known], target[known])
    torch.testing.assert_close(complete, each[known].mean())
    for wrong in (1.0, -0.1, "much", True):
        with pytest.raises(ConfigError, match=r"label_smoothing'\] must be a number in \[0, 1\)"):
            replace(spec, details={"label_smoothing": wrong})


@pytest.mark.parametrize("kind", KINDS)
def test_missing_rows_change_nothing(kind: str) -> None:
    spec, output, target = example(kind)
    padded = torch.cat([target, unlabelled(target)])
    torch.testing.assert_close(task_loss(spec, torch.cat([output, output * 7.0]), padded), task_loss(spec, output, target))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_labels_has_zero_loss_and_zero_gradient(kind: str) -> None:
    spec, output, target = example(kind)
    output.requires_grad_(True)
    loss = task_loss(spec, output, unlabelled(target))
    loss.backward()
    assert loss.item() == 0.0
    assert output.grad is not None
    assert not output.grad.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("robust", [False, True])
def test_the_short_cut_without_mask_is_the_same_loss(kind: str, robust: bool) -> None:
    spec, output, target = example(kind)
    torch.testing.assert_close(
        task_loss(spec, output, target, robust=robust, complete=True), task_loss(spec, output, target, robust=robust)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_half_missing_entries_leave_finite_gradients(kind: str) -> None:
    spec, output, target = example(kind)
    target = target.clone()
    target.view(-1)[::2] = unlabelled(target).view(-1)[0]
    output.requires_grad_(True)
    task_loss(spec, output, target).backward()
    assert output.grad is not None
    assert bool(torch.isfinite(output.grad).all())
    assert bool(output.grad.any())


@given(st.sampled_from(KINDS), st.integers(0, 10_000))
def test_the_loss_is_the_mean_of_row_losses(kind: str, seed: int) -> None:
    spec, output, target = example(kind, seed=seed)
    rows = [task_loss(spec, output[[row]], target[[row]]) for row in range(len(output))]
    torch.testing.assert_close(task_loss(spec, output, target), torch.stack(rows).mean(), rtol=1e-4, atol=1e-6)


@given(st.sampled_from(KINDS), st.integers(0, 1000))
def test_the_prior_is_a_constant_that_no_constant_beats(kind: str, seed: int) -> None:
    if kind in ("dense_regression", "dense_normals", "dense_offsets"):
        return  # their prior is a scale, not the exact optimum
    spec, output, target = example(kind, rows=9, seed=seed)
    constant = output[:1].expand_as(output)
    if spec.is_dense:
        constant = constant[:, :, :1, :1].expand_as(output)
    assert prior_loss(spec, target) <= task_loss(spec, constant, target).item() + 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_prior_of_no_labels_is_a_number(kind: str) -> None:
    spec, _, target = example(kind)
    assert np.isfinite(prior_loss(spec, unlabelled(target)))
    assert prior_loss(spec, unlabelled(target)) > 0


def test_standardise_undoes_units_of_every_value() -> None:
    spec = TaskSpec(name="colour", kind="regression", size=2, center=(1.0, 10.0), scale=(2.0, 5.0))
    torch.testing.assert_close(standardise(spec, torch.tensor([[3.0, 0.0]])), torch.tensor([[1.0, -2.0]]))
    maps = torch.full((1, 2, 2, 2), 10.0)
    torch.testing.assert_close(standardise(spec, maps)[0, :, 0, 0], torch.tensor([4.5, 0.0]))
    assert bool(torch.isnan(standardise(spec, torch.tensor([[float("nan"), 0.0]]))[0, 0]))
