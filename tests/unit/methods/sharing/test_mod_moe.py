"""The modular model: own rows per task, mutual information over a step, extraction, new tasks beside untouched old ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input, table_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suites.scene_sets import scene_sets
from graftwork.export.onnx_model import export_onnx
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.optimization.tram import TRAM
from graftwork.methods.sharing.mod_moe import ModMoE, kept_experts
from graftwork.nn.moe import MoEAttention, MoELayer, recording, routed_layers
from graftwork.nn.moe_losses import expert_usage, mutual_information_loss
from graftwork.nn.moe_router import Router
from graftwork.tasks.losses import task_loss
from graftwork.training.trainer import TrainConfig, Trainer

TASKS = (
    TaskSpec(name="kind", kind="multiclass", size=3),
    TaskSpec(name="parts", kind="dense_multiclass", size=4),
)
NEW = TaskSpec(name="count", kind="multiclass", size=5)
SIZES = image_input(16)


def build(**settings: Any) -> ModMoE:
    torch.manual_seed(0)
    small = {"num_experts": 4, "expert_hidden": 8, "attention_experts": 4, "attention_top_k": 2, "width": 16, "depth": 2}
    model = ModMoE(TASKS, None, inputs=SIZES, **{**small, **settings}).eval()
    for router in (module for module in model.modules() if isinstance(module, Router)):
        for weight in router.weights:  # zero at the start: all tokens would choose the same experts
            nn.init.normal_(weight, std=0.5)
    return model


def pictures(rows: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.randint(0, 256, (rows, 16, 16, 3), generator=generator, dtype=torch.uint8)}


def batch(kind_rows: list[int], rows: int = 6) -> Batch:
    """Rows of ``kind_rows`` have a label of the first task, the others one of the second."""
    first = torch.tensor([row in kind_rows for row in range(rows)])
    targets = {
        "kind": torch.where(first, torch.arange(rows) % 3, -1),
        "parts": torch.where(first.view(-1, 1, 1), -1, torch.arange(16).expand(rows, 16, 16) % 4),
    }
    return Batch(pictures(rows), targets, {"kind": first, "parts": ~first}, torch.arange(rows), (~first).long())


def quiet(model: ModMoE) -> ModMoE:
    for router in (module for module in model.modules() if isinstance(module, Router)):
        router.noise = 0.0
    return model


def losses(model: ModMoE, of: Batch, *, batchwise: bool = False) -> Tensor:
    outputs = model.decode(model.encode_batch(of)) if batchwise else model(of.inputs)
    return torch.stack([task_loss(task, outputs[task.name], of.targets[task.name]) for task in TASKS])


def test_every_block_routes_attention_and_feed_forward() -> None:
    model = build()
    for block in model.backbone.blocks:
        assert isinstance(block.attention, MoEAttention)
        assert isinstance(block.feed, MoELayer)
    plain = build(attention_experts=0)
    assert [type(layer) for layer in plain.routed_layers()] == [MoELayer, MoELayer]


def test_routers_start_at_zero_with_learned_noise() -> None:
    model = ModMoE(TASKS, None, inputs=SIZES)
    assert all(not layer.router.weights[0].any() for layer in model.routed_layers())
    assert all(layer.router.noise == "learned" and layer.router.floor == 1e-4 for layer in model.routed_layers())


def test_in_training_a_task_runs_on_its_own_rows_with_equal_losses_and_gradients() -> None:
    model, mixed = quiet(build()).train(), batch([0, 3, 4])
    everything = losses(model, mixed)
    wanted = torch.autograd.grad(everything.sum(), list(model.backbone.parameters()), allow_unused=True)
    seen: list[int] = []
    model.backbone.blocks[0].register_forward_hook(lambda module, arguments, output: seen.append(len(output)))
    parted = losses(model, mixed, batchwise=True)
    found = torch.autograd.grad(parted.sum(), list(model.backbone.parameters()), allow_unused=True)
    assert seen == [3, 3]
    torch.testing.assert_close(parted, everything)
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_what_is_no_training_batch_is_computed_for_all_rows() -> None:
    model, mixed = quiet(build()).train(), batch([0])
    assert not bool(model.decode(model.encode_batch(mixed))["kind"][1:].any())
    assert bool(model(mixed.inputs)["kind"][1:].any())
    model.eval()
    assert bool(model.decode(model.encode_batch(mixed))["kind"][1:].any())


def test_a_repeated_pass_with_other_inputs_runs_the_same_rows() -> None:
    """TRAM compares the outputs of a batch with those of noised inputs: rows that a task leaves out must be alike in both."""
    suite = scene_sets(num_train=4, num_test=1, size=16)
    torch.manual_seed(0)
    model = ModMoE(suite.tasks, None, inputs=suite.input_specs, width=16, depth=1)
    seen: list[int] = []
    model.backbone.blocks[0].register_forward_hook(lambda module, arguments, output: seen.append(len(output)))
    stream = BatchStream(suite, suite.splits["train"], 6, 0)
    trainer = Trainer(model, suite.tasks, stream, balancer=TRAM(reference="x"), config=TrainConfig(max_steps=2), seeds=Seeds(0))
    trainer.train(1)
    assert seen[3:6] == seen[:3]


def test_the_loop_shows_batches_so_that_each_row_runs_once() -> None:
    suite = scene_sets(num_train=4, num_test=1, size=16)
    torch.manual_seed(0)
    model = ModMoE(suite.tasks, None, inputs=suite.input_specs, width=16, depth=1)
    seen: list[int] = []
    model.backbone.blocks[0].register_forward_hook(lambda module, arguments, output: seen.append(len(output)))
    stream = BatchStream(suite, suite.splits["train"], 6, 0)
    trainer = Trainer(model, suite.tasks, stream, balancer=EqualWeights(), config=TrainConfig(max_steps=2), seeds=Seeds(0))
    trainer.train(1)
    assert len(seen) == 3
    assert sum(seen) == stream.batch_size


def test_a_step_without_rows_of_a_task() -> None:
    model, mixed = build().train(), batch([])
    found = losses(model, mixed, batchwise=True)
    assert found[0].item() == 0.0
    extra = model.pop_auxiliary_loss()
    (found.sum() if extra is None else found.sum() + extra).backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_mutual_information_is_that_of_all_tasks_of_the_step() -> None:
    model = quiet(build(mutual_information=0.3)).train()
    model(pictures())
    wanted = sum(0.3 * mutual_information_loss(layer.journal.records) for layer in model.routed_layers())
    assert all({item.task for item in layer.journal.records} == {0, 1} for layer in model.routed_layers())
    found = model.pop_auxiliary_loss()
    assert found is not None
    assert found.item() < 0
    torch.testing.assert_close(found, wanted)
    assert model.pop_auxiliary_loss() is None


def test_balance_can_take_its_place() -> None:
    model = build(mutual_information=0.0, balance=0.1).train()
    model(pictures())
    found = model.pop_auxiliary_loss()
    assert found is not None
    assert found.item() > 0
    silent = build(mutual_information=0.0).train()
    silent(pictures())
    assert silent.pop_auxiliary_loss() is None


def test_which_experts_are_kept() -> None:
    usage = torch.tensor([0.30, 0.02, 0.45, 0.0, 0.23])
    assert kept_experts(usage, 2, threshold=0.05) == [0, 2, 4]  # at least 0.025
    assert kept_experts(usage, 2, threshold=0.04) == [0, 1, 2, 4]
    assert kept_experts(usage, 2, threshold=1.0) == [0, 2], "at least k"
    assert kept_experts(usage, 2, share=0.5) == [0, 2]
    assert kept_experts(usage, 2, share=0.0) == [0, 2]
    assert kept_experts(usage, 2, share=1.0) == [0, 1, 2, 3, 4]
    for wrong in ({}, {"threshold": 0.1, "share": 0.1}, {"share": 1.5}):
        with pytest.raises(ConfigError, match="either `threshold` or `share`"):
            kept_experts(usage, 2, **wrong)


def test_extraction_without_unused_experts_changes_nothing_for_the_task() -> None:
    model = build(num_experts=8, attention_experts=8)
    one = {"image": pictures(1)["image"]}
    with torch.no_grad(), recording(model) as records:
        wanted = model(one, ["parts"])["parts"]
    usage = expert_usage(records)
    layers = routed_layers(model)
    keep = {name: [int(e) for e in shares[1].nonzero().flatten()] for name, shares in usage.items()}
    small = model.extract("parts", keep)
    assert small.task_names == ("parts",)
    torch.testing.assert_close(small(one)["parts"], wanted)
    for name, layer in routed_layers(small).items():
        assert layer.num_experts == len(keep[name]) <= layers[name].num_experts
        assert len(layer.router.weights) == 1
    assert torch.equal(model(one, ["parts"])["parts"], wanted), "the large model is untouched"


def test_extraction_to_few_experts_is_smaller_and_still_runs() -> None:
    model = build()
    small = model.extract("kind", {name: [0, 2] for name in routed_layers(model)})
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert small(pictures())["kind"].shape == (6, 3)
    assert {id(p) for p in small.parameters()}.isdisjoint({id(p) for p in model.parameters()})


@pytest.mark.parametrize("new_experts", [0, 2])
def test_a_task_learned_later_leaves_old_outputs_bit_for_bit(new_experts: int) -> None:
    model = build()
    before = model(pictures())
    model.add_task(NEW, new_experts=new_experts)
    model.train_only("count", newest_experts=new_experts > 0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.05, weight_decay=0.1)
    first = model(pictures())["count"].detach()
    for _ in range(3):
        optimizer.zero_grad()
        task_loss(NEW, model.train()(pictures(), ["count"])["count"], torch.arange(6) % 5).backward()
        optimizer.step()
    after = model.eval()(pictures())
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not torch.allclose(after["count"], first)


def test_what_is_trained_for_a_new_task() -> None:
    model = build()
    model.add_task(NEW)
    model.train_only("count")
    own = {id(parameter) for parameter in model.task_parameters("count")}
    assert {id(parameter) for parameter in model.parameters() if parameter.requires_grad} == own
    with pytest.raises(ConfigError, match="a task 'count' already"):
        model.add_task(NEW)
    model = build()
    model.add_task(NEW, new_experts=2)
    model.train_only("count", newest_experts=True)
    new = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in new if ".feed." in name and "router" not in name} == {
        f"backbone.blocks.{block}.feed.{part}.{kind}.1"
        for block in range(2)
        for part in ("expand", "contract")
        for kind in ("weights", "biases")
    }


def test_it_exports(tmp_path: Path) -> None:
    assert export_onnx(build(), TASKS, pictures(), tmp_path / "m.onnx") < 1e-4


def test_it_exports_sparse_with_a_task_and_experts_that_came_later(tmp_path: Path) -> None:
    model = build(depth=1, expert_hidden=256, head_width=256)
    assert all(layer.exports_sparse for layer in model.routed_layers())
    model.add_task(NEW, new_experts=2)
    for router in (module for module in model.modules() if isinstance(module, Router)):
        nn.init.normal_(router.weights[2], std=0.5)
    assert export_onnx(model.eval(), (*TASKS, NEW), pictures(), tmp_path / "m.onnx") < 1e-4
    small = model.extract("count", {name: [1, 3, 4, 5] for name in routed_layers(model)})
    assert export_onnx(small, (NEW,), pictures(), tmp_path / "s.onnx") < 1e-4


def test_errors() -> None:
    with pytest.raises(ConfigError, match="reads one input of the kind 'image'"):
        ModMoE(TASKS, None, inputs=table_input(3))
    with pytest.raises(ConfigError, match="`mutual_information` must be at least 0; got -1"):
        build(mutual_information=-1)
    with pytest.raises(ConfigError, match="`attention_top_k` must be from 1 to `attention_experts`; got 5 of 4"):
        build(attention_top_k=5)
    with pytest.raises(ConfigError, match="`top_k` must be from 1"):
        build(top_k=9)
    with pytest.raises(ConfigError, match="`every` must be"):
        build(every=3)


def test_a_new_task_is_where_the_model_is() -> None:
    model = build().double()
    model.add_task(NEW)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    elsewhere = build().to("meta")
    elsewhere.add_task(NEW)
    assert {parameter.device.type for parameter in elsewhere.parameters()} == {"meta"}
