from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.records import TaskSpec
from graftwork.tasks.decode import decode_output
from graftwork.tasks.losses import task_loss


def test_binary_is_one_probability_a_row() -> None:
    spec = TaskSpec(name="sick", kind="binary", size=1)
    torch.testing.assert_close(decode_output(spec, torch.tensor([[0.0], [100.0]])), torch.tensor([0.5, 1.0]))


def test_binary_is_one_probability_a_pixel() -> None:
    spec = TaskSpec(name="edges", kind="dense_binary", size=1)
    found = decode_output(spec, torch.tensor([0.0, 100.0]).view(1, 1, 1, 2))
    torch.testing.assert_close(found, torch.tensor([0.5, 1.0]).view(1, 1, 1, 2))


def test_regression_is_in_the_users_units() -> None:
    spec = TaskSpec(name="colour", kind="regression", size=2, center=(100.0, 10.0), scale=(2.0, 5.0))
    torch.testing.assert_close(decode_output(spec, torch.tensor([[1.0, -2.0]])), torch.tensor([[102.0, 0.0]]))
    plain = TaskSpec(name="raw", kind="regression", size=1)
    torch.testing.assert_close(decode_output(plain, torch.tensor([[3.0]])), torch.tensor([[3.0]]))


def test_decoding_undoes_the_losses_units() -> None:
    spec = TaskSpec(name="price", kind="regression", size=1, center=(7.0,), scale=(3.0,))
    output = torch.randn(6, 1)
    assert task_loss(spec, output, decode_output(spec, output)).item() == pytest.approx(0.0, abs=1e-10)


def test_crossing_thresholds_by_hand() -> None:
    spec = TaskSpec(name="stars", kind="ordinal", size=3)
    above = torch.tensor([[0.4, 0.7]])  # P(> 1) above P(> 0) cannot be: both count as 0.4
    torch.testing.assert_close(decode_output(spec, torch.logit(above)), torch.tensor([[0.6, 0.0, 0.4]]))


@given(st.integers(2, 9), st.integers(0, 10_000))
def test_ordinal_probabilities_are_probabilities(size: int, seed: int) -> None:
    spec = TaskSpec(name="stars", kind="ordinal", size=size)
    logits = 4.0 * torch.randn(7, size - 1, generator=torch.Generator().manual_seed(seed))
    found = decode_output(spec, logits)
    assert found.shape == (7, size)
    assert float(found.min()) >= -1e-7
    torch.testing.assert_close(found.sum(dim=1), torch.ones(7))
    reference = torch.cummin(torch.sigmoid(logits), dim=1).values
    torch.testing.assert_close(1.0 - found.cumsum(dim=1)[:, :-1], reference, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("kind", "size"), [("multiclass", 4), ("dense_multiclass", 4)])
def test_class_probabilities_sum_to_one(kind: str, size: int) -> None:
    spec = TaskSpec(name="class", kind=kind, size=size)
    output = torch.randn(3, size, *([2, 2] if spec.is_dense else []))
    torch.testing.assert_close(decode_output(spec, output).sum(dim=1), torch.ones(3, *output.shape[2:]))


def test_normals_have_unit_length() -> None:
    spec = TaskSpec(name="normals", kind="dense_normals", size=3)
    found = decode_output(spec, torch.randn(2, 3, 4, 4))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2, 4, 4))


def test_labels_are_independent_probabilities() -> None:
    spec = TaskSpec(name="tags", kind="multilabel", size=2)
    torch.testing.assert_close(decode_output(spec, torch.zeros(1, 2)), torch.full((1, 2), 0.5))
