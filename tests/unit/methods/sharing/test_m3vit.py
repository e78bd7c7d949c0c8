"""M3ViT: task routers in every second block, one pass a task, balance loss, equal results from every way of running it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input, table_input
from graftwork.core.records import TaskSpec
from graftwork.export.onnx_model import export_onnx
from graftwork.methods.sharing.m3vit import M3ViT
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.nn.moe import MoELayer
from graftwork.nn.moe_losses import squared_variation
from graftwork.nn.moe_queue import expert_bytes, expert_queues

TASKS = (
    TaskSpec(name="kind", kind="multiclass", size=3),
    TaskSpec(name="depth", kind="dense_regression", size=1, center=(0.0,), scale=(1.0,)),
)
SIZES = image_input(16)


def build(**settings: Any) -> M3ViT:
    torch.manual_seed(0)
    small = {"num_experts": 4, "expert_hidden": 8, "width": 16, "depth": 4, "num_heads": 2, **settings}
    return M3ViT(TASKS, None, inputs=SIZES, **small).eval()


def pictures(rows: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.randint(0, 256, (rows, 16, 16, 3), generator=generator, dtype=torch.uint8)}


def test_every_second_block_has_experts_and_the_others_are_of_equal_active_width() -> None:
    model = build()
    kinds = [isinstance(block.feed, MoELayer) for block in model.backbone.blocks]
    assert kinds == [False, True, False, True]
    dense: Any = model.backbone.blocks[0].feed
    assert dense[0].out_features == 2 * 8
    assert all(layer.router.num_tasks == 2 for layer in model.moe_layers())


def test_a_task_depends_on_its_own_router_alone() -> None:
    model = build()
    before = model(pictures())
    nn.init.normal_(model.moe_layers()[0].router.weights[1])
    after = model(pictures())
    assert torch.equal(after["kind"], before["kind"])
    assert not torch.allclose(after["depth"], before["depth"])


def test_only_asked_tasks_run() -> None:
    model, calls = build(), []
    model.moe_layers()[0].register_forward_hook(lambda module, arguments, output: calls.append(module.task))
    full = model(pictures())
    assert calls == [0, 1]
    one = model(pictures(), ["depth"])
    assert calls == [0, 1, 1]
    torch.testing.assert_close(one["depth"], full["depth"])


def test_what_runs_before_the_first_mixture_runs_once() -> None:
    model, calls = build(), []
    for index, block in enumerate(model.backbone.blocks):
        block.register_forward_hook(lambda module, arguments, output, index=index: calls.append(index))
    model(pictures())
    assert calls == [0, 1, 2, 3, 1, 2, 3]


def test_the_pass_of_a_task_is_the_whole_transformer_with_its_router() -> None:
    model = build()
    for layer in model.moe_layers():
        layer.task = 1
    torch.testing.assert_close(model.encode(pictures())[1], model.backbone(pictures()))


def test_the_balance_loss_is_summed_over_layers_and_tasks_and_given_once() -> None:
    model = build(balance=0.5).train()
    routings: list[Any] = []
    for layer in model.moe_layers():
        layer.router.register_forward_hook(lambda module, arguments, routing: routings.append(routing))
    model(pictures())
    wanted = sum(
        squared_variation(routing.dense_gates().sum(dim=0)) + squared_variation((routing.dense_gates() > 0).float().sum(dim=0))
        for routing in routings
    )
    assert len(routings) == 4
    found = model.pop_auxiliary_loss()
    assert found is not None
    torch.testing.assert_close(found, 0.5 * wanted)
    assert model.pop_auxiliary_loss() is None
    found.backward()
    assert all(weight.grad is not None for layer in model.moe_layers() for weight in layer.router.weights)


def test_a_pass_that_nobody_took_the_loss_of_is_forgotten() -> None:
    model = build().train()
    model(pictures())
    model(pictures())
    once = model.pop_auxiliary_loss()
    model(pictures())
    torch.testing.assert_close(once, model.pop_auxiliary_loss())
    assert build(balance=0.0).train()(pictures()) is not None
    copy.deepcopy(model)


def test_no_balance_loss_without_weight_or_in_evaluation() -> None:
    for model in (build(balance=0.0).train(), build()):
        model(pictures())
        assert model.pop_auxiliary_loss() is None


def test_expert_by_expert_gives_the_same_with_two_experts_resident(tmp_path: Path) -> None:
    model = build()
    plain = model(pictures())
    with expert_queues(model.moe_layers(), tmp_path) as meter:
        queued = model(pictures())
    for name, output in plain.items():
        torch.testing.assert_close(queued[name], output, atol=1e-6, rtol=1e-6)
    assert meter.peak <= 2 * expert_bytes(model.moe_layers()[0])


def test_one_router_for_all_gives_one_representation() -> None:
    model = build(router="shared")
    assert model.has_shared_representation
    assert isinstance(model.encode(pictures()), Tensor)
    assert set(model(pictures())) == {"kind", "depth"}
    assert {id(p) for p in model.task_parameters("kind")} == {id(p) for p in model.heads[0].parameters()}


def test_a_conditioned_router_tells_tasks_apart() -> None:
    first, second = build(router="conditioned").encode(pictures())
    assert not torch.allclose(first, second)


def test_a_transformer_that_is_handed_over_is_used() -> None:
    made = ViTBackbone(16, patch=4, width=16, depth=3, num_heads=2, feature_map=True)
    model = M3ViT(TASKS, lambda: made, inputs=SIZES, num_experts=3, every=1)
    assert model.backbone is made
    assert len(model.moe_layers()) == 3
    assert model(pictures())["depth"].shape == (3, 1, 16, 16)


@pytest.mark.parametrize("hidden", [8, 256])
@pytest.mark.parametrize("router", ["per_task", "conditioned", "shared"])
def test_it_exports(router: str, hidden: int, tmp_path: Path) -> None:
    model = build(router=router, depth=2, expert_hidden=hidden)
    assert model.moe_layers()[0].exports_sparse == (hidden > 8)
    assert export_onnx(model, TASKS, pictures(), tmp_path / "m.onnx") < 1e-4


def test_errors() -> None:
    with pytest.raises(ConfigError, match="reads one input of the kind 'image'"):
        M3ViT(TASKS, None, inputs=table_input(3))
    with pytest.raises(ConfigError, match="`top_k` must be from 1 to `num_experts`; got 5 of 4"):
        build(top_k=5)
    with pytest.raises(ConfigError, match="`balance` must be at least 0; got -1"):
        build(balance=-1)
    with pytest.raises(ConfigError, match="`every` must be from 1 to the number of blocks; got 5 of 4"):
        build(every=5)
