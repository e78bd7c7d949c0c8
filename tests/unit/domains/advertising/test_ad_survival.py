"""Two-term survival: likelihoods by hand and against other implementations, joined hazards, weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpec, table_input
from graftwork.core.records import TaskSpec
from graftwork.domains.advertising.ad_survival import TwoTermLikelihood, TwoTermSurvival, split_at
from graftwork.interfaces.binding import Binding, SuiteFacts
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.scratch import scratch_backbone
from graftwork.tasks.decode import decode_output
from graftwork.tasks.kinds.survival import risk_and_events
from graftwork.tasks.losses import task_loss

EDGES = [1.0, 2.0, 4.0, 8.0, 16.0]
LIFE = TaskSpec(name="life", kind="survival", size=5, details={"edges": EDGES})
OTHER = TaskSpec(name="price", kind="regression", size=2, center=(0.0, 1.0), scale=(1.0, 2.0))
NAN = float("nan")
# Event in interval 1, 2, 5; beyond the last edge; censored after two intervals, before the first edge, after all; missing.
ROWS = [(0.5, 1.0), (2.0, 1.0), (9.0, 1.0), (20.0, 1.0), (3.0, 0.0), (0.5, 0.0), (16.0, 0.0), (NAN, NAN)]


def columns(mean: float = 2.0, std: float = 0.5) -> dict[str, InputSpec]:
    """A table of two numbers, the second a click rate."""
    described = [
        {"type": "numeric", "name": "bid", "mean": 0.0, "std": 1.0, "has_missing": False, "knots": []},
        {"type": "numeric", "name": "ctr", "mean": mean, "std": std, "has_missing": False, "knots": []},
    ]
    return table_input(2, encoder={"kind": "table", "version": 2, "columns": described})


def build(*tasks: TaskSpec, inputs: Mapping[str, InputSpec] | None = None, **settings: Any) -> TwoTermSurvival:
    torch.manual_seed(0)
    known = columns() if inputs is None else inputs
    return TwoTermSurvival(tasks or (LIFE,), lambda: scratch_backbone(known), inputs=known, **settings)


def bound(model: TwoTermSurvival, tasks: tuple[TaskSpec, ...] = (LIFE,), **settings: Any) -> TwoTermLikelihood:
    objective = TwoTermLikelihood(**settings)
    facts = SuiteFacts(("all",), (8,), (0,), 8, 1, 10)
    objective.bind(Binding(model, tasks, facts, Batch({}, {}, {}, torch.arange(1), torch.zeros(1)), torch.device("cpu"), 0))
    return objective


def whole_loss(model: TwoTermSurvival, objective: TwoTermLikelihood, logits: Tensor, target: Tensor, numeric: Tensor) -> float:
    """Return the loop's loss and the objective's term together."""
    plain = task_loss(LIFE, logits, target).reshape(1)
    count = len(target)
    batch = Batch({"numeric": numeric}, {"life": target}, {}, torch.arange(count), torch.zeros(count))
    return (plain.sum() + objective.loss(ObjectiveInputs(batch, model, {"life": logits}, plain, None, 0))).item()


def spoken_out(logits: list[float], time: float, event: float) -> list[tuple[int, float]]:
    """Return ``(interval, loss)`` of each interval at risk of one row, in plain words of the likelihood."""
    found = []
    for k, logit in enumerate(logits):
        hazard = 1.0 / (1.0 + math.exp(-logit))
        begin = EDGES[k - 1] if k else -1.0
        if event == 1 and time <= begin:
            break  # it came before
        if event == 0 and time < EDGES[k]:
            break  # nobody saw whether it survived this interval
        came = event == 1 and time <= EDGES[k]
        found.append((k, -math.log(hazard) if came else -math.log(1.0 - hazard)))
    return found


def two_terms(logits: list[list[float]], rows: list[tuple[float, float]], weights: list[float], cuts: list[slice]) -> float:
    total = 0.0
    for cut in cuts:
        inside = range(*cut.indices(len(EDGES)))
        parts = [
            (weight * loss)
            for row, (time, event), weight in zip(logits, rows, weights, strict=True)
            if not math.isnan(time)
            for k, loss in spoken_out(row, time, event)
            if k in inside
        ]
        total += sum(parts) / max(len(parts), 1)
    return total


def test_the_loss_is_both_likelihoods_written_out() -> None:
    model = build(threshold=4.0, weight_column="ctr")
    logits = torch.randn(len(ROWS), 5, generator=torch.Generator().manual_seed(3))
    numeric = torch.randn(len(ROWS), 2, generator=torch.Generator().manual_seed(4))
    weights = [0.25 + 0.75 * (2.0 + 0.5 * row[1]) / 2.0 for row in numeric.tolist()]
    found = whole_loss(model, bound(model, strength=0.75), logits, torch.tensor(ROWS), numeric)
    assert model.terms["life"] == (slice(0, 3), slice(3, 5))
    assert found == pytest.approx(two_terms(logits.tolist(), ROWS, weights, [slice(0, 3), slice(3, 5)]), rel=1e-5)
    plain = whole_loss(model, bound(model, strength=0.0), logits, torch.tensor(ROWS), numeric)
    assert plain == pytest.approx(two_terms(logits.tolist(), ROWS, [1.0] * len(ROWS), [slice(0, 3), slice(3, 5)]), rel=1e-5)


def test_one_term_without_weights_is_the_plain_loss() -> None:
    model = build(two_terms=False)
    logits, target = torch.randn(len(ROWS), 5), torch.tensor(ROWS)
    found = whole_loss(model, bound(model), logits, target, torch.zeros(len(ROWS), 2))
    assert found == pytest.approx(task_loss(LIFE, logits, target).item(), rel=1e-6)


def test_the_short_term_sees_later_events_as_censored_and_the_long_term_sees_survivors_alone() -> None:
    """The terms are the ordinary losses of two tasks whose targets are cut by hand."""
    short = TaskSpec(name="short", kind="survival", size=3, details={"edges": EDGES[:3]})
    long = TaskSpec(name="long", kind="survival", size=2, details={"edges": EDGES[3:]})
    logits, target = torch.randn(len(ROWS), 5), torch.tensor(ROWS)
    time, event = target[:, 0], target[:, 1]
    early = torch.stack([time.clamp(max=4.0), event * (time <= 4.0)], dim=1)
    late = torch.where((time > 4.0).unsqueeze(1), target, torch.nan)
    expected = task_loss(short, logits[:, :3], early) + task_loss(long, logits[:, 3:], late)
    model = build(threshold=4.0)
    found = whole_loss(model, bound(model), logits, target, torch.zeros(len(ROWS), 2))
    assert found == pytest.approx(expected.item(), rel=1e-6)


def test_censored_rows_bring_survival_terms_alone() -> None:
    """All of a censored row's gradients push its hazards down, none is looked at after it left."""
    model = build(threshold=2.0)
    logits = torch.zeros(3, 5, requires_grad=True)
    target = torch.tensor([(3.0, 0.0), (0.5, 0.0), (3.0, 1.0)])
    each = torch.zeros(3, 2)
    plain = task_loss(LIFE, logits, target).reshape(1)
    batch = Batch({"numeric": each}, {"life": target}, {}, torch.arange(3), torch.zeros(3))
    (plain.sum() + bound(model).loss(ObjectiveInputs(batch, model, {"life": logits}, plain, None, 0))).backward()
    assert logits.grad is not None
    signs = torch.sign(logits.grad)
    assert signs.tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, -1, 0, 0]]


