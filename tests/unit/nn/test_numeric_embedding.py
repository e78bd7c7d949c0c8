from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.domains.tabular.smooth_clip import smooth_clip as smooth_clip_of_arrays
from graftwork.nn.numeric_embedding import NumericEmbedding, smooth_clip


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20), st.floats(0.5, 8.0))
def test_clipped_numbers_stay_within_the_bound_and_in_their_order(values: list[float], bound: float) -> None:
    numbers = torch.tensor(sorted(values), dtype=torch.float64)
    clipped = smooth_clip(numbers, bound)
    assert bool((clipped.abs() <= bound).all())
    assert bool((clipped.diff() >= 0).all())
    torch.testing.assert_close(smooth_clip(-numbers, bound), -clipped)


def test_tensors_are_clipped_as_arrays_are() -> None:
    numbers = np.array([0.0, 0.01, -1.0, 4.0, -10.0, 1e4])
    np.testing.assert_allclose(smooth_clip(torch.from_numpy(numbers)).numpy(), smooth_clip_of_arrays(numbers), rtol=1e-9)


def test_the_largest_single_precision_number_is_clipped_to_the_bound() -> None:
    largest = torch.finfo(torch.float32).max
    torch.testing.assert_close(smooth_clip(torch.tensor([largest, -largest])), torch.tensor([3.0, -3.0]))


def test_an_embedding_is_what_its_formula_says() -> None:
    torch.manual_seed(0)
    embedding = NumericEmbedding(3, hinges=2, mixed=3, frequencies=5)
    with torch.no_grad():
        embedding.bias.normal_()
    values = torch.randn(7, 3)
    found = embedding(values)
    assert embedding.width == 6
    assert found.shape == (7, 3, 6)
    learned = {name: parameter.tolist() for name, parameter in embedding.named_parameters()}
    for row in range(7):
        for column in range(3):
            value = float(values[row, column])
            waves = [math.cos(value * learned["frequency"][column][k] + learned["phase"][column][k]) for k in range(5)]
            mixed = [
                learned["bias"][column][entry] + sum(waves[k] * learned["weight"][column][k][entry] for k in range(5))
                for entry in range(3)
            ]
            hinges = [value * learned["slope"][column][k] + learned["bend"][column][k] for k in range(2)]
            expected = [*(max(0.0, number) for number in [*mixed, *hinges]), value]
            assert found[row, column].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("without", [{"frequencies": 0}, {"mixed": 0}])
def test_without_cosines_the_hinges_and_the_value_stay(without: dict[str, int]) -> None:
    embedding = NumericEmbedding(2, hinges=4, **without)  # type: ignore[arg-type]
    assert embedding.width == 5
    assert embedding(torch.randn(3, 2)).shape == (3, 2, 5)
    assert [name for name, _ in embedding.named_parameters()] == ["slope", "bend"]


def test_frequencies_and_phases_start_as_documented() -> None:
    torch.manual_seed(0)
    embedding = NumericEmbedding(50, frequencies=40, spread=0.25)
    assert float(embedding.frequency.detach().std()) == pytest.approx(2 * math.pi * 0.25, rel=0.05)
    assert 3.0 < float(embedding.phase.detach().abs().max()) <= math.pi


def test_a_threshold_is_learned_in_fewer_steps_than_from_the_number_alone() -> None:
    """What the embedding is for: the step at 0.5 of one column, by linear layers on top."""
    torch.manual_seed(0)
    values = torch.randn(400, 2)
    target = (values[:, 0] > 0.5).float()

    def loss_after_training(front: nn.Module, width: int) -> float:
        model = nn.Sequential(front, nn.Flatten(), nn.Linear(width, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
        for _ in range(60):
            optimizer.zero_grad()
            loss = (model(values)[:, 0] - target).square().mean()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    assert loss_after_training(NumericEmbedding(2), 2 * 10) < 0.5 * loss_after_training(nn.Identity(), 2)


@pytest.mark.parametrize(
    "wrong", [{"num_columns": 0}, {"hinges": 0}, {"mixed": -1}, {"frequencies": -1}, {"spread": 0.0}, {"spread": math.nan}]
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    settings: dict[str, float] = {"num_columns": 2, **wrong}
    name, value = next(iter(wrong.items()))
    with pytest.raises(ConfigError, match=rf"at least one column and one hinge, .*{name}={value}"):
        NumericEmbedding(int(settings.pop("num_columns")), **settings)  # type: ignore[arg-type]
