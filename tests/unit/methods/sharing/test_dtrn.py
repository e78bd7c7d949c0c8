from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.export.onnx_model import export_onnx
from graftwork.methods.sharing.dtrn import DTRN, FieldGate
from graftwork.methods.sharing.mmoe import MMoE
from graftwork.nn.backbones.behaviour import BehaviourBackbone
from graftwork.tasks.losses import task_loss

TASKS = (
    TaskSpec(name="click", kind="binary", size=1),
    TaskSpec(name="cart", kind="binary", size=1),
    TaskSpec(name="stars", kind="multiclass", size=3),
)
SIZES = {
    "num_numeric": 1,
    "cardinalities": [6, 3, *[6] * 6],
    "vocabularies": [0, 1, *[0] * 6],
    "sequences": {"click": [2, 5], "cart": [5, 8]},
    "query": 0,
}
SMALL: dict[str, Any] = {"width": 8, "num_experts": 3, "expert_width": 6, "head_hidden": 5, "encoder_hidden": 12}


def inputs(rows: int = 5) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    codes = torch.randint(1, 6, (rows, 8), generator=draw)
    codes[:, 1] = codes[:, 1] % 3
    codes[0, 4:] = 0  # a short history and an empty one
    return {"numeric": torch.randn(rows, 1, generator=draw), "categorical": codes}


def build(sizes: dict[str, Any] = SIZES, **settings: Any) -> DTRN:
    torch.manual_seed(0)
    return DTRN(TASKS, inputs={"table": InputSpec(kind="table", sizes=sizes)}, **{**SMALL, **settings}).eval()