def test_hazards_are_joined_at_the_threshold() -> None:
    model = build(LIFE, OTHER, threshold=4.0).eval()
    inputs = {"numeric": torch.randn(4, 2), "categorical": torch.zeros(4, 0, dtype=torch.int64)}
    z = model.encode(inputs)
    short, long = (head(z) for head in model.heads_of("life"))
    assert (short.shape, long.shape) == ((4, 3), (4, 2))
    output = model(inputs)["life"]
    torch.testing.assert_close(output, torch.cat([short, long], dim=1))
    curve = decode_output(LIFE, output)
    before = torch.cumprod(1.0 - torch.sigmoid(short), dim=1)
    torch.testing.assert_close(curve[:, :3], before)
    torch.testing.assert_close(curve[:, 3:], before[:, -1:] * torch.cumprod(1.0 - torch.sigmoid(long), dim=1))
    assert model(inputs)["price"].shape == (4, 2)


@given(st.integers(0, 1000), st.floats(0.0, 1.0))
def test_weights_have_the_mean_one_over_the_training_rows(seed: int, strength: float) -> None:
    rates = np.random.default_rng(seed).exponential(0.03, size=400)
    mean, std = float(rates.mean()), float(rates.std())
    model = build(inputs=columns(mean, std), weight_column="ctr")
    numeric = torch.from_numpy(np.column_stack([np.zeros(400), (rates - mean) / std]).astype(np.float32))
    weights = bound(model, strength=strength).weights(model, {"numeric": numeric})
    if strength == 0.0:
        assert weights == 1.0
        return
    assert isinstance(weights, Tensor)
    assert weights.mean().item() == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(weights[:, 0], 1.0 - strength + strength * rates / mean, rtol=1e-3, atol=1e-4)


