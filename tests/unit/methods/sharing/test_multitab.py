from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input, table_input
from graftwork.core.records import TaskSpec
from graftwork.export.onnx_model import export_onnx
from graftwork.methods.sharing.multitab import MultiTabNet, task_mask
from graftwork.nn.attention import AttentionBlock, SelfAttention, rotate_positions
from graftwork.nn.tokenizer import FeatureTokenizer

TASKS = [
    TaskSpec(name="a", kind="binary", size=1),
    TaskSpec(name="b", kind="multiclass", size=3),
    TaskSpec(name="c", kind="regression", size=2, center=(0.0, 0.0), scale=(1.0, 1.0)),
]
SIZES = table_input(4, [5, 3])


def build(**settings: object) -> MultiTabNet:
    torch.manual_seed(0)
    model = MultiTabNet(TASKS, None, inputs=SIZES, **settings)  # type: ignore[arg-type]
    for parameter in model.parameters():  # large enough that every path shows in the outputs
        torch.nn.init.normal_(parameter, 0.0, 0.25)
    return model.eval()


def inputs(rows: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "numeric": torch.randn(rows, 4, generator=generator),
        "categorical": torch.stack(
            [torch.randint(5, (rows,), generator=generator), torch.randint(3, (rows,), generator=generator)], 1
        ),
    }


def test_tokens_are_the_formula() -> None:
    tokenizer = FeatureTokenizer(2, [3, 4], 5)
    torch.nn.init.normal_(tokenizer.bias)
    tokens = tokenizer(torch.tensor([[2.0, -1.0]]), torch.tensor([[1, 3]]))
    torch.testing.assert_close(tokens[0, 0], 2.0 * tokenizer.weight[0] + tokenizer.bias[0])
    torch.testing.assert_close(tokens[0, 1], -tokenizer.weight[1] + tokenizer.bias[1])
    torch.testing.assert_close(tokens[0, 2], tokenizer.embedding.weight[1])
    torch.testing.assert_close(tokens[0, 3], tokenizer.embedding.weight[3 + 3])


def test_masks_block_what_they_say() -> None:
    assert task_mask(2, 2, "none") is None
    assert task_mask(2, 2, "TxT").int().tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]  # type: ignore[union-attr]
    assert task_mask(2, 2, "FxT").int().tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]  # type: ignore[union-attr]
    assert task_mask(2, 2, "FxT_TxT").int().tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]  # type: ignore[union-attr]


@pytest.mark.parametrize("mask", ["none", "TxT", "FxT", "FxT_TxT"])
def test_attention_equals_the_written_out_formula(mask: str) -> None:
    blocked = task_mask(3, 5, mask)  # type: ignore[arg-type]
    torch.manual_seed(0)
    attention = SelfAttention(8, 2, blocked=blocked)
    states = torch.randn(2, 8, 8)
    query, key, value = attention.project(states).chunk(3, dim=-1)
    heads = []
    for head in range(2):
        part = slice(head * 4, head * 4 + 4)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / 2.0
        if blocked is not None:
            scores[:, blocked] = float("-inf")
        heads.append(scores.softmax(-1) @ value[..., part])
    torch.testing.assert_close(attention(states), attention.output(torch.cat(heads, dim=-1)), rtol=1e-5, atol=1e-6)


def test_full_mask_isolates_tasks_and_no_mask_does_not() -> None:
    for mask, isolated in (("FxT_TxT", True), ("none", False)):
        model = build(mask=mask, num_blocks=2)
        before = model(inputs())
        with torch.no_grad():
            model.task_tokens[0] += torch.linspace(-1, 2, 16)  # not a constant: layer norms would remove it
        after = model(inputs())
        assert not torch.allclose(before["a"], after["a"])
        assert torch.allclose(before["b"], after["b"]) == isolated


def test_mask_is_in_force_in_training_and_evaluation() -> None:
    model = build(mask="TxT")
    torch.testing.assert_close(model.train()(inputs())["b"], model.eval()(inputs())["b"])


def test_column_attention_treats_rows_alone_and_row_attention_does_not() -> None:
    for att_type, alone in (("col", True), ("row_self", True), ("row_col", False)):
        model = build(att_type=att_type)
        full, part = model(inputs()), model({name: value[:2] for name, value in inputs().items()})
        assert torch.allclose(full["c"][:2], part["c"], atol=1e-5) == alone