def shaken(model: DTRN) -> DTRN:
    """Leave the neutral start, so that every path shows."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.0, 0.4)
    return model


def test_it_starts_as_mmoe_on_shared_bottoms() -> None:
    ours = build()
    for gate in ours.gates or ():
        nn.init.normal_(gate.scores.weight)  # type: ignore[union-attr, arg-type]
    theirs = MMoE(
        TASKS,
        lambda: BehaviourBackbone(SIZES, width=8, hidden=12),
        inputs={"table": InputSpec(kind="table", sizes=SIZES)},
        num_experts=3,
        expert_width=6,
        head_hidden=5,
        dropout=0.0,
    ).eval()
    state = theirs.state_dict()
    for name, value in ours.state_dict().items():
        for name_there in (name, f"backbone.{name}"):
            if name_there in state:
                state[name_there] = value
    theirs.load_state_dict(state)
    for name, output in theirs(inputs()).items():
        torch.testing.assert_close(ours(inputs())[name], output)


@pytest.mark.parametrize("tim", ["film", "lowrank"])
def test_the_interest_module_gives_each_task_its_own_reading(tim: str) -> None:
    neutral = build(tim=tim, trm=False).encode(inputs())
    torch.testing.assert_close(neutral[0], neutral[1], rtol=1e-5, atol=1e-6)
    bottoms = shaken(build(tim=tim, trm=False)).encode(inputs())
    plain = 3 * 8
    torch.testing.assert_close(bottoms[0][:, :plain], bottoms[1][:, :plain], msg="columns are no matter of it")
    assert not torch.allclose(bottoms[0][:, plain:], bottoms[1][:, plain:], atol=1e-3)
    alike = shaken(build(tim="none", trm=False)).encode(inputs())
    torch.testing.assert_close(alike[0], alike[2])


def test_refined_fields_by_hand() -> None:
    gate = FieldGate(2, reduction=2)
    fields = torch.tensor([[[1.0, 3.0], [-2.0, 0.0]]])
    assert torch.equal(gate(fields), fields), "weights are 1 at the start"
    with torch.no_grad():
        gate.squeeze.weight.copy_(torch.tensor([[1.0, 1.0]]))
        gate.squeeze.bias.zero_()
        gate.excite.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    # means 2 and -1, hidden 1, weights 2 sigmoid(1) and 2 sigmoid(-1)
    high, low = 2.0 * torch.sigmoid(torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(gate(fields), torch.stack([fields[:, 0] * high, fields[:, 1] * low], dim=1))


def test_experts_share_weights_but_not_inputs() -> None:
    model = shaken(build())
    bottoms = model.encode(inputs())
    assert model.experts is not None
    assert model.gates is not None
    outputs = model(inputs())
    for index, task in enumerate(TASKS):
        bottom = bottoms[index]
        weights = torch.softmax(model.gates[index].scores(bottom), dim=1)  # type: ignore[union-attr, operator]
        experts = model.experts(bottom.unsqueeze(1)).squeeze(1)
        mixed = (weights.unsqueeze(2) * experts).sum(dim=1)
        torch.testing.assert_close(outputs[task.name], model.heads[index](mixed))


@pytest.mark.parametrize(
    "settings", [{}, {"tim": "lowrank"}, {"tim": "none"}, {"trm": False}, {"head": "ple"}, {"head": "tower"}]
)
def test_every_form_keeps_the_contract_with_sequences(settings: dict[str, Any]) -> None:
    model = shaken(build(**settings))
    full = model(inputs())
    assert {name: output.shape[1] for name, output in full.items()} == {"click": 1, "cart": 1, "stars": 3}
    for name in ("stars", "click"):
        torch.testing.assert_close(model(inputs(), [name])[name], full[name], rtol=1e-4, atol=1e-5)
    parts = [list(model.task_parameters(task.name)) for task in TASKS]
    ids = [id(parameter) for part in [*parts, list(model.shared_parameters())] for parameter in part]
    assert len(ids) == len(set(ids)) == len(list(model.parameters()))
    task_loss(TASKS[0], model(inputs())["click"], torch.tensor([0, 1, 0, 1, 1])).backward()
    assert all(parameter.grad is not None for parameter in parts[0])
    assert all(parameter.grad is None or not parameter.grad.any() for part in parts[1:] for parameter in part)
    sum(output.sum() for output in model(inputs()).values()).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_own_experts_belong_to_their_task() -> None:
    model = shaken(build(head="ple"))
    before = model(inputs())
    with torch.no_grad():
        model.own_experts[0].bias_out[:, 0] += 1.0  # type: ignore[index, union-attr, operator]
    after = model(inputs())
    assert not torch.allclose(before["click"], after["click"])
    torch.testing.assert_close(before["cart"], after["cart"])


def test_a_table_without_sequences_has_field_gates_alone() -> None:
    model = shaken(build({"num_numeric": 2, "cardinalities": [4]}))
    assert model.encoder is None
    assert model.conditioner is None
    rows = {"numeric": torch.randn(4, 2), "categorical": torch.randint(4, (4, 1))}
    bottoms = model.encode(rows)
    assert bottoms[0].shape == (4, 3 * 8)
    assert not torch.allclose(bottoms[0], bottoms[1])


def test_padding_never_shows() -> None:
    model = shaken(build())
    item = model.fields.tokenizer.embedding.weight
    before = model(inputs())
    with torch.no_grad():
        item[0] += 5.0  # what padding is embedded as; no field of these rows is missing
    torch.testing.assert_close(model(inputs())["cart"], before["cart"])


def test_export_for_any_number_of_rows(tmp_path: Path) -> None:
    for tim in ("film", "lowrank"):
        assert export_onnx(shaken(build(tim=tim)), TASKS, inputs(), tmp_path / "m.onnx") < 1e-4


def test_options_and_tables() -> None:
    with pytest.raises(ConfigError, match="got 'flim' and 'mmoe'"):
        build(tim="flim")
    with pytest.raises(ConfigError, match="got 'film' and 'moe'"):
        build(head="moe")
    with pytest.raises(ConfigError, match="columns of tables"):
        build({"vocabulary_size": 9})
