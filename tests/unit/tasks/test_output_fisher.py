"""The information of raw outputs: closed forms, and the Hessian of every kind's divergence."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.tasks.divergence import output_divergence
from graftwork.tasks.output_fisher import LARGEST_EXACT, output_scores

CASES: dict[str, tuple[TaskSpec, tuple[int, ...]]] = {
    "multiclass": (TaskSpec(name="t", kind="multiclass", size=4), (4,)),
    "binary": (TaskSpec(name="t", kind="binary", size=1), (1,)),
    "multilabel": (TaskSpec(name="t", kind="multilabel", size=3), (3,)),
    "ordinal": (TaskSpec(name="t", kind="ordinal", size=4), (3,)),
    "regression": (TaskSpec(name="t", kind="regression", size=2), (2,)),
    "sequence": (TaskSpec(name="t", kind="sequence", size=3, details={"length": 2}), (6,)),
    "pixels": (TaskSpec(name="t", kind="multiclass", size=3, positions="pixels"), (3, 2, 2)),
    "values": (TaskSpec(name="t", kind="regression", size=2, positions="steps"), (2, 3)),
}


def information(scores: Tensor) -> Tensor:
    flat = scores.flatten(2)
    return torch.einsum("sbi,sbj->bij", flat, flat)


def draw(name: str, rows: int, seed: int) -> tuple[TaskSpec, Tensor]:
    task, shape = CASES[name]
    generator = torch.Generator().manual_seed(seed)
    return task, 2.0 * torch.randn(rows, *shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_hessian_of_the_divergence(name: str) -> None:
    task, output = draw(name, 3, 0)
    found = information(output_scores(task, output))
    for row in range(len(output)):
        reference = output[row : row + 1]

        def of_row(flat: Tensor, reference: Tensor = reference) -> Tensor:
            return output_divergence(task, reference, flat.view_as(reference))

        expected = torch.autograd.functional.hessian(of_row, reference.flatten())
        torch.testing.assert_close(found[row], expected)


def test_classes_have_the_covariance_of_their_indicator() -> None:
    task, output = draw("multiclass", 5, 1)
    shares = output.softmax(1)
    expected = torch.diag_embed(shares) - shares[:, :, None] * shares[:, None, :]
    torch.testing.assert_close(information(output_scores(task, output)), expected)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(sorted(CASES)), st.integers(0, 1000))
def test_the_scores_of_an_answer_are_zero_on_average_for_classes_and_never_nan(name: str, seed: int) -> None:
    task, output = draw(name, 2, seed)
    scores = output_scores(task, 20.0 * output)
    assert bool(scores.isfinite().all())
    assert scores.shape[1:] == output.shape


@pytest.mark.parametrize("name", CASES)
def test_drawn_scores_have_the_exact_information_on_average(name: str) -> None:
    task, output = draw(name, 2, 2)
    drawn = output_scores(task, output, num_samples=20_000, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (20_000, *output.shape)
    exact = information(output_scores(task, output))
    torch.testing.assert_close(information(drawn), exact, atol=0.02, rtol=0.05)


def test_equal_generators_draw_equal_scores() -> None:
    task, output = draw("multiclass", 4, 3)
    first, second = (output_scores(task, output, num_samples=3, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)


def test_what_has_no_information_is_refused() -> None:
    with pytest.raises(ConfigError, match="compares rows"):
        output_scores(TaskSpec(name="t", kind="embedding", size=3), torch.zeros(2, 3))
    with pytest.raises(ConfigError, match="at least 0"):
        output_scores(CASES["multiclass"][0], torch.zeros(2, 4), num_samples=-1)
    many = TaskSpec(name="t", kind="multiclass", size=LARGEST_EXACT + 1)
    with pytest.raises(ConfigError, match=r"257 numbers.*`num_samples`"):
        output_scores(many, torch.zeros(1, LARGEST_EXACT + 1))
    assert output_scores(many, torch.zeros(1, LARGEST_EXACT + 1), num_samples=2).shape == (2, 1, LARGEST_EXACT + 1)
    assert math.isclose(float(information(output_scores(CASES["binary"][0], torch.zeros(1, 1)))[0, 0, 0]), 0.25, rel_tol=1e-6)
