"""What tuning added to a pretrained backbone is kept, and makes a fresh base what was deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import small_learner, small_plan, small_suite
from torch import nn

from graftwork.core.records import Component
from graftwork.data.loader import inputs_to_torch
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.nn.weight_delta import WeightDelta
from graftwork.training import assembly
from graftwork.training.assembly import FeatureInput
from graftwork.training.model_loading import load_model

SUITE = small_suite()
LORA = Component("graftwork.methods.tuning.lora:LoRA", {"r": 2, "target_modules": "all-linear"})
FULL = Component("graftwork.methods.tuning.full:FullTuning")
NORMS = Component("graftwork.methods.tuning.bn_only:BatchNormOnly")
FROZEN = Component("graftwork.methods.tuning.frozen:Frozen")


class NormedBackbone(TableBackbone):
    """A trunk with a BatchNorm layer at its end, whose running statistics move in training."""

    def __init__(self) -> None:
        super().__init__(4, [3], width=16, num_blocks=1)
        self.ending = nn.BatchNorm1d(self.feature_shape.width)

    def forward(self, inputs: Any) -> torch.Tensor:
        return self.ending(super().forward(inputs))  # type: ignore[no-any-return]


def fresh_base() -> NormedBackbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return NormedBackbone()


@pytest.fixture(autouse=True)
def _pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "build_backbone", lambda *_, **__: fresh_base())


def features(backbone: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return backbone.eval()(inputs_to_torch(SUITE.inputs, SUITE.splits["test"]))  # type: ignore[no-any-return]


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("tuning", [LORA, FULL, NORMS], ids=["lora", "full", "norms"])
def test_the_written_delta_makes_a_fresh_base_what_is_deployed(tmp_path: Path, tuning: Component, ema: float) -> None:
    plan = small_plan(source="pretrained", tuning=tuning)
    overrides = {"ema_decay": ema, "learning_rate": 0.02}
    learner = small_learner(SUITE, tmp_path, plan, backbone="own", overrides=overrides, max_steps=12)
    learner.train(12)
    learner.export(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").glob("delta*")) == ["delta.safetensors"]
    delta = WeightDelta.load(tmp_path / "model" / "delta.safetensors")
    deployed, _, _ = load_model(tmp_path / "model")
    base = fresh_base()
    before = features(base)
    assert delta.base_fingerprint == base.fingerprint()
    delta.attach(base)
    expected = features(deployed.get_submodule("backbone"))
    torch.testing.assert_close(features(base), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, expected, rtol=1e-2, atol=1e-2)
    delta.detach()
    assert torch.equal(features(base), before)


def test_the_delta_says_what_it_was_made_by(tmp_path: Path) -> None:
    plan = small_plan(source="pretrained", tuning=LORA)
    learner = small_learner(SUITE, tmp_path, plan, backbone="own", seed=3)
    learner.train(5)
    learner.export(tmp_path / "model")
    lineage = WeightDelta.load(tmp_path / "model" / "delta.safetensors").lineage
    assert lineage["plan"] == plan.to_json()
    wanted = {"tuner": "LoRA", "seed": 3, "step": 5, "backbone": "own", "suite": "small"}
    assert {key: lineage[key] for key in wanted} == wanted
    assert lineage["base_fingerprint"] == fresh_base().fingerprint()


def test_the_delta_is_that_of_the_best_weights_after_a_restart(tmp_path: Path) -> None:
    plan = small_plan(source="pretrained", tuning=FULL)
    whole = small_learner(SUITE, tmp_path, plan, backbone="own")
    whole.train(20)
    whole.save(tmp_path / "checkpoint")
    again = small_learner(SUITE, tmp_path, plan, backbone="own")
    again.load(tmp_path / "checkpoint")
    (prefix, one), (same_prefix, two) = *whole.deltas().items(), *again.deltas().items()
    assert prefix == same_prefix == "backbone"
    assert list(one.names()) == list(two.names())
    assert all(torch.equal(one.tensor(name), two.tensor(name)) for name in one.names())
    state = whole.best_model.get_submodule("backbone").state_dict()
    base = fresh_base().state_dict()
    assert all(torch.equal(one.tensor(name), state[name] - base[name]) for name in one.names())


def test_separate_models_have_a_delta_each_named_after_its_task(tmp_path: Path) -> None:
    plan = small_plan("separate", source="pretrained", tuning=LORA)
    learner = small_learner(SUITE, tmp_path, plan, backbone="own")
    learner.train(5)
    assert list(learner.deltas()) == ["backbones.0", "backbones.1", "backbones.2"]
    learner.export(tmp_path / "model")
    files = {path.name: WeightDelta.load(path) for path in (tmp_path / "model").glob("delta*")}
    assert set(files) == {f"delta-{name}.safetensors" for name in SUITE.task_names}
    base = fresh_base()
    files["delta-level.safetensors"].attach(base)
    deployed, _, _ = load_model(tmp_path / "model")
    torch.testing.assert_close(features(base), features(deployed.get_submodule("backbones.1")), rtol=1e-5, atol=1e-5)


def test_names_of_tasks_never_leave_the_folder(tmp_path: Path) -> None:
    renamed = [
        type(task)(**{**task.to_json(), "name": name}) for task, name in zip(SUITE.tasks, ("../a", "..:a", "c"), strict=True)
    ]
    suite = SUITE.of_arrays(
        name="odd",
        input_specs=SUITE.input_specs,
        tasks=renamed,
        inputs=SUITE.inputs,
        targets={task.name: values for task, values in zip(renamed, SUITE.targets.values(), strict=True)},
        splits=SUITE.splits,
    )
    learner = small_learner(suite, tmp_path, small_plan("separate", source="pretrained", tuning=LORA), backbone="own")
    from graftwork.export.delta_files import write_deltas

    files = write_deltas(learner.deltas(), learner.best_model, tmp_path / "model")
    assert [path.name for path in files] == ["delta-..-a.safetensors", "delta-..-a-2.safetensors", "delta-c.safetensors"]
    assert {path.parent for path in files} == {tmp_path / "model"}


@pytest.mark.parametrize(
    "fields",
    [{"source": "pretrained", "tuning": FROZEN}, {"source": "pretrained"}, {"tuning": LORA}],
    ids=["frozen", "untuned", "not pretrained"],
)
def test_other_plans_write_none(tmp_path: Path, fields: dict[str, Any]) -> None:
    learner = small_learner(SUITE, tmp_path, small_plan(**fields), backbone="own")
    learner.train(4)
    learner.export(tmp_path / "model")
    assert not list((tmp_path / "model").glob("delta*"))


def test_a_backbone_that_the_operator_took_apart_is_left_to_it() -> None:
    class TakesApart(nn.Module):
        def __init__(self, make: Any) -> None:
            super().__init__()
            self.backbone = make()
            self.backbone.ending = nn.Identity()

    plan = small_plan(source="pretrained", tuning=LORA)
    whole = assembly.assemble(plan, SUITE.tasks, SUITE.input_specs, backbone="own")
    assert [item.prefix for item in whole.tuned] == ["backbone"]
    built: Any = plan.train.tuning
    tuner = built.build()
    trunk = fresh_base()
    tuner.attach(trunk)
    names = list(trunk.state_dict())
    model: Any = TakesApart(lambda: trunk)
    assert not list(assembly._tuned(model, [(trunk, tuner, names)]))
    assert not list(assembly._tuned(nn.ModuleList([FeatureInput(3)]), [(trunk, tuner, names)]))  # type: ignore[arg-type]