def test_the_trunk_is_shared_and_each_term_has_a_head() -> None:
    model = build(threshold=4.0, head_hidden=0)
    assert sum(parameter.numel() for parameter in model.task_parameters("life")) == 5 * 65
    shared = {id(parameter) for parameter in model.shared_parameters()}
    assert {id(parameter) for parameter in model.trunk.parameters()} <= shared
    short, long = model.heads_of("life")
    model({"numeric": torch.randn(4, 2), "categorical": torch.zeros(4, 0, dtype=torch.int64)})["life"][:, :3].sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in short.parameters())
    assert all(parameter.grad is None or not bool(parameter.grad.any()) for parameter in long.parameters())


def test_where_the_threshold_falls() -> None:
    assert [split_at(LIFE, threshold) for threshold in (0.0, 0.1, 1.4, 3.9, 15.9)] == [2, 1, 1, 3, 4]
    assert split_at(TaskSpec(name="life", kind="survival", size=1, details={"edges": [3.0]})) == 0
    for wrong in (-1.0, 16.0, NAN, math.inf):
        with pytest.raises(ConfigError, match="threshold"):
            split_at(LIFE, wrong)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="per position"):
        build(TaskSpec(name="mask", kind="binary", size=1, positions="pixels"))
    with pytest.raises(ConfigError, match="There is no numeric column 'crt' to weight rows by. Did you mean 'ctr'"):
        build(weight_column="crt")
    with pytest.raises(ConfigError, match="must be above 0"):
        build(weight_column="bid")
    with pytest.raises(ConfigError, match=r"needs a survival task .* price \(regression\)"):
        bound(build(OTHER), (OTHER,))
    known = columns()
    plain = SharedTrunk((LIFE,), lambda: scratch_backbone(known), inputs=known)
    with pytest.raises(ConfigError, match="needs the model TwoTermSurvival; got SharedTrunk"):
        bound(plain)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="strength"):
        TwoTermLikelihood(strength=1.5)


def test_the_likelihood_is_that_of_pycox() -> None:
    """The sum that ``nll_logistic_hazard`` of pycox 0.3.0 gives for the same logits, the last intervals 2, 3 and 4, and events 1,
    0 and 1."""
    logits = torch.tensor([[0.3, -1.2, 0.8, -0.5, 0.1], [-0.7, 0.4, -0.2, 1.1, -1.5], [0.2, 0.9, -0.6, -0.3, 0.5]])
    target = torch.tensor([(3.0, 1.0), (8.0, 0.0), (16.0, 1.0)])
    at_risk, here = risk_and_events(LIFE, target)
    assert here.nonzero().tolist() == [[0, 2], [2, 4]]
    assert at_risk.sum(dim=1).tolist() == [3, 4, 5]
    assert 12 * task_loss(LIFE, logits, target).item() == pytest.approx(8.295626640319824, rel=1e-6)
