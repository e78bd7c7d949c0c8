from __future__ import annotations

from typing import Any

import pytest
import torch
from small_runs import small_model, small_plan, small_suite

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input
from graftwork.core.records import Component, Plan, TaskSpec
from graftwork.core.stages.train import TrainStage
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.training.assembly import ComposedModel, FeatureInput, Front, assemble, default_settings
from graftwork.training.config import TrainConfig
from graftwork.workflows.plan_check import plan_problems

SUITE = small_suite()


def test_a_composed_model_asks_the_backbone_once_for_all_tasks() -> None:
    calls: list[int] = []

    class Counting(TableBackbone):
        def forward(self, inputs):  # type: ignore[no-untyped-def]
            calls.append(1)
            return super().forward(inputs)

    plan = small_plan("separate")
    inner = plan.train.sharing.build(SUITE.tasks, lambda: FeatureInput(128), inputs={})
    front = Front("features", SUITE.only_input, Counting(4, [3]))
    model = ComposedModel([front], inner)
    batch = {name: torch.from_numpy(array[:5]) for name, array in SUITE.inputs.items()}
    assert set(model(batch)) == set(SUITE.task_names)
    assert len(calls) == 1
    assert list(model(batch, ["level"])) == ["level"]
    owned = {id(p) for task in SUITE.task_names for p in model.task_parameters(task)}
    assert {id(p) for p in model.shared_parameters()} == {id(p) for p in front.backbone.parameters()}
    assert owned == {id(p) for p in inner.parameters()}


def test_dense_tasks_ask_for_a_map_that_is_never_stored() -> None:
    tasks = (TaskSpec(name="depth", kind="dense_regression", size=1),)
    plan = small_plan(tuning=Component("graftwork.methods.tuning.frozen:Frozen"), modalities=("image",))
    built = assemble(plan, tasks, image_input(16))
    assert not built.fronts
    assert built.deployable(built.model) is built.model
    outputs = built.model({"image": torch.zeros(2, 16, 16, 3, dtype=torch.uint8)})
    assert outputs["depth"].shape == (2, 1, 16, 16)


def test_every_backbone_of_separate_models_is_tuned() -> None:
    lora = Component("graftwork.methods.tuning.lora:LoRA", {"r": 2, "target_modules": "all-linear"})
    built = assemble(small_plan("separate", tuning=lora), SUITE.tasks, SUITE.input_specs)
    inside = {name: parameter for name, parameter in built.model.named_parameters() if name.startswith("backbones")}
    learned = {name: parameter for name, parameter in inside.items() if parameter.requires_grad}
    assert {name.split(".")[1] for name in learned} == {"0", "1", "2"}
    assert all(2 in parameter.shape for parameter in learned.values()), "only matrices of rank 2"
    assert len(learned) < len(inside)


def test_defaults_are_valid_and_gentle_to_pretrained_weights() -> None:
    for kind in ("table", "image", "text"):
        for pretrained, stored, share in ((False, False, 1.0), (True, True, 1.0), (True, False, 0.05), (True, False, 1.0)):
            settings = default_settings([kind], pretrained=pretrained, stored=stored, trained_share=share)
            config = TrainConfig.from_settings(settings)
            assert (config.backbone_lr_scale < 1.0) == (pretrained and not stored and share > 0.5)


def test_a_model_without_front_is_its_own_deployment() -> None:
    built = assemble(small_plan(), SUITE.tasks, SUITE.input_specs)
    other = small_model(SUITE)
    assert built.deployable(other) is other


class Chosen(ConvBackbone):
    """A trunk that somebody chose."""


def test_a_chosen_backbone_is_never_replaced_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    """ECMT builds its own slimmable trunk; M3ViT needs the blocks of a transformer; both say that they cannot take another
    one."""
    tasks, sizes = (
        (TaskSpec(name="colour", kind="multiclass", size=3), TaskSpec(name="size", kind="binary", size=1)),
        image_input(16),
    )
    monkeypatch.setattr("graftwork.training.assembly.build_backbone", lambda name, spec, **options: Chosen(16))

    def build(path: str, source: Any = "pretrained", **settings: Any) -> Any:
        stage = TrainStage(sharing=Component(path, settings))
        plan = Plan(name="shared", title="", role="joint", modalities=("image",), source=source, stages=(stage,))
        return assemble(plan, tasks, sizes, backbone="chosen")

    assert isinstance(build("graftwork.methods.sharing.shared_trunk:SharedTrunk").model, SharedModel)
    with pytest.raises(
        ConfigError, match="Plan 'shared': ECMT builds a trunk of its own and would leave the backbone 'chosen' unused"
    ):
        build("graftwork.methods.sharing.ecmt:ECMT")
    for operator in ("m3vit:M3ViT", "mod_moe:ModMoE", "taskexpert:TaskExpert"):
        with pytest.raises(ConfigError, match="works on the blocks of a trunk, and Chosen has none"):
            build(f"graftwork.methods.sharing.{operator}")


OSNET = Component(
    "graftwork.nn.backbones.osnet:OSNet", {"widths": [4, 8, 8, 8], "depths": [1, 1, 1], "stem": "small", "feature_width": 6}
)


def test_a_plan_from_scratch_may_name_its_trunk() -> None:
    task, inputs = TaskSpec(name="colour", kind="multiclass", size=3), image_input(16)
    plan = Plan(name="named", title="", role="joint", modalities=("image",), stages=(TrainStage(backbone=OSNET),))
    assert Plan.from_json(plan.to_json()) == plan
    assert plan_problems(plan) == []
    model = assemble(plan, [task], inputs).model
    assert type(model.backbone).__name__ == "OSNet"
    assert model({"image": torch.zeros(2, 16, 16, 3, dtype=torch.uint8)})["colour"].shape == (2, 3)
    wrong = plan.with_train(backbone=Component(OSNET.path, {"streems": 2}))
    assert "has no setting 'streems'. Did you mean 'streams'?" in plan_problems(wrong)[0]
    with pytest.raises(
        ConfigError, match="ECMT builds a trunk of its own and would leave the backbone 'graftwork.nn.backbones.osnet:OSNet'"
    ):
        assemble(plan.with_train(sharing=Component("graftwork.methods.sharing.ecmt:ECMT")), [task], inputs)


def test_a_named_trunk_beside_a_pretrained_source_is_refused() -> None:
    stage = TrainStage(backbone=OSNET)
    plan = Plan(name="both", title="", role="joint", modalities=("image",), source="pretrained", stages=(stage,))
    assert plan_problems(plan) == ['backbone names an untrained trunk, so source must be scratch; got "pretrained"']
    with pytest.raises(ConfigError, match="Plan 'both' names an untrained backbone .* and starts from a pretrained one as well"):
        assemble(plan, [TaskSpec(name="colour", kind="multiclass", size=3)], image_input(16), backbone="chosen")
