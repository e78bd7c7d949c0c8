"""The own trunk of series answers for rows and for steps, sees levels, and nothing of what is unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.data.encoders.joint import encoder_of_inputs
from graftwork.data.encoders.series import SeriesEncoder
from graftwork.data.suite import Suite
from graftwork.interfaces.learner import LearnerContext
from graftwork.nn.backbones.scratch import scratch_backbone
from graftwork.nn.backbones.series import SeriesBackbone
from graftwork.training.learner import NeuralLearner
from graftwork.workflows.portfolio import portfolio

ROWS, STEPS = 120, 20


def make_suite(*, over_steps: bool) -> Suite:
    random = np.random.default_rng(0)
    values = random.normal(size=(ROWS, STEPS, 2)) + random.normal(size=(ROWS, 1, 2))
    values[random.uniform(size=values.shape) < 0.1] = np.nan
    known = np.nan_to_num(values)
    encoder = SeriesEncoder.fit(values[:80])
    mean = TaskSpec(name="mean", kind="regression", size=1)
    above = TaskSpec(name="above", kind="binary", size=1, positions="steps" if over_steps else "")
    return Suite.of_arrays(
        name="steps",
        input_specs={"series": encoder.spec()},
        tasks=[mean, above],
        inputs=encoder.transform(values),
        targets={
            "mean": known.mean(axis=(1, 2))[:, None].astype(np.float32),
            "above": (known[:, :, 0] > 0.3 if over_steps else known.sum(axis=(1, 2)) > 0).astype(np.int64),
        },
        splits={"train": np.arange(80), "val": np.arange(80, 100), "test": np.arange(100, ROWS)},
    )


@pytest.mark.parametrize("over_steps", [False, True])
def test_plans_learn_from_series_and_are_exported(tmp_path: Path, *, over_steps: bool) -> None:
    suite = make_suite(over_steps=over_steps)
    plan = next(plan for plan in portfolio(suite.kinds, 2) if plan.name == "shared-trunk")
    context = LearnerContext(plan=plan, suite=suite, seed=0, max_steps=120, cache=tmp_path / "cache")
    learner = NeuralLearner(context)
    learner.train(120)
    found = learner.predict(suite.splits["test"])
    truth = suite.targets["above"][suite.splits["test"]]
    assert found["above"].reshape(truth.shape).shape == truth.shape
    assert ((found["above"].reshape(truth.shape) > 0.5) == truth).mean() > 0.85
    learner.export(tmp_path / "model")
    assert (tmp_path / "model" / "model.onnx").exists()
    assert encoder_of_inputs(suite.input_specs).kind == "series"


def test_unknown_values_change_nothing() -> None:
    torch.manual_seed(0)
    for tokens in (False, True):
        trunk = SeriesBackbone(12, 2, width=8, tokens=tokens).eval()
        series, mask = torch.randn(3, 12, 2), torch.rand(3, 12, 2) > 0.4
        other = torch.where(mask, series, torch.full_like(series, 1e6))
        torch.testing.assert_close(trunk({"series": other, "series_mask": mask}), trunk({"series": series, "series_mask": mask}))
        nothing = trunk({"series": series, "series_mask": torch.zeros_like(mask)})
        assert bool(nothing.isfinite().all())


def test_tasks_over_steps_read_one_token_a_step() -> None:
    sizes = {"length": 12, "channels": 3}
    inputs = {"series": InputSpec(kind="series", sizes=sizes)}
    assert scratch_backbone(inputs, dense=True).feature_shape.extent == (12,)
    assert scratch_backbone(inputs).feature_shape.layout == "vector"
    assert SeriesBackbone(1, 1, width=8).eval()({"series": torch.ones(2, 1, 1), "series_mask": torch.ones(2, 1, 1)}).shape[0] == 2
    with pytest.raises(ConfigError, match="the size 'channels'"):
        scratch_backbone({"series": InputSpec(kind="series", sizes={"length": 12})})
