from __future__ import annotations

import copy

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input, table_input
from graftwork.core.records import TaskSpec
from graftwork.evaluation.probes import flops_per_sample
from graftwork.interfaces.controllable import Configuration
from graftwork.methods.sharing.ecmt import ECMT

TASKS = (
    TaskSpec(name="parts", kind="dense_multiclass", size=3),
    TaskSpec(name="edges", kind="dense_binary", size=1),
    TaskSpec(name="kind", kind="multiclass", size=4),
)
SIZES = image_input(16)
MIXED = Configuration(0.5, {"parts": 1.0, "edges": 0.25, "kind": 0.75})


def build(**settings: object) -> ECMT:
    torch.manual_seed(0)
    return ECMT(TASKS, inputs=SIZES, channels=(16, 16, 32, 32), decoder_width=16, **settings).eval()


def rows(count: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.randint(0, 256, (count, 16, 16, 3), dtype=torch.uint8, generator=generator)}


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_slices_equal_the_slimmed_network_and_cost_what_is_said(norm: str) -> None:
    model = build(norm=norm)
    for configuration in (model.full, model.uniform(0.25), MIXED):
        network = model.slice(configuration)
        with model.configured(configuration):
            outputs = model(rows())
        for name, output in network(rows()).items():
            assert torch.equal(output, outputs[name])
        assert model.flops(configuration) == flops_per_sample(network, rows())
    assert model.configuration == model.full
    smallest = sum(parameter.numel() for parameter in model.slice(model.uniform(0.25)).parameters())
    assert smallest < 0.15 * sum(parameter.numel() for parameter in model.parameters())


def test_wider_parts_cost_more() -> None:
    model = build()
    for wider, narrower in (
        (model.full, Configuration(0.75, model.full.decoders)),
        (model.full, Configuration(1.0, {**model.full.decoders, "edges": 0.75})),
        (Configuration(0.5, model.full.decoders), model.uniform(0.5)),
    ):
        assert model.flops(wider) > model.flops(narrower)


@pytest.mark.parametrize("importance", [None, {"edges": 5.0}, {"parts": 0.0, "kind": 2.0}])
@pytest.mark.parametrize("budget", [0.15, 0.3, 0.5, 0.8, 1.0])
def test_the_widest_encoder_within_the_budget(budget: float, importance: dict[str, float] | None) -> None:
    model = build()
    limit = budget * model.flops(model.full)
    chosen = model.configure(budget=budget, importance=importance)
    assert model.configuration == chosen
    assert model.flops(chosen) <= limit
    wider = [ratio for ratio in model.ratios if ratio > chosen.encoder]
    assert all(model.flops(Configuration(ratio, chosen.decoders)) > limit for ratio in wider)
    weights = {name: (importance or {}).get(name, 1.0) for name in model.task_names}
    for more in weights:
        assert all(chosen.decoders[more] >= chosen.decoders[less] for less in weights if weights[more] > weights[less])
    assert budget < 1.0 or importance or chosen == model.full


def test_importance_follows_the_rule_while_the_budget_lasts() -> None:
    model = build()
    chosen = model.choose(importance={"parts": 0.8, "edges": 0.4, "kind": 0.1})
    assert chosen == Configuration(1.0, {"parts": 1.0, "edges": 0.5, "kind": 0.25})


def test_configuring_changes_no_weight_and_full_comes_back() -> None:
    model = build()
    before, state = model(rows()), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.configure(budget=0.3)
    assert not torch.equal(model(rows())["parts"], before["parts"])
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    model.set_configuration(model.full)
    assert torch.equal(model(rows())["parts"], before["parts"])


def test_an_error_inside_the_block_restores_the_configuration() -> None:
    model = build()
    with pytest.raises(RuntimeError), model.configured(MIXED):
        raise RuntimeError
    assert model.configuration == model.full


def test_copies_have_a_configuration_of_their_own() -> None:
    model = build()
    twin = copy.deepcopy(model)
    twin.set_configuration(MIXED)
    assert model.configuration == model.full
    assert torch.equal(twin.slice(model.full)(rows())["kind"], model(rows())["kind"])


def test_tables_are_slimmed_too() -> None:
    tasks = (TaskSpec(name="price", kind="regression", size=1), TaskSpec(name="late", kind="binary", size=1))
    model = ECMT(tasks, inputs=table_input(3, [4]), channels=(32, 32))
    chosen = model.configure(budget=0.4, importance={"price": 3.0})
    assert chosen.decoders["price"] >= chosen.decoders["late"]
    table = {"numeric": torch.randn(5, 3), "categorical": torch.randint(0, 4, (5, 1))}
    for name, output in model.slice()(table).items():
        assert torch.equal(output, model(table)[name])


def test_projections_are_for_slim_widths_only() -> None:
    model = build()
    assert torch.equal(model.project(features := model.encode(rows())), features)
    with model.configured(model.uniform(0.25)):
        slim = model.encode(rows())
        wide = model.project(slim)
    assert slim.shape[1] == 8
    assert wide.shape == features.shape
    expected = torch.einsum("oc,bchw->bohw", model.projections[0].weight, slim)
    torch.testing.assert_close(wide, expected)
    bare = build(projection=False)
    with bare.configured(bare.uniform(0.5)), pytest.raises(ConfigError, match="built without projections"):
        bare.project(bare.encode(rows()))


def test_what_cannot_be_is_refused() -> None:
    model = build()
    with pytest.raises(ConfigError, match="the largest of which is 1"):
        build(ratios=(0.5,))
    with pytest.raises(ConfigError, match="No configuration costs as little as 0.001"):
        model.choose(budget=0.001)
    for importance in ({"colour": 1.0}, {"kind": -1.0}, dict.fromkeys(model.task_names, 0.0)):
        with pytest.raises(ConfigError, match="a weight of at least 0"):
            model.choose(importance=importance)
    for wrong in (Configuration(0.3, model.full.decoders), Configuration(1.0, {"parts": 1.0})):
        with pytest.raises(ConfigError, match="a ratio of"):
            model.set_configuration(wrong)
    with pytest.raises(ConfigError, match="no pictures"):
        ECMT(TASKS, inputs=table_input(3))
