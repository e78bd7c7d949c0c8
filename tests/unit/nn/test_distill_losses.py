from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.nn.distill_losses import angle_loss, attention_loss, attention_map, distance_loss, softened_divergence

CLASSES = TaskSpec(name="level", kind="multiclass", size=3)
VALUES = TaskSpec(name="amount", kind="regression", size=2, center=(0.0, 0.0), scale=(1.0, 1.0))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_softened_divergence_is_the_formula(temperature: float) -> None:
    teacher, student = torch.randn(7, 3), torch.randn(7, 3)
    one, two = (F.log_softmax(part / temperature, dim=1) for part in (teacher, student))
    expected = temperature**2 * (one.exp() * (one - two)).sum(dim=1).mean()
    torch.testing.assert_close(softened_divergence(CLASSES, teacher, student, temperature), expected)


def test_the_gradient_keeps_its_size_whatever_the_temperature() -> None:
    teacher = torch.randn(64, 3)
    sizes = []
    for temperature in (20.0, 200.0):
        student = torch.zeros(64, 3, requires_grad=True)
        softened_divergence(CLASSES, teacher, student, temperature).backward()
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


@given(st.floats(0.1, 20.0))
def test_a_temperature_does_not_change_values_or_directions(temperature: float) -> None:
    teacher, student = torch.arange(6.0).view(3, 2), torch.ones(3, 2)
    expected = 0.5 * (teacher - student).square().mean()
    torch.testing.assert_close(softened_divergence(VALUES, teacher, student, temperature), expected, rtol=1e-4, atol=1e-5)
    directions = TaskSpec(name="who", kind="embedding", size=2)
    torch.testing.assert_close(
        softened_divergence(directions, teacher + 1, student, temperature), softened_divergence(directions, teacher + 1, student)
    )


def test_attention_maps_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 2.0], [0.0, 0.0]], [[3.0, 0.0], [0.0, 0.0]]]])  # one row, two channels
    assert attention_map(maps).tolist() == [[[5.0, 2.0], [0.0, 0.0]]]
    tokens = torch.arange(10.0).view(1, 5, 2)  # a class token and four places
    squares = (tokens[0] ** 2).mean(dim=1)
    assert attention_map(tokens).tolist() == [[squares[1:3].tolist(), squares[3:].tolist()]]
    assert attention_map(tokens[:, :3]).shape == (1, 1, 3)
    with pytest.raises(ConfigError, match="Tap a module before the pooling"):
        attention_map(torch.zeros(2, 8))


def test_attention_loss_scales_both_maps_and_takes_them_to_one_size() -> None:
    student, teacher = torch.rand(3, 4, 4), torch.rand(3, 8, 8)
    pooled = F.avg_pool2d(teacher, 2)
    one = student.flatten(1) / student.flatten(1).norm(dim=1, keepdim=True)
    two = pooled.flatten(1) / pooled.flatten(1).norm(dim=1, keepdim=True)
    torch.testing.assert_close(attention_loss(student, teacher), ((one - two) ** 2).mean())
    torch.testing.assert_close(attention_loss(student, teacher, reduction="norm"), (one - two).norm(dim=1).mean())
    torch.testing.assert_close(attention_loss(student, 7 * teacher), attention_loss(student, teacher))


def test_relations_against_loops() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 7)

    def distances(rows: torch.Tensor) -> list[float]:
        found = [math.dist(one.tolist(), two.tolist()) for one in rows for two in rows]
        mean = sum(found) / (len(rows) * (len(rows) - 1))
        return [value / mean for value in found]

    def angles(rows: torch.Tensor) -> list[float]:
        found = []
        for middle in rows:
            for one in rows:
                for two in rows:
                    left, right = one - middle, two - middle
                    norm = float(left.norm() * right.norm())
                    found.append(float(left @ right) / norm if norm > 0 else 0.0)
        return found

    def huber(one: list[float], two: list[float]) -> float:
        apart = [abs(a - b) for a, b in zip(one, two, strict=True)]
        return sum(0.5 * value**2 if value < 1 else value - 0.5 for value in apart) / len(apart)

    assert float(distance_loss(student, teacher)) == pytest.approx(huber(distances(student), distances(teacher)), rel=1e-4)
    assert float(angle_loss(student, teacher)) == pytest.approx(huber(angles(student), angles(teacher)), rel=1e-4)


@given(st.floats(0.1, 10.0))
def test_relations_do_not_see_size_place_and_turns(scale: float) -> None:
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))
    moved = scale * features @ turn + 3.0
    assert float(distance_loss(moved, features)) < 1e-5
    assert float(angle_loss(moved, features)) < 1e-5


def test_equal_rows_have_a_finite_gradient() -> None:
    features = torch.ones(4, 3, requires_grad=True)
    (distance_loss(features, torch.randn(4, 3)) + angle_loss(features, torch.randn(4, 3))).backward()
    assert features.grad is not None
    assert bool(features.grad.isfinite().all())
    assert float(distance_loss(torch.ones(1, 3), torch.ones(1, 2))) == 0.0
