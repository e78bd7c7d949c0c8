from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.adapter import Adapters
from graftwork.methods.tuning.adapter_fusion import FusedAdapters
from graftwork.methods.tuning.lora import LoRA
from graftwork.methods.tuning.norm_only import NormOnly
from graftwork.methods.tuning.scalearn import ScaLearn
from graftwork.nn.adapter_bank import AdapterFusion, ScaledAdapters
from graftwork.nn.adapters import BottleneckAdapter
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.nn.foldable import fold_layers
from graftwork.nn.module_delta import ModuleDelta, load_delta
from graftwork.workflows.tune.methods import find_method, plan_of

WIDTH, PLACES = 8, 2
PICTURES = {"image": torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))}


def trunk() -> ViTBackbone:
    torch.manual_seed(0)
    return ViTBackbone(16, patch=8, width=WIDTH, depth=PLACES, num_heads=2)


def source(seed: int, bottleneck: int = 2, model: nn.Module | None = None, **settings: Any) -> ModuleDelta:
    """Return adapters as if a task had learned them."""
    model = trunk() if model is None else model
    tuner = Adapters(bottleneck=bottleneck, **settings)
    tuner.attach(model)
    generator = torch.Generator().manual_seed(seed)
    for parameter in tuner.trainable():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return tuner.delta()


def attached(**settings: Any) -> tuple[ViTBackbone, ScaLearn]:
    model, tuner = trunk(), ScaLearn(deltas=[source(1), source(2, bottleneck=3), source(3)], **settings)
    tuner.attach(model)
    return model, tuner


def added(tensors: Any, states: Tensor) -> Tensor:
    """Return what one adapter adds, its residual left out."""
    hidden = F.gelu(states @ tensors["down.weight"].T + tensors["down.bias"])
    return hidden @ tensors["up.weight"].T + tensors["up.bias"]


def test_outputs_are_scaled_each_by_its_own_and_the_residual_is_added_once() -> None:
    deltas = [source(1), source(2, bottleneck=3)]
    model, tuner = trunk(), ScaLearn(deltas=deltas, dropout=0.0)
    tuner.attach(model)
    for place, bank in tuner.grafts.items():
        assert isinstance(bank, ScaledAdapters)
        bank.scale.data = torch.randn(2, WIDTH)
        states = torch.randn(3, 4, WIDTH)
        found = bank.adapted(states)
        each = [added(next(graft.tensors for graft in delta.grafts if graft.place == place), states) for delta in deltas]
        expected = states + bank.scale[0] * each[0] + bank.scale[1] * each[1]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("uniform", "share_layers", "numbers"),
    [(False, False, PLACES * 3 * WIDTH), (True, False, PLACES * 3), (False, True, 3 * WIDTH), (True, True, 3)],
)
def test_variants_learn_as_many_numbers_as_the_paper_says(uniform: bool, share_layers: bool, numbers: int) -> None:
    model, tuner = attached(uniform=uniform, share_layers=share_layers)
    assert sum(parameter.numel() for parameter in tuner.trainable()) == numbers
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == numbers
    scales = torch.cat([parameter.detach().flatten() for parameter in tuner.trainable()])
    assert 0.0 < float((scales - 2 / 3).abs().max()) < 0.01, "drawn around two over the number of tasks"


def test_only_scales_move_and_the_paper_drops_some_of_the_plain_variant() -> None:
    model, tuner = attached()
    assert {bank.dropout for bank in tuner.grafts.values()} == {0.3}  # type: ignore[attr-defined]
    assert {bank.dropout for bank in attached(uniform=True)[1].grafts.values()} == {0.0}  # type: ignore[attr-defined]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    optimiser = torch.optim.SGD(tuner.trainable(), lr=0.1)
    model(PICTURES).square().sum().backward()
    optimiser.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.endswith(".scale") for name in moved)


@pytest.mark.parametrize("share_layers", [False, True])
def test_the_delta_holds_the_scales_inside_of_one_wide_adapter(share_layers: bool, tmp_path: Path) -> None:
    model, tuner = attached(share_layers=share_layers, uniform=share_layers)
    for parameter in tuner.trainable():
        parameter.data = torch.randn(parameter.shape)
    expected = model.eval()(PICTURES)
    tuner.delta().save(tmp_path / "delta.safetensors")
    base = trunk().eval()
    loaded = load_delta(tmp_path / "delta.safetensors")
    loaded.attach(base)
    torch.testing.assert_close(base(PICTURES), expected, rtol=1e-4, atol=1e-4)
    assert {graft.component.settings["bottleneck"] for graft in loaded.grafts} == {9}  # type: ignore[attr-defined]
    assert loaded.lineage["sources"][0]["tuner"] == "Adapters"
    folded = copy.deepcopy(model)
    assert fold_layers(folded) == PLACES
    torch.testing.assert_close(folded(PICTURES), expected, rtol=1e-4, atol=1e-4)
    assert any(isinstance(module, BottleneckAdapter) for module in folded.modules())
    with pytest.raises(ConfigError, match="cannot be written into weights"):
        tuner.fold()


