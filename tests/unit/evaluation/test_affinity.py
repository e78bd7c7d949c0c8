"""Lookahead affinity and gradient cosines: values by hand, sign of related and conflicting tasks, and an untouched model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graftwork.core.batch import Batch
from graftwork.core.records import TaskSpec
from graftwork.evaluation.affinity import cosines_of_products, layer_products, measure_affinity, summarise_affinity
from graftwork.interfaces.shared_model import SharedModel

NAMES = ("one", "same", "against")


def value_task(name: str) -> TaskSpec:
    return TaskSpec(name=name, kind="regression", size=1, center=(0.0,), scale=(1.0,))


class ToyModel(SharedModel):
    """``y_t = head_t * dropout(w . x)`` with a batch norm of no weight beside, whose state any careless probe would move."""

    def __init__(self, tasks: Sequence[str], width: int = 2) -> None:
        super().__init__()
        self.task_names = tuple(tasks)
        self.trunk = nn.Linear(width, 1, bias=False)
        self.norm = nn.BatchNorm1d(1, affine=False, momentum=0.5)
        self.dropout = nn.Dropout(0.5)
        self.heads = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in tasks})

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        hidden = self.trunk(inputs["numeric"])
        self.norm(hidden)
        return self.dropout(hidden)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        return {name: self.heads[name](representation) for name in tasks or self.task_names}

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        return self.heads[task].parameters()


def make_batch(inputs: Tensor, targets: Mapping[str, Tensor]) -> Batch:
    rows = torch.arange(len(inputs))
    mask = {name: ~torch.isnan(target).all(dim=1) for name, target in targets.items()}
    return Batch({"numeric": inputs}, targets, mask, rows, torch.zeros_like(rows))


TASKS = tuple(value_task(name) for name in NAMES)


def model_with(weights: list[float]) -> ToyModel:
    model = ToyModel(NAMES)
    with torch.no_grad():
        model.trunk.weight.copy_(torch.tensor([weights]))
        for head in model.heads.values():
            head.weight.fill_(1.0)
    return model


def batch(targets: dict[str, float], inputs: tuple[float, float] = (1.0, 0.0)) -> Batch:
    rows = torch.tensor([inputs, inputs])
    return make_batch(rows, {name: torch.full((2, 1), targets[name]) for name in NAMES})


def test_value_worked_out_by_hand() -> None:
    """``L = (w - y)^2`` with w = 0: a step of 0.1 on y = 1 moves w to 0.2; on y = -2 to -0.4."""
    found = measure_affinity(
        model_with([0.0, 0.0]), TASKS, [batch({"one": 1.0, "same": 2.0, "against": -2.0})], learning_rate=0.1
    )
    expected = [
        [1 - 0.8**2, 1 - (1.8 / 2) ** 2, 1 - (2.2 / 2) ** 2],
        [1 - 0.6**2, 1 - (1.6 / 2) ** 2, 1 - (2.4 / 2) ** 2],
        [1 - 1.4**2, 1 - (2.4 / 2) ** 2, 1 - (1.6 / 2) ** 2],
    ]
    assert found.tolist() == [pytest.approx(row, abs=1e-6) for row in expected]


def test_losses_are_read_on_the_next_batch() -> None:
    targets = {"one": 1.0, "same": 1.0, "against": -1.0}
    apart = [batch(targets, (1.0, 0.0)), batch(targets, (0.0, 1.0))]  # steps on one batch's input do not reach the other's
    assert measure_affinity(model_with([0.0, 0.0]), TASKS, apart, learning_rate=0.1).abs().max() == 0
    found = measure_affinity(model_with([0.0, 0.0]), TASKS, [apart[0], apart[0]], learning_rate=0.1)
    assert found[0, 1] > 0 > found[0, 2]


def test_model_and_random_numbers_are_exactly_what_they_were() -> None:
    model = ToyModel(NAMES).train()
    model.heads["one"].eval()
    model.trunk.weight.grad = torch.ones(1, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = [batch({"one": 1.0, "same": 1.0, "against": -1.0})] * 2
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    measure_affinity(model, TASKS, batches, learning_rate=0.3)
    layer_products(model, TASKS, batches[0])
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model.trunk.weight.grad, torch.ones(1, 2))
    assert model.training
    assert not model.heads["one"].training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_error_in_the_middle_leaves_the_model_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_with([0.5, 0.5])
    calls = iter(range(100))
    decode = model.decode

    def fail_later(*arguments, **options):
        if next(calls) == 2:  # after the first step was taken
            raise RuntimeError("out of memory")
        return decode(*arguments, **options)

    monkeypatch.setattr(model, "decode", fail_later)
    with pytest.raises(RuntimeError, match="out of memory"):
        measure_affinity(model, TASKS, [batch({"one": 1.0, "same": 1.0, "against": -1.0})], learning_rate=0.1)
    assert model.trunk.weight.tolist() == [[0.5, 0.5]]
    assert model.training


def test_tasks_without_labels_are_unknown_not_zero() -> None:
    found = measure_affinity(
        model_with([0.0, 0.0]), TASKS, [batch({"one": 1.0, "same": float("nan"), "against": -1.0})], learning_rate=0.1
    )
    assert torch.isnan(found[1]).all()
    assert torch.isnan(found[:, 1]).all()
    assert found[0, 2] < 0


def test_models_that_share_nothing_trained_have_no_affinity() -> None:
    model = model_with([0.0, 0.0])
    model.trunk.requires_grad_(False)
    example = batch({"one": 1.0, "same": 1.0, "against": -1.0})
    assert measure_affinity(model, TASKS, [example], learning_rate=0.1).tolist() == [[0.0] * 3] * 3
    assert layer_products(model, TASKS, example) == {}


def test_arguments_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="`batches` must hold at least one batch"):
        measure_affinity(model_with([0.0, 0.0]), TASKS, [], learning_rate=0.1)
    with pytest.raises(ValueError, match="`learning_rate` must be above 0; got 0"):
        measure_affinity(model_with([0.0, 0.0]), TASKS, [batch(dict.fromkeys(NAMES, 1.0))], learning_rate=0.0)
    with pytest.raises(ValueError, match="at least one matrix"):
        summarise_affinity([])


def test_cosines_by_layer() -> None:
    example = batch({"one": 1.0, "same": 3.0, "against": -1.0})
    found = layer_products(model_with([0.0, 0.0]), TASKS, example)
    assert set(found) == {"trunk"}
    assert cosines_of_products(found["trunk"]).tolist() == [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]
    unknown = layer_products(model_with([0.0, 0.0]), TASKS, batch({"one": 1.0, "same": float("nan"), "against": -1.0}))
    cosines = cosines_of_products(unknown["trunk"])
    assert torch.isnan(cosines[1]).all()
    assert cosines[0, 2] == -1


def test_summary_is_relative_to_the_own_step_with_intervals() -> None:
    first = torch.tensor([[0.02, 0.002], [-0.01, 0.004]], dtype=torch.float64)
    second = torch.tensor([[0.04, 0.002], [-0.02, 0.004]], dtype=torch.float64)
    found = summarise_affinity([first, second], ["a", "b"])
    assert found["tasks"] == ["a", "b"]
    assert found["value"] == [pytest.approx([1.0, 0.5]), pytest.approx([-0.5, 1.0])]
    assert found["own"] == pytest.approx([3.0, 0.4])
    margin = 12.7062 * np.std([0.02 / 0.03, 0.04 / 0.03], ddof=1) / np.sqrt(2)
    assert found["high"][0][0] - 1.0 == pytest.approx(margin, rel=1e-4)
    assert found["low"][0][1] == pytest.approx(0.5)
    raw = summarise_affinity([first, second], relative=False)
    assert raw["tasks"] == ["task 1", "task 2"]
    assert raw["value"][1][0] == pytest.approx(-0.015)
    json.dumps(found, allow_nan=False)


def test_summary_says_none_where_nothing_is_known() -> None:
    matrix = torch.tensor([[0.02, float("nan")], [0.01, float("nan")]])
    found = summarise_affinity([matrix])
    assert found["value"][0] == [pytest.approx(1.0), None]
    assert found["low"] == [[None, None], [None, None]]
    json.dumps(found, allow_nan=False)
