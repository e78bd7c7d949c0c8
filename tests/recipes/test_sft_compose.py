from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from graftwork.claims.arm_context import ArmContext
from graftwork.claims.plan_arms import card_plan
from graftwork.domains.text.token_encoder import TokenEncoder
from graftwork.methods.tuning.adapter import Adapters
from graftwork.methods.tuning.language_adapters import LanguageAdapters
from graftwork.methods.tuning.sft_compose import SparseFineTuning
from graftwork.nn.weight_delta import WeightDelta
from graftwork.recipes.tuning.kindred_world import SOURCE, TARGETS, encoder_component, kindred_world, task_suite
from graftwork.recipes.tuning.sft_compose import (
    ADAPTER,
    ARMS,
    INVERTIBLE,
    LANGUAGE_NUMBERS,
    RECIPE,
    TASK_ADAPTER,
    TASK_NUMBERS,
    composed,
    task_plan,
)

WORLD = kindred_world(0)


def encoder(base: Path) -> TokenEncoder:
    built: TokenEncoder = encoder_component(WORLD, weights=base / "encoder.safetensors").build(seam=TokenEncoder)
    return built


@pytest.fixture
def base(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = encoder_component(WORLD, weights="").build(seam=TokenEncoder)
    save_file(model.state_dict(), tmp_path / "encoder.safetensors")
    return tmp_path


def smoke_context(tmp_path: Path) -> ArmContext:
    arm = RECIPE.arm("lt-sft")
    return ArmContext(
        slug="sft-compose", arm=arm.name, access=arm.access.parts(), seed=0, smoke=True, work=tmp_path, shared=tmp_path
    )


def test_arms_have_as_many_numbers_as_adapters(base: Path) -> None:
    for tuner, numbers in (
        (LanguageAdapters(bottleneck=ADAPTER, invertible=INVERTIBLE), LANGUAGE_NUMBERS),
        (Adapters(bottleneck=TASK_ADAPTER), TASK_NUMBERS),
    ):
        tuner.attach(encoder(base))
        assert sum(item.numel() for item in tuner.trainable()) == numbers


def test_the_task_of_the_first_arm_is_the_plan_of_the_card(base: Path) -> None:
    component = encoder_component(WORLD, weights=base / "encoder.safetensors")
    plan, card = task_plan("sft", component, {"select": "all"}).train, card_plan("sft-compose").train
    assert plan.tuning is not None
    assert card.tuning is not None
    assert plan.tuning.path == card.tuning.path
    assert plan.backbone == component
    adapters = task_plan("madx", component, {"bottleneck": 2}).train.tuning
    assert adapters is not None
    assert adapters.resolve(Adapters) is Adapters


def test_a_task_goes_to_another_language_without_the_source(base: Path) -> None:
    inputs = {"tokens": torch.randint(3, WORLD.num_tokens, (4, 10))}

    def learned(seed: int, **settings: object) -> tuple[WeightDelta, WeightDelta]:
        tuner = SparseFineTuning(select="random", k=50, seed=seed, **settings)  # type: ignore[arg-type]
        tuner.attach(encoder(base))
        with torch.no_grad():
            for parameter in tuner.trainable():
                parameter.copy_(torch.randn_like(parameter))
        return tuner.delta(), tuner.learned()

    source, target = learned(1)[0], learned(2)[0]
    source.save(base / f"{SOURCE}.safetensors")
    target.save(base / f"{TARGETS[0]}.safetensors")
    tuned, task = learned(3, start=source)
    found = composed("sft", base, WORLD, tuned, base, TARGETS[0]).eval()(inputs)
    expected = encoder(base)
    with torch.no_grad():
        for delta in (task, target):
            for name in delta.names():
                expected.get_parameter(name).add_(delta.tensor(name))
    torch.testing.assert_close(found, expected.eval()(inputs), rtol=1e-4, atol=1e-4)
    alone = composed("sft", base, WORLD, tuned, None, TARGETS[0]).eval()(inputs)
    assert not torch.allclose(alone, found, atol=1e-2)


def test_adapters_of_a_task_stand_around_those_of_the_target(base: Path) -> None:
    inputs = {"tokens": torch.randint(3, WORLD.num_tokens, (4, 10))}
    for number in (SOURCE, TARGETS[0]):
        language = LanguageAdapters(bottleneck=2, invertible=2)
        language.attach(encoder(base))
        with torch.no_grad():
            for parameter in language.trainable():
                parameter.copy_(0.3 * torch.randn_like(parameter))
        language.delta().save(base / f"{number}.safetensors")

    def on(number: int) -> tuple[TokenEncoder, Adapters]:
        files = [base / f"{number}.safetensors"]
        model = encoder_component(WORLD, weights=base / "encoder.safetensors", deltas=files).build(seam=TokenEncoder)
        tuner = Adapters(bottleneck=3)
        tuner.attach(model)
        return model, tuner

    _, tuner = on(SOURCE)
    expected, other = on(TARGETS[0])
    with torch.no_grad():
        for parameter, own in zip(tuner.trainable(), other.trainable(), strict=True):
            parameter.copy_(torch.randn_like(parameter))
            own.copy_(parameter)
    found = composed("madx", base, WORLD, tuner.delta(), base, TARGETS[0])
    torch.testing.assert_close(found.eval()(inputs), expected.eval()(inputs), rtol=1e-4, atol=1e-4)


def test_labels_come_from_the_source_and_no_test_sentence_is_trained_on(tmp_path: Path) -> None:
    suite = task_suite(WORLD, "tags", SOURCE, smoke_context(tmp_path))
    own = {*WORLD.languages[SOURCE].words.tolist(), *WORLD.languages[SOURCE].affixes}
    assert set(np.unique(suite.inputs["tokens"][suite.splits["train"]]).tolist()) - {0, 1} <= own
    for target in TARGETS:
        language = WORLD.languages[target]
        seen = set(np.unique(suite.inputs["tokens"][suite.splits[f"test-{target}"]]).tolist()) - {0, 1}
        assert seen <= {*language.words.tolist(), *language.affixes}
        assert not np.array_equal(
            suite.inputs["tokens"][suite.splits[f"test-{target}"]], suite.inputs["tokens"][suite.splits[f"dev-{target}"]]
        )


def test_every_tuned_arm_has_as_many_trials() -> None:
    assert RECIPE.pilot is not None
    assert {len(RECIPE.pilot.trials(arm)) for arm in RECIPE.pilot.grids} == {9}
    labelled = {arm.name for arm in ARMS if arm.access.target_labels}
    assert labelled == {"bound"}
