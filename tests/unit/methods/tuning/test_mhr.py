from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.methods.tuning.adapter import Adapters
from graftwork.methods.tuning.cp_lora import CPLoRA
from graftwork.methods.tuning.lora import LoRA
from graftwork.methods.tuning.mhr import MHR
from graftwork.methods.tuning.mhr_tasks import MultiHeadRouting
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.nn.foldable import fold_layers
from graftwork.nn.module_delta import load_delta
from graftwork.nn.routed_low_rank import FoldableRouted, RoutedLowRank, normalised_routing
from graftwork.workflows.tune.methods import find_method, plan_of

TASKS = tuple(TaskSpec(name=name, kind="binary", size=1) for name in ("a", "b", "c"))
PICTURES = {"image": torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))}


def trunk() -> ViTBackbone:
    torch.manual_seed(0)
    return ViTBackbone(16, patch=8, width=8, depth=2, num_heads=2)


def pretrained(**settings: Any) -> MultiHeadRouting:
    """Return a model as if it had learned: nothing is zero or uniform."""
    model = MultiHeadRouting(TASKS, trunk, inputs=image_input(16), **{"skills": 3, "r": 2, "heads": 2, **settings})
    generator = torch.Generator().manual_seed(1)
    for layer in model.routed_layers().values():
        for parameter in (layer.down, layer.up, layer.routing):
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize("layer", [nn.Linear(4, 6), nn.Conv2d(4, 6, 3, padding=1)], ids=["linear", "convolution"])
def test_parameters_are_mixed_slice_by_slice_and_then_multiplied(layer: nn.Module) -> None:
    torch.manual_seed(0)
    base: Any = copy.deepcopy(layer).requires_grad_(False)
    routed = FoldableRouted(layer, skills=3, rank=2, heads=2, scaling=0.5, tasks=2)
    inputs = torch.randn(2, 4) if isinstance(layer, nn.Linear) else torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(routed(inputs), base(inputs))
    for parameter in (routed.up, routed.routing):
        parameter.data = torch.randn(parameter.shape)
    routed.task = 1
    gates = torch.sigmoid(routed.routing[1])
    alpha = gates / gates.sum(dim=1, keepdim=True)
    skills = [routed.skill(number) for number in range(3)]
    cells = base.weight[0].numel()
    down, up = torch.zeros(2, cells), torch.zeros(6, 2)
    for head in range(2):
        read, written = slice(head * cells // 2, (head + 1) * cells // 2), slice(head * 3, (head + 1) * 3)
        for number, skill in enumerate(skills):
            down[:, read] += alpha[head, number] * skill.down.flatten(1)[:, read]
            up[written] += alpha[head, number] * skill.up.flatten(1)[written]
    base.weight.data = base.weight + 0.5 * (up @ down).detach().view(base.weight.shape)
    torch.testing.assert_close(routed(inputs), base(inputs), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(routed.part().expand(base.weight.shape), 0.5 * (up @ down).view(base.weight.shape))
    torch.testing.assert_close(routed.folded()(inputs), base(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("heads", [1, 2])
def test_outputs_are_those_of_pefts_poly(heads: int) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(2)
    plain = nn.Sequential(nn.Linear(4, 6))
    config = peft.PolyConfig(
        r=2, n_tasks=3, n_skills=5, n_splits=heads, target_modules=["0"], poly_type="poly", init_weights=False
    )
    routed = RoutedLowRank(copy.deepcopy(plain[0]), skills=5, rank=2, heads=heads, scaling=0.5, tasks=3)
    theirs = peft.get_peft_model(plain, config).eval()
    other: Any = theirs.get_submodule("base_model.model.0")
    for parameter in (routed.up, routed.routing):
        parameter.data = torch.randn(parameter.shape)
    # [S, r, K, in / K] -> [K, S, in / K, r], and [S, K, out / K, r] -> [K, S, r, out / K]
    other.poly_lora_A["default"].data.copy_(routed.down.permute(2, 0, 3, 1))
    other.poly_lora_B["default"].data.copy_(routed.up.permute(1, 0, 3, 2))
    other.poly_router["default"].module_logits.data.copy_(routed.routing.flatten(1))
    inputs = torch.randn(3, 4, 4)
    for task in range(3):
        routed.task = task
        expected = other(inputs, task_ids=torch.full((3,), task))
        # peft divides by the rank.
        torch.testing.assert_close(routed(inputs), expected, rtol=1e-4, atol=1e-5)


def test_gates_are_sigmoids_that_sum_to_one() -> None:
    weights = normalised_routing(torch.tensor([[2.0, -1.0, 0.0], [-50.0, -50.0, -50.0]]))
    expected = torch.sigmoid(torch.tensor([2.0, -1.0, 0.0]))
    torch.testing.assert_close(weights[0], expected / expected.sum())
    assert torch.isfinite(weights).all()


def test_tasks_have_mixtures_of_their_own_which_fold(tmp_path: Path) -> None:
    model = pretrained()
    features = model.encode(PICTURES)
    assert isinstance(features, tuple)
    assert not torch.allclose(features[0], features[1])
    for task, expected in zip(model.task_names, features, strict=True):
        base = trunk().eval()
        model.delta(task).save(tmp_path / "delta.safetensors")
        delta = load_delta(tmp_path / "delta.safetensors")
        delta.attach(base)
        delta.fold()
        torch.testing.assert_close(base(PICTURES), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match=r"no task 'aa'. Did you mean 'a'\? The tasks are: a, b, c"):
        model.delta("aa")


def test_training_runs_each_task_on_its_labelled_rows_and_reaches_its_routing_alone() -> None:
    model = pretrained().train()
    mask = {
        "a": torch.tensor([True, False, False]),
        "b": torch.tensor([False, True, True]),
        "c": torch.zeros(3, dtype=torch.bool),
    }
    batch = Batch(inputs=PICTURES, targets={}, mask=mask, rows=torch.arange(3), domain=torch.zeros(3, dtype=torch.int64))
    outputs = model.decode(model.encode_batch(batch))
    full = model(PICTURES)
    for name, rows in mask.items():
        assert outputs[name].shape == (3, 1)
        torch.testing.assert_close(outputs[name][rows], full[name][rows], rtol=1e-4, atol=1e-5)
        rest = ~rows if bool(rows.any()) else torch.tensor([False, True, True])
        assert not bool(outputs[name][rest].any())
    model.zero_grad()
    model(PICTURES, ["b"])["b"].sum().backward()
    gradient = next(iter(model.routed_layers().values())).routing.grad
    assert gradient is not None
    assert [bool(row.any()) for row in gradient] == [False, True, False]
    copy.deepcopy(model)


def test_export_does_not_fold_the_mixture_of_one_task_for_all() -> None:
    model = pretrained()
    model(PICTURES)
    folded = copy.deepcopy(model)
    assert fold_layers(folded) == 0
    for name, output in model(PICTURES).items():
        assert torch.equal(folded(PICTURES)[name], output)


def test_the_graph_holds_the_mixture_of_every_task(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from graftwork.export.onnx_model import export_onnx

    assert export_onnx(pretrained(), TASKS, PICTURES, tmp_path / "model.onnx") < 1e-3


def test_one_routing_can_serve_all_layers() -> None:
    model = pretrained(share_routing=True)
    assert len({id(layer.routing) for layer in model.routed_layers().values()}) == 1
    assert len({id(layer.routing) for layer in pretrained().routed_layers().values()}) > 1


def inventory(folder: Path) -> str:
    files = []
    for number, delta in enumerate(pretrained().skill_deltas()):
        delta.save(folder / f"{number}.safetensors")
        files.append(str(folder / f"{number}.safetensors"))
    return ",".join(files)


@pytest.mark.parametrize("learns", ["all", "routing", "mean"])
def test_a_new_task_begins_from_the_inventory_and_lets_learn_what_is_asked(learns: Any, tmp_path: Path) -> None:
    tuner, model = MHR(inventory=inventory(tmp_path), learns=learns, heads=2), trunk().eval()
    tuner.attach(model)
    source = pretrained()
    for name, layer in source.routed_layers().items():
        layer.routing.data.zero_()  # uniform, as a new row nearly is
        expected = layer.part(0)
        found = tuner.layers[name].part()
        shape = layer.base.weight.shape  # type: ignore[union-attr]
        torch.testing.assert_close(found.expand(shape), expected.expand(shape), rtol=0.05, atol=0.01)  # type: ignore[arg-type]
    names = {name.rpartition(".")[2] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names == {"all": {"down", "up", "routing"}, "routing": {"routing"}, "mean": {"down", "up"}}[learns]
    assert {id(item) for item in tuner.trainable()} == {id(item) for item in model.parameters() if item.requires_grad}
    if learns == "routing":
        assert sum(item.numel() for item in tuner.trainable()) == len(tuner.layers) * 3 * 2
    expected_output = model(PICTURES)
    delta = tuner.delta()
    tuner.fold()
    torch.testing.assert_close(model(PICTURES), expected_output, rtol=1e-4, atol=1e-4)
    base = trunk().eval()
    delta.attach(base)
    torch.testing.assert_close(base(PICTURES), expected_output, rtol=1e-4, atol=1e-4)


def test_the_mean_is_of_a_and_b_apart(tmp_path: Path) -> None:
    tuner, model = MHR(inventory=inventory(tmp_path), learns="mean"), trunk()
    tuner.attach(model)
    name, layer = next(iter(tuner.layers.items()))
    source = pretrained().routed_layers()[name]
    skills = [source.skill(number) for number in range(3)]
    down, up = layer.mixed()
    torch.testing.assert_close(down, torch.stack([skill.down for skill in skills]).mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(up, torch.stack([skill.up for skill in skills]).mean(0), rtol=1e-5, atol=1e-5)


def test_loras_of_other_tasks_are_an_inventory_and_the_shipped_networks_take_it() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("vit-mini").eval()
    inputs = {"image": PICTURES["image"]}
    deltas = []
    for seed in (1, 2):
        model = copy.deepcopy(backbone)
        lora = LoRA(r=2, lora_alpha=2.0 * seed)
        lora.attach(model)
        for parameter in lora.trainable():
            parameter.data = 0.05 * torch.randn(parameter.shape)
        deltas.append(lora.delta())
    model = copy.deepcopy(backbone)
    tuner = MHR(inventory=deltas, learns="all", heads=4)
    tuner.attach(model)
    for layer in tuner.layers.values():
        layer.routing.data[..., 0], layer.routing.data[..., 1] = -30.0, 30.0
    deltas[1].attach(backbone)
    torch.testing.assert_close(model.eval()(inputs), backbone.eval()(inputs), rtol=1e-3, atol=1e-3)
    assert fold_layers(model) == len(tuner.layers)


def test_the_names_of_the_command_line() -> None:
    found = {name: plan_of(find_method(name)).train.tuning for name in ("mhr", "mhr-z", "mhr-mu", "poly", "poly-z")}
    built: Any = {name: component.build() for name, component in found.items() if component is not None}
    assert {name: tuner.learns for name, tuner in built.items()} == {
        "mhr": "all",
        "mhr-z": "routing",
        "mhr-mu": "mean",
        "poly": "all",
        "poly-z": "routing",
    }
    assert {name for name, tuner in built.items() if tuner.heads == 1} == {"poly", "poly-z"}


def test_what_it_cannot_do_is_named() -> None:
    for settings, message in (
        ({"learns": "z"}, "must be one of all, routing, mean; got 'z'"),
        ({"heads": 0}, "at least 1; got 4, 4, 0"),
        ({"lora_alpha": float("inf")}, "must be finite; got inf"),
    ):
        with pytest.raises(ConfigError, match=message):
            MHR(**settings)  # type: ignore[arg-type]
    for learns in ("routing", "mean"):
        with pytest.raises(ConfigError, match="name their files in `inventory`"):
            MHR(learns=learns).attach(trunk())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="3 does not divide a layer from"):
        MHR(heads=3).attach(trunk())
    adapters, cp, low, late = Adapters(bottleneck=2), CPLoRA(r=2), LoRA(r=2), LoRA(r=2, depth_share=0.5)
    deltas = []
    for tuner in (adapters, cp, low, late):
        tuner.attach(trunk())
        deltas.append(tuner.delta())
    for delta, message in (
        (deltas[0], "is a ModuleDelta without differences of weights"),
        (deltas[1], "changes '.*weight', a CP"),
        (deltas[3], "same layers and ranks"),
    ):
        with pytest.raises(ConfigError, match=message):
            MHR(inventory=[deltas[2], delta]).attach(trunk())
    tuner, model = MHR(heads=1), trunk()
    tuner.attach(model)
    with pytest.raises(ConfigError, match="attached to a model already"):
        tuner.attach(trunk())
    with pytest.raises(ConfigError, match="no routed layer"):
        tuner.delta(trunk())
    assert np.isfinite(tuner.delta().count())
