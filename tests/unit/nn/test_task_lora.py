from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.nn.lora import LowRankUpdate, fold_layers, wrap_layer
from graftwork.nn.task_lora import SharedMode, TaskLowRankLinear


def build(mode: SharedMode = "matrix", *, dropout: float = 0.0, ends_shared: bool = False) -> TaskLowRankLinear:
    torch.manual_seed(0)
    layer = TaskLowRankLinear(
        nn.Linear(5, 3), [2, 1], shared_rank=2, scaling=4.0, dropout=dropout, mode=mode, ends_shared=ends_shared
    )
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def low_rank(update: nn.Module | None, inputs: Tensor) -> Tensor:
    assert isinstance(update, LowRankUpdate)
    return 4.0 * inputs @ update.down.weight.T @ update.up.weight.T


def test_a_new_layer_computes_what_its_base_does() -> None:
    base = nn.Linear(5, 3)
    layer = TaskLowRankLinear(base, [2, 1], shared_rank=2)
    inputs = torch.randn(4, 5)
    shared, streams = layer.eval()(inputs, None, [0, 1])
    torch.testing.assert_close(shared, base(inputs))
    torch.testing.assert_close(streams, base(inputs).expand(2, 4, 3))
    assert not any(parameter.requires_grad for parameter in base.parameters())


@pytest.mark.parametrize("forked", [False, True])
def test_matrix_mode_leaves_the_shared_update_out_of_task_outputs(forked: bool) -> None:
    layer, inputs, own = build(), torch.randn(4, 5), torch.randn(2, 4, 5)
    shared, streams = layer(inputs, own if forked else None, [0, 1])
    torch.testing.assert_close(shared, layer.base(inputs) + low_rank(layer.shared, inputs))
    for task in (0, 1):
        # The frozen map reads the shared stream even where tasks have streams of their own.
        source = own[task] if forked else inputs
        torch.testing.assert_close(streams[task], layer.base(inputs) + low_rank(layer.updates[task], source))


def test_matrixv2_mode_adds_it() -> None:
    layer, inputs, own = build("matrixv2"), torch.randn(4, 5), torch.randn(2, 4, 5)
    shared, streams = layer(inputs, own, [0, 1])
    common = layer.base(inputs) + low_rank(layer.shared, inputs)
    torch.testing.assert_close(shared, common)
    torch.testing.assert_close(streams[1], common + low_rank(layer.updates[1], own[1]))


def test_addition_mode_makes_the_shared_output_of_the_sum_of_task_outputs() -> None:
    layer, inputs, own = build("addition"), torch.randn(4, 5), torch.randn(2, 4, 5)
    shared, streams = layer(inputs, own, [0, 1])
    assert layer.shared is None
    assert layer.norm is not None
    torch.testing.assert_close(streams[0], layer.base(inputs) + low_rank(layer.updates[0], own[0]))
    torch.testing.assert_close(shared, layer.base(inputs) + layer.norm(streams[0] + streams[1]))


def test_the_scale_is_not_divided_by_the_rank() -> None:
    base = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(base.weight)
    layer = TaskLowRankLinear(base, [8], shared_rank=8, scaling=4.0, dropout=0.0)
    update = layer.updates[0]
    assert isinstance(update, LowRankUpdate)
    nn.init.ones_(update.down.weight)
    nn.init.ones_(update.up.weight)
    _, streams = layer(torch.tensor([[1.0, 2.0]]), None, [0])
    assert streams.tolist() == [[[96.0, 96.0]]]  # 4 * 8 * (1 + 2)


def test_only_asked_tasks_are_computed_and_in_the_asked_order() -> None:
    layer, inputs = build(), torch.randn(4, 5)
    _, both = layer(inputs, None, [0, 1])
    _, swapped = layer(inputs, None, [1, 0])
    _, second = layer(inputs, None, [1])
    torch.testing.assert_close(swapped, both.flip(0))
    torch.testing.assert_close(second[0], both[1])


def test_dropout_hits_the_shared_stream_and_spares_task_streams() -> None:
    layer, inputs, own = build(dropout=0.9).train(), torch.randn(64, 5), torch.randn(2, 64, 5)
    shared, streams = layer(inputs, own, [0, 1])
    torch.testing.assert_close(streams[0], layer.base(inputs) + low_rank(layer.updates[0], own[0]))
    assert not torch.allclose(shared, layer.base(inputs) + low_rank(layer.shared, inputs))
    _, forking = layer(inputs, None, [0])
    assert not torch.allclose(forking[0], layer.base(inputs) + low_rank(layer.updates[0], inputs))


def test_a_shared_output_that_nobody_reads_costs_nothing() -> None:
    for mode in ("matrix", "addition"):
        layer = build(mode, ends_shared=True)
        shared, _ = layer(torch.ones(1, 5), None, [0, 1])
        torch.testing.assert_close(shared, layer.base(torch.ones(1, 5)))
        assert layer.shared is None
        assert layer.norm is None
    assert build("matrixv2", ends_shared=True).shared is not None  # task outputs need it


def test_folding_for_deployment_leaves_several_updates_of_one_base_alone() -> None:
    model = nn.ModuleDict({"many": build(), "one": wrap_layer(nn.Linear(5, 3), 2, 4.0)})
    inputs = torch.randn(4, 5)
    before = model["many"](inputs, None, [0, 1])
    assert fold_layers(model) == 1
    for old, new in zip(before, model["many"](inputs, None, [0, 1]), strict=True):
        assert torch.equal(old, new)


def test_numbers_of_peft_where_the_forms_coincide() -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 4))
    # peft divides by the rank: alpha = scale * r gives the scale of MTLoRA
    adapted = peft.inject_adapter_in_model(peft.LoraConfig(r=3, lora_alpha=12, target_modules=["0"]), base)
    theirs = adapted[0]
    ours = TaskLowRankLinear(nn.Linear(6, 4), [3], shared_rank=3, scaling=4.0, dropout=0.0)
    nn.init.normal_(theirs.lora_B["default"].weight)
    with torch.no_grad():
        ours.base.weight.copy_(theirs.base_layer.weight)
        ours.base.bias.copy_(theirs.base_layer.bias)
        for update in (ours.shared, ours.updates[0]):
            assert isinstance(update, LowRankUpdate)
            update.down.weight.copy_(theirs.lora_A["default"].weight)
            update.up.weight.copy_(theirs.lora_B["default"].weight)
    inputs = torch.randn(5, 6)
    shared, streams = ours(inputs, None, [0])
    torch.testing.assert_close(shared, adapted(inputs))
    torch.testing.assert_close(streams[0], adapted(inputs))


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="'sum'"):
        TaskLowRankLinear(nn.Linear(2, 2), [1], shared_rank=1, mode="sum")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least one task"):
        TaskLowRankLinear(nn.Linear(2, 2), [], shared_rank=1)
    with pytest.raises(ConfigError, match=r"in \[0, 1\)"):
        TaskLowRankLinear(nn.Linear(2, 2), [1], shared_rank=1, dropout=1.0)
    with pytest.raises(ValueError, match="at least 1"):
        TaskLowRankLinear(nn.Linear(2, 2), [0], shared_rank=1)