def test_row_attention_without_positions_ignores_the_order_of_rows() -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = {name: value[order] for name, value in inputs().items()}
    plain, rotary = build(att_type="row_col"), build(att_type="row_col", rotary=True)
    torch.testing.assert_close(plain(inputs())["c"][order], plain(shuffled)["c"], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(rotary(inputs())["c"][order], rotary(shuffled)["c"], atol=1e-3)


def test_rows_that_read_themselves_are_the_attention_over_sequences_of_length_one() -> None:
    """The released rotary form: queries and keys are there and decide nothing, since a softmax over one place is 1."""
    block = build(att_type="row_self", mask="none").blocks[0]
    assert isinstance(block, nn.Module)
    own, width = block.get_submodule("rows"), 16 * 9
    sequence = AttentionBlock(width, 4, 256, rotary=True)
    value = {name: part for name, part in own.named_parameters() if name.startswith("value")}
    with torch.no_grad():
        sequence.attention.project.weight[2 * width :] = value["value.weight"]
        sequence.attention.project.bias[2 * width :] = value["value.bias"]
    for name, other in (("attention_norm",) * 2, ("feed_norm",) * 2, ("feed",) * 2, ("output", "attention.output")):
        sequence.get_submodule(other).load_state_dict(own.get_submodule(name).state_dict())
    rows = torch.randn(5, width)
    torch.testing.assert_close(own(rows), sequence(rows.unsqueeze(1)).squeeze(1), rtol=1e-5, atol=1e-5)


def test_rotation_keeps_lengths_and_depends_on_distance_alone() -> None:
    query, key = torch.randn(1, 8).expand(6, 8), torch.randn(1, 8).expand(6, 8)
    rotated_query, rotated_key = rotate_positions(query), rotate_positions(key)
    torch.testing.assert_close(rotated_query.norm(dim=-1), query.norm(dim=-1))
    products = rotated_query @ rotated_key.T
    for distance in range(-4, 5):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-5)


def test_one_token_serves_all_towers_and_is_a_shared_representation() -> None:
    model = build(single_token=True)
    assert model.has_shared_representation
    assert model.encode(inputs()).shape == (6, 16)  # type: ignore[union-attr]
    assert model(inputs())["b"].shape == (6, 3)


def test_initial_weights_are_small_as_released() -> None:
    model = MultiTabNet(TASKS, None, inputs=SIZES, width=64)
    weights = torch.cat([module.weight.flatten() for module in model.modules() if isinstance(module, torch.nn.Linear)])
    assert abs(weights.std().item() - 0.01) < 0.001
    assert all(not module.bias.any() for module in model.modules() if isinstance(module, torch.nn.Linear))


def test_tables_only_and_known_options() -> None:
    with pytest.raises(ConfigError, match="reads one input of the kind 'table'"):
        MultiTabNet(TASKS, None, inputs=image_input(64))
    with pytest.raises(ConfigError, match="'TxF'"):
        MultiTabNet(TASKS, None, inputs=SIZES, mask="TxF")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="row_col or row_self; got 'TxT' and 'rows'"):
        MultiTabNet(TASKS, None, inputs=SIZES, att_type="rows")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs att_type='row_col'; got 'row_self'"):
        MultiTabNet(TASKS, None, inputs=SIZES, att_type="row_self", rotary=True)
    with pytest.raises(ValueError, match="divisible by `num_heads`"):
        MultiTabNet(TASKS, None, inputs=SIZES, width=18)


@pytest.mark.parametrize("att_type", ["row_col", "row_self"])
def test_gradients_reach_every_parameter(att_type: str) -> None:
    model = build(att_type=att_type, num_blocks=2, mask="TxT").train()
    outputs = model(inputs())
    loss = sum(F.mse_loss(output, torch.zeros_like(output)) for output in outputs.values())
    loss.backward()  # type: ignore[union-attr]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("att_type", ["col", "row_self"])
def test_rows_that_stand_alone_export_for_any_number_of_them(tmp_path: Path, att_type: str) -> None:
    model = build(mask="TxT", num_blocks=2, att_type=att_type)
    assert export_onnx(model, TASKS, inputs(), tmp_path / "m.onnx") < 1e-4
