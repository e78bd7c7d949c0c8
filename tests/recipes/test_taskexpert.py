from __future__ import annotations

import math

import pytest
import torch

from graftwork.core.input_spec import image_input
from graftwork.data.suites.scenes import TASKS
from graftwork.evaluation.probes import count_parameters, flops_per_sample
from graftwork.recipes.sharing.taskexpert import (
    METRICS,
    RECIPE,
    TOLERANCE,
    build_expert,
    build_static,
    gate_statistics,
    matched_width,
)

DENSE = [TASKS[name] for name in METRICS]
SIZES = image_input(32)


def test_static_decoders_match_in_parameters_and_nearly_in_operations() -> None:
    static, expert = build_static(DENSE, SIZES, matched_width(DENSE, SIZES)), build_expert(DENSE, SIZES)
    ours, theirs = count_parameters(expert).total, count_parameters(static).total
    assert abs(ours - theirs) <= TOLERANCE * ours
    inputs = {"image": torch.zeros(1, 32, 32, 3, dtype=torch.uint8)}
    assert flops_per_sample(static, inputs) == pytest.approx(flops_per_sample(expert, inputs), rel=0.1)


@pytest.mark.parametrize("separate", [False, True])
def test_static_decoders_compute_what_is_asked(separate: bool) -> None:
    model = build_static(DENSE, SIZES, 4, separate=separate).eval()
    inputs = {"image": torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)}
    full, some = model(inputs), model(inputs, ["edges", "depth"])
    assert list(some) == ["edges", "depth"]
    for name, output in some.items():
        torch.testing.assert_close(output, full[name])
    owned = {id(parameter) for task in model.task_names for parameter in model.task_parameters(task)}
    assert (len(owned) == len(list(model.parameters()))) == separate


def test_gate_statistics_by_hand() -> None:
    half = torch.tensor([[[0.5, 0.5], [0.5, 0.5]]])  # one layer, two samples
    found = gate_statistics({"a": half, "b": half})
    assert found == pytest.approx({"entropy": 1.0, "sample_variance": 0.0, "task_variance": 0.0, "memory": 0.5})
    sure = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    found = gate_statistics({"a": sure, "b": torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])})
    # per task variances 0.5 and 0 of each weight; means over samples (0.5, 0.5) and (1, 0), variance 0.125 over tasks
    assert found == pytest.approx({"entropy": 0.0, "sample_variance": 0.25, "task_variance": 0.125, "memory": 0.25})
    quarter = torch.tensor([[[0.75, 0.25]] * 2])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert gate_statistics({"a": quarter, "b": quarter})["entropy"] == pytest.approx(expected)


def test_no_arm_is_told_the_style() -> None:
    assert {frozenset(arm.access.parts()) for arm in RECIPE.arms} == {frozenset({"source_labels"})}
    assert RECIPE.arm("taskexpert").settings == {"expert": {}}, "the system runs at its defaults"
