from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError, DataError
from graftwork.core.input_spec import InputSpec, image_input, table_input
from graftwork.core.records import TaskSpec
from graftwork.export.onnx_model import export_onnx
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.methods.sharing.esmm import ESMM, EntireSpace, product_logit
from graftwork.tasks.losses import task_loss

CLICK, BUY, RATE = (TaskSpec(name=name, kind="binary", size=1) for name in ("click", "buy", "rate"))
PRICE = TaskSpec(name="price", kind="regression", size=2, center=(0.0, 0.0), scale=(1.0, 1.0))
SIZES = table_input(2, [5, 3])
SMALL: dict[str, Any] = {"inputs": SIZES, "embedding": 4, "hidden": (8,)}


def inputs(rows: int = 6) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "numeric": torch.randn(rows, 2, generator=draw),
        "categorical": torch.stack([torch.randint(5, (rows,), generator=draw), torch.randint(3, (rows,), generator=draw)], 1),
    }


def build(*tasks: TaskSpec, **settings: Any) -> ESMM:
    torch.manual_seed(0)
    return ESMM(tasks or (CLICK, BUY), **{**SMALL, **settings})


@given(st.floats(-300, 300), st.floats(-300, 300))
def test_the_product_logit_gives_the_papers_loss_in_full_precision(a: float, b: float) -> None:
    """Against the formula in NumPy's extended or double precision: log p = log s(a) + log s(b), log(1 - p) by expm1."""
    first, second = np.longdouble(a), np.longdouble(b)
    log_p = -np.logaddexp(0, -first) - np.logaddexp(0, -second)
    output = product_logit(torch.tensor([[a]], dtype=torch.float64), torch.tensor([[b]], dtype=torch.float64))
    assert task_loss(BUY, output, torch.tensor([1])).item() == pytest.approx(float(-log_p), rel=1e-9, abs=1e-14)
    if -500 < log_p < 0:  # the loss adds up to about 1, so its absolute error is what rounding leaves
        log_rest = np.log(-np.expm1(log_p)) if log_p > -1 else np.log1p(-np.exp(log_p))
        assert task_loss(BUY, output, torch.tensor([0])).item() == pytest.approx(float(-log_rest), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("logit", [-200.0, -30.0, 0.0, 30.0, 200.0])
def test_single_precision_agrees_with_double_and_gradients_stay_finite(logit: float) -> None:
    pair = [torch.tensor([[logit], [1.0]], requires_grad=True), torch.tensor([[0.5], [logit]], requires_grad=True)]
    target = torch.tensor([1, 0])
    loss = task_loss(BUY, product_logit(*pair), target)
    exact = task_loss(BUY, product_logit(*(item.detach().double() for item in pair)), target)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    loss.backward()
    assert all(torch.isfinite(item.grad).all() for item in pair if item.grad is not None)


def test_gradients_are_those_of_the_written_out_probability() -> None:
    a, b = (torch.randn(7, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    target = torch.tensor([1, 0, 0, 1, 0, 1, 0])
    p = (torch.sigmoid(a) * torch.sigmoid(b)).squeeze(1)
    written = -torch.where(target == 1, p.log(), (1 - p).log()).mean()
    ours = task_loss(BUY, product_logit(a, b), target)
    torch.testing.assert_close(ours, written)
    for one, two in zip(torch.autograd.grad(ours, [a, b]), torch.autograd.grad(written, [a, b]), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("shared", [True, False])
def test_the_purchase_probability_is_the_product_of_the_towers(shared: bool) -> None:
    model = build(CLICK, BUY, RATE, conversion="rate", share_embeddings=shared).eval()
    outputs = {name: torch.sigmoid(output) for name, output in model(inputs()).items()}
    torch.testing.assert_close(outputs["buy"], outputs["click"] * outputs["rate"])
    torch.testing.assert_close(torch.sigmoid(model.conversion_logits(inputs())), outputs["rate"])
    assert (outputs["buy"] <= outputs["click"]).all()
    for asked in (["buy"], ["rate"], ["rate", "click"], ["buy", "click"]):
        for name, output in model(inputs(), asked).items():
            torch.testing.assert_close(torch.sigmoid(output), outputs[name])


def test_embeddings_are_shared_or_not() -> None:
    shared, apart = build(), build(share_embeddings=False)
    assert len(shared.fields) == 1
    assert len(apart.fields) == 2
    click = shared(inputs())["click"].sum()
    assert torch.autograd.grad(click, shared.fields[0].tokenizer.embedding.weight)[0].any()
    own = torch.autograd.grad(apart(inputs())["click"].sum(), apart.fields[1].tokenizer.embedding.weight, allow_unused=True)
    assert own == (None,), "the click loss does not reach the conversion tower's embeddings"
    assert isinstance(shared.encode(inputs()), Tensor)
    assert shared.has_shared_representation
    assert not apart.has_shared_representation


def test_no_loss_of_conversions_reaches_the_model() -> None:
    model = build(CLICK, BUY, RATE, conversion="rate").train()
    task_loss(RATE, model(inputs())["rate"], torch.tensor([1, 0, 1, -1, -1, 0])).backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())
    task_loss(BUY, model(inputs())["buy"], torch.tensor([1, 0, 0, 0, 0, 0])).backward()
    reached = [name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()]
    assert {name.split(".")[0] + name.split(".")[1] for name in reached} == {"fields0", "towers0", "towers1"}


@pytest.mark.parametrize("shared", [True, False])
def test_ownership_is_a_partition_and_the_click_tower_serves_both(shared: bool) -> None:
    model = build(CLICK, BUY, PRICE, share_embeddings=shared)
    parts = [list(model.task_parameters(name)) for name in model.task_names] + [list(model.shared_parameters())]
    ids = [id(parameter) for part in parts for parameter in part]
    assert len(ids) == len(set(ids)) == len(list(model.parameters()))
    assert not parts[0], "the click tower is a part of the product"
    click, buy = (model(inputs())[name].sum() for name in ("click", "buy"))
    for parameter in parts[-1]:
        assert all(
            grad is not None for loss in (click, buy) for grad in torch.autograd.grad(loss, [parameter], retain_graph=True)
        )
    assert model(inputs())["price"].shape == (6, 2)


def _objective_inputs(model: ESMM, click: list[int], buy: list[int]) -> ObjectiveInputs:
    targets = {"click": torch.tensor(click), "buy": torch.tensor(buy)}
    batch = Batch(
        inputs(len(click)), targets, {name: target >= 0 for name, target in targets.items()}, torch.arange(40, 46), torch.zeros(6)
    )
    outputs = model(batch.inputs)
    losses = torch.stack([task_loss(task, outputs[task.name], targets[task.name]) for task in (CLICK, BUY)])
    return ObjectiveInputs(batch, model, outputs, losses, None, 0)


def test_blank_purchases_of_rows_without_a_click_count_as_none() -> None:
    model, click = build(), [1, 0, 0, 1, 0, -1]
    blank = _objective_inputs(model, click, [1, -1, 0, 0, -1, -1])
    filled = _objective_inputs(model, click, [1, 0, 0, 0, 0, -1])
    torch.testing.assert_close(blank.losses[1] + EntireSpace().loss(blank), filled.losses[1])
    assert EntireSpace().loss(filled).item() == pytest.approx(0.0, abs=1e-7)


def test_a_purchase_without_a_click_is_refused_with_its_row() -> None:
    with pytest.raises(DataError, match="Row 43 has 'buy' without 'click'.*plan's settings"):
        EntireSpace().loss(_objective_inputs(build(), [1, 1, 0, 1, 0, 0], [1, 0, 1, 0, 0, 0]))
    with pytest.raises(ConfigError, match="product=True"):
        EntireSpace().loss(_objective_inputs(build(product=False), [1, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0]))


def test_which_task_needs_which() -> None:
    model = build(PRICE, CLICK, BUY)
    assert (model.click, model.purchase) == ("click", "buy")
    model = build(BUY, RATE, CLICK, click="click", conversion="rate")
    assert (model.click, model.purchase, model.conversion) == ("click", "buy", "rate")
    assert build(product=False).purchase == ""


@pytest.mark.parametrize(
    ("tasks", "settings", "message"),
    [
        ((CLICK, PRICE), {}, r"chains two binary tasks.*click \(binary\), price \(regression\)"),
        ((CLICK, BUY), {"click": "clik"}, "'clik', which is no task. Did you mean 'click'"),
        ((CLICK, BUY, PRICE), {"purchase": "price"}, "`purchase` names 'price', which is regression"),
        ((CLICK, BUY), {"click": "buy", "purchase": "buy"}, "must be three tasks"),
        ((CLICK, BUY), {"conversion": "buy"}, "chains two binary tasks"),
        ((CLICK, BUY), {"activation": "tanh"}, "relu or gelu; got 'tanh'"),
        ((CLICK, BUY), {"inputs": image_input(32)}, "reads one input of the kind 'table'"),
    ],
)
def test_what_cannot_be_chained_is_refused(tasks: tuple[TaskSpec, ...], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ESMM(tasks, **{**SMALL, **settings})
    with pytest.raises(ConfigError, match="no conversion tower"):
        build(product=False).conversion_logits(inputs())


def test_sequences_are_pooled_without_their_padding() -> None:
    sizes = {"num_numeric": 0, "cardinalities": [5, 5, 5], "vocabularies": [0, 0, 0], "sequences": {"seen": [1, 3]}, "query": 0}
    model = build(inputs={"table": InputSpec(kind="table", sizes=sizes)})
    rows = {"numeric": torch.zeros(2, 0), "categorical": torch.tensor([[1, 3, 0], [1, 0, 3]])}
    torch.testing.assert_close(*model.encode(rows).unbind(0))  # type: ignore[union-attr]


@pytest.mark.parametrize("shared", [True, False])
def test_it_exports_for_any_number_of_rows(shared: bool, tmp_path: Path) -> None:
    model = build(share_embeddings=shared)
    assert export_onnx(model, (CLICK, BUY), inputs(), tmp_path / "m.onnx") < 1e-5
