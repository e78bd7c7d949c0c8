"""Cosines by stage over a training: known directions, aggregation, and a training that is not disturbed."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.records import Plan, TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.interfaces.learner import LearnerContext
from graftwork.interfaces.shared_model import SharedModel
from graftwork.training.gradient_watch import GradientWatch, stage_names, summarise_gradients
from graftwork.training.learner import NeuralLearner


def test_stages_by_hand() -> None:
    layers = ["backbone.stem", "backbone.body.0.conv1", "backbone.body.0.conv2", "backbone.body.1.conv1", "experts"]
    assert stage_names(layers, 12) == layers
    assert stage_names(layers, 4) == ["backbone.stem", "backbone.body.0", "backbone.body.0", "backbone.body.1", "experts"]
    assert stage_names(layers, 2) == ["backbone"] * 4 + ["experts"]
    assert stage_names(list("abcde"), 2) == ["a to c"] * 3 + ["d to e"] * 2
    with pytest.raises(ValueError, match="`most` must be at least 1"):
        stage_names(["a"], 0)


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join), min_size=1, max_size=30, unique=True),
    st.integers(1, 9),
)
def test_stages_are_few_and_never_split_a_layer(layers: list[str], most: int) -> None:
    found = stage_names(layers, most)
    assert len(found) == len(layers)
    assert len(set(found)) <= most


def products(*vectors: list[float]) -> torch.Tensor:
    table = torch.tensor(vectors, dtype=torch.float64)
    return table @ table.T


def watched(*samples: dict[str, torch.Tensor]) -> GradientWatch:
    watch = GradientWatch((), every=5)
    watch.steps = [5 * (index + 1) for index in range(len(samples))]
    watch.samples = list(samples)
    return watch


def test_a_stage_counts_as_one_vector() -> None:
    """Gradients (1, 0 | 3) and (-1, 0 | 3): opposed in the first layer, equal in the second, cosine 8 / 10 together."""
    sample = {"trunk.a": products([1, 0], [-1, 0]), "trunk.b": products([3], [3])}
    found = summarise_gradients(watched(sample, sample), ["x", "y"], most_stages=1)
    assert found is not None
    assert found["stages"] == ["trunk"]
    assert found["value"] == [[pytest.approx(0.8)]]
    assert found["conflict_share"] == [0.0]
    assert [row["conflict_share"] for row in found["layers"]] == [1.0, 0.0]
    fine = summarise_gradients(watched(sample, sample), ["x", "y"])
    assert fine is not None
    assert fine["value"] == [[-1.0], [1.0]]
    assert fine["all_over_time"] == [[pytest.approx(0.8)]] * 2


def test_shares_intervals_and_periods() -> None:
    angles = [0.2, 1.0, 2.0, 2.5]
    samples = [{"layer": products([1, 0], [np.cos(angle), np.sin(angle)])} for angle in angles]
    found = summarise_gradients(watched(*samples), ["x", "y"])
    assert found is not None
    cosines = np.cos(angles)
    assert found["conflict"] == [[0.5]]
    assert found["value"][0][0] == pytest.approx(cosines.mean())
    margin = 3.18245 * cosines.std(ddof=1) / 2
    assert found["high"][0][0] - found["value"][0][0] == pytest.approx(margin, rel=1e-4)
    assert found["periods"] == [[5, 5], [10, 10], [15, 15], [20, 20]]
    assert found["over_time"][0] == [pytest.approx(value) for value in cosines]
    json.dumps(found, allow_nan=False)


def test_a_task_without_gradient_is_unknown() -> None:
    found = summarise_gradients(watched({"layer": products([1.0], [0.0])}), ["x", "y"])
    assert found is not None
    assert found["value"] == [[None]]
    assert found["conflict"] == [[None]]
    assert summarise_gradients(GradientWatch(()), ["x", "y"]) is None
    assert summarise_gradients(watched({"layer": products([1.0])}), ["x"]) is None


def learner(tmp_path: Any) -> NeuralLearner:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(80, 4)).astype(np.float32)
    suite = Suite.of_arrays(
        name="opposed",
        input_specs=table_input(4),
        tasks=[TaskSpec(name="up", kind="regression", size=1), TaskSpec(name="down", kind="regression", size=1)],
        inputs={"numeric": x, "categorical": np.zeros((80, 0), dtype=np.int64)},
        targets={"up": x[:, :1].copy(), "down": -x[:, :1]},
        splits={"train": np.arange(50), "val": np.arange(50, 65), "test": np.arange(65, 80)},
    )
    plan = Plan(name="shared", title="", role="joint", modalities=("table",))
    return NeuralLearner(LearnerContext(suite=suite, plan=plan, seed=Seeds(3).integer("x"), max_steps=12, cache=tmp_path))


def test_a_training_is_not_disturbed_and_is_sampled_every_n_steps(tmp_path: Any) -> None:
    plain, watched_one = learner(tmp_path), learner(tmp_path)
    watch = GradientWatch(plain.suite.tasks, every=4)
    watched_one.trainer.callbacks = (watch,)
    plain.train(12)
    watched_one.train(12)
    assert watch.steps == [4, 8, 12]
    for mine, theirs in zip(plain.model.parameters(), watched_one.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    found = summarise_gradients(watch, ["up", "down"])
    assert found is not None
    assert found["layers"]
    assert all(-1 <= value <= 1 for row in found["value"] for value in row)


def test_the_state_goes_through_a_checkpoint() -> None:
    watch = watched({"a": products([1.0], [2.0])}, {"a": products([1.0], [-2.0])})
    other = GradientWatch((), every=5)
    other.load_state_dict(watch.state_dict())
    assert summarise_gradients(other, ["x", "y"]) == summarise_gradients(watch, ["x", "y"])
    empty = GradientWatch(())
    empty.load_state_dict(GradientWatch(()).state_dict())
    assert empty.samples == []
    with pytest.raises(ValueError, match="`every` must be at least 1; got 0"):
        GradientWatch((), 0)


class Nothing(SharedModel):
    """A model without any parameter."""

    task_names = ()

    def encode(self, inputs: Any, tasks: Any = None) -> Any:
        return ()

    def decode(self, representation: Any, tasks: Any = None) -> dict[str, torch.Tensor]:
        return {}

    def task_parameters(self, task: str) -> Any:
        return iter(())


def test_a_model_that_shares_nothing_gives_no_samples() -> None:
    watch = GradientWatch((), every=1)
    watch.on_step(SimpleNamespace(step=1, model=Nothing()), None, torch.zeros(0))
    assert watch.samples == []


def test_a_model_without_tasks_is_refused() -> None:
    loop = SimpleNamespace(step=1, model=torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="compares the gradients of a SharedModel's tasks; this loop trains a Linear"):
        GradientWatch((), every=5).on_step(loop, None, torch.zeros(0))
