"""Linear models on frozen features; what every learner must do is in the contract tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.plan import Plan
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.interfaces.learner import LearnerContext
from graftwork.tasks.losses import task_loss
from graftwork.training.linear_probe import LinearProbeLearner, fit_head
from graftwork.workflows.portfolio import load_catalogue


def suite_of(rows: int = 300, *, val: int = 60) -> Suite:
    draw = np.random.default_rng(0)
    numeric = draw.normal(size=(rows, 5)).astype(np.float32)
    score = numeric @ draw.normal(size=(5, 2))
    return Suite.of_arrays(
        name="probe",
        input_specs=table_input(5),
        tasks=[
            TaskSpec(name="size", kind="regression", size=1),
            TaskSpec(name="level", kind="ordinal", size=3, classes=("low", "middle", "high")),
        ],
        inputs={"numeric": numeric},
        targets={
            "size": (100 + 20 * score[:, :1]).astype(np.float32),
            "level": np.digitize(score[:, 1], [-1.0, 1.0]).astype(np.int64),
        },
        splits={
            "train": np.arange(rows - val - 60),
            "val": np.arange(rows - val - 60, rows - 60),
            "test": np.arange(rows - 60, rows),
        },
    )


def probe_plan() -> Plan:
    return replace(load_catalogue()["embeddings-linear"].plan, source="scratch")  # an untrained trunk will do


def learner_of_suite(suite: Suite, folder: Path, plan: Plan | None = None) -> LinearProbeLearner:
    return LinearProbeLearner(LearnerContext(suite=suite, plan=plan or probe_plan(), seed=0, max_steps=1, cache=folder))


def test_a_head_is_the_ridge_solution() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(80, 6, generator=draw)
    x = x - x.mean(dim=0)
    y = x @ torch.randn(6, 1, generator=draw) + 0.1 * torch.randn(80, 1, generator=draw)
    task = TaskSpec(name="size", kind="regression", size=1, center=(0.0,), scale=(1.0,))
    start = torch.zeros(1, 6), torch.zeros(1)
    weight, bias = fit_head(task, x, y, 0.5, start, steps=200)
    weight.requires_grad_()
    (gradient,) = torch.autograd.grad(task_loss(task, x @ weight.T + bias, y), weight)
    torch.testing.assert_close(gradient, -0.5 * weight.detach(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("val", [60, 0])
def test_tasks_of_any_kind_are_fitted_in_one_step(val: int, tmp_path: Path) -> None:
    suite = suite_of(val=val)
    learner = learner_of_suite(suite, tmp_path)
    learner.train(1)
    assert learner.step == 1
    rows = suite.splits["test"]
    found = learner.predict(rows)
    size = suite.targets["size"][rows]
    assert np.sqrt(np.mean((found["size"] - size) ** 2)) < 0.3 * size.std()
    assert (found["level"].argmax(axis=1) == suite.targets["level"][rows]).mean() > 0.85
    assert learner.ledger().samples == len(suite.splits["train"])


def test_plans_that_train_more_than_linear_heads_are_refused(tmp_path: Path) -> None:
    plan = probe_plan()
    with pytest.raises(ConfigError, match="head_hidden = 0"):
        learner_of_suite(suite_of(), tmp_path, plan.with_train(sharing=Component(plan.train.sharing.path)))
    with pytest.raises(ConfigError, match="keeps the backbone fixed"):
        learner_of_suite(suite_of(), tmp_path, plan.with_train(tuning=None))


def test_a_model_of_all_rows_chooses_its_penalty_by_rows_that_it_has_not_seen(tmp_path: Path) -> None:
    """Judged by rows that it was fitted on, the weakest penalty is the best, and the model that is handed over is too sure."""
    suite = suite_of()
    noise = np.random.default_rng(1).integers(0, 3, len(suite))
    suite = replace(suite, targets={**suite.targets, "level": noise.astype(np.int64)})
    apart = replace(suite, splits={**suite.splits, "train": np.setdiff1d(np.arange(len(suite)), suite.splits["val"])})
    every = replace(suite, splits={**suite.splits, "train": np.arange(len(suite))})
    answers = []
    for number, one in enumerate((apart, every)):
        learner = learner_of_suite(one, tmp_path / str(number))
        learner.train(1)
        answers.append(learner.predict(np.arange(len(suite)))["level"])
    spread = [float(np.std(one, axis=0).mean()) for one in answers]
    assert spread[1] < 1.5 * spread[0] + 0.01, "both know that nothing can be learned"