def test_maps_have_adapters_of_1x1_convolutions() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("conv-mini", size=32).eval()
    deltas = [source(seed, model=copy.deepcopy(backbone), depth_share=0.1) for seed in (1, 2)]
    model, tuner = copy.deepcopy(backbone), ScaLearn(deltas=deltas, uniform=True, share_layers=True, start=0.5)
    tuner.attach(model)
    next(tuner.trainable()).data.copy_(torch.tensor([[1.0], [0.0]]))
    deltas[0].attach(backbone)
    torch.testing.assert_close(model.eval()(PICTURES), backbone.eval()(PICTURES), rtol=1e-4, atol=1e-4)
    wide = copy.deepcopy(tuner.delta())
    assert all(graft.tensors["up.weight"].ndim == 4 for graft in wide.grafts)


def test_places_of_several_widths_share_one_scale_but_none_for_each_channel() -> None:
    layers = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3))
    deltas = [source(seed, model=copy.deepcopy(layers)) for seed in (1, 2)]
    with pytest.raises(ConfigError, match=r"places of several widths \(3, 6\)\. Take uniform=True"):
        ScaLearn(deltas=deltas, share_layers=True).attach(copy.deepcopy(layers))
    ScaLearn(deltas=deltas, share_layers=True, uniform=True).attach(copy.deepcopy(layers))


def test_fusion_attends_over_outputs_and_begins_as_their_mean_by_attention() -> None:
    deltas = [source(1), source(2)]
    model, tuner = trunk(), FusedAdapters(deltas=deltas)
    tuner.attach(model)
    place, bank = next(iter(tuner.grafts.items()))
    assert isinstance(bank, AdapterFusion)
    states = torch.randn(2, 4, WIDTH)
    each = torch.stack([added(next(g.tensors for g in delta.grafts if g.place == place), states) for delta in deltas], dim=-2)
    query, keys = bank.query(states), bank.key(each)
    weights = torch.softmax(torch.stack([(query * keys[..., task, :]).sum(-1) for task in (0, 1)], dim=-1), dim=-1)
    expected = sum(weights[..., task, None] * bank.value(each[..., task, :]) for task in (0, 1))
    torch.testing.assert_close(bank.combined(states), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bank.value.weight, torch.eye(WIDTH), rtol=0.0, atol=0.01)
    assert sum(parameter.numel() for parameter in tuner.trainable()) == PLACES * (3 * WIDTH**2 + 2 * WIDTH)
    before = trunk().eval()(PICTURES)
    none = tuner.delta().scale(0.0)
    base = trunk().eval()
    none.attach(base)
    torch.testing.assert_close(base(PICTURES), before)


def test_files_are_named_on_the_command_line(tmp_path: Path) -> None:
    for seed in (1, 2):
        source(seed).save(tmp_path / f"{seed}.safetensors")
    files = f"{tmp_path}/1.safetensors, {tmp_path}/2.safetensors"
    for name, numbers in (("scalearn", PLACES * 2 * WIDTH), ("scalearn-uniform-plus", 2), ("adapter-fusion", None)):
        tuner: Any = plan_of(find_method(name, {"deltas": files})).train.tuning.build()  # type: ignore[union-attr]
        tuner.attach(trunk())
        assert numbers in (None, sum(parameter.numel() for parameter in tuner.trainable()))


def test_what_cannot_be_combined_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name their files in `deltas`"):
        ScaLearn().attach(trunk())
    with pytest.raises(ConfigError, match=r"`dropout` must be in \[0, 1\); got 1.0"):
        ScaLearn(deltas=[source(1)], dropout=1.0)
    low_rank = LoRA(r=1)
    low_rank.attach(trunk())
    with pytest.raises(ConfigError, match=r"combines bottleneck adapters, and a delta \(LoRA\) holds a WeightDelta"):
        ScaLearn(deltas=[source(1), low_rank.delta()]).attach(trunk())
    model = trunk()
    norms = NormOnly()
    norms.attach(model)
    next(norms.trainable()).data += 1.0
    with pytest.raises(ConfigError, match="holds a difference of the weight 'blocks.0"):
        ScaLearn(deltas=[ModuleDelta(source(1).grafts, norms.delta())]).attach(trunk())
    with pytest.raises(ConfigError, match="at other places than"):
        ScaLearn(deltas=[source(1), source(2, depth_share=0.5)]).attach(trunk())
    torch.manual_seed(5)
    other = ViTBackbone(16, patch=8, width=WIDTH, depth=PLACES, num_heads=2)
    with pytest.raises(ConfigError, match="made for a base with fingerprint"):
        ScaLearn(deltas=[source(1)]).attach(other)
    tuner = ScaLearn(deltas=[source(1)])
    with pytest.raises(ConfigError, match="attached to no model yet"):
        tuner.delta()
