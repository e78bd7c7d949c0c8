"""Plans and their stages: typed, plain data, every problem at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core import stages
from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.core.plan import Plan
from graftwork.core.stages import stage_class, stage_kinds
from graftwork.core.stages.train import TrainStage

SHORT: dict[str, Any] = {"name": "p", "title": "t", "role": "joint", "modalities": ["table"]}
OLD: dict[str, Any] = {
    "name": "mine",
    "title": "Mine",
    "family": "balancing",
    "modalities": ["table", "text"],
    "source": "scratch",
    "learner": {"path": "graftwork.training.learner:NeuralLearner", "settings": {}},
    "sharing": {"path": "graftwork.methods.sharing.ple:PLE", "settings": {"num_experts": 3}},
    "tuning": None,
    "optimization": {"path": "a.b:C", "settings": {}},
    "objectives": [{"path": "d:E", "settings": {"x": [1, 2]}}],
    "transforms": [],
    "training": {"batch_size": 8},
    "min_tasks": 2,
    "shuffled_control": False,
    "system": "mine",
}
"""A plan as version 0.1 wrote it into ``run.json``."""


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


components = st.builds(
    Component,
    st.from_regex(r"[a-z]+\.[a-z]+:[A-Z][a-z]*", fullmatch=True),
    st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=3) | st.lists(st.booleans(), max_size=2), max_size=3),
)
train_stages = st.builds(
    TrainStage,
    sharing=components,
    tuning=st.none() | components,
    optimization=components,
    objectives=st.lists(components, max_size=2).map(tuple),
    transforms=st.lists(components, max_size=2).map(tuple),
    training=st.dictionaries(st.sampled_from(["batch_size", "max_steps"]), st.integers(1, 9)),
)


@given(
    st.builds(
        Plan,
        name=st.text(min_size=1, max_size=5).filter(lambda text: bool(text.strip())),
        title=st.text(max_size=5),
        role=st.sampled_from(["reference", "joint", "independent"]),
        modalities=st.lists(st.sampled_from(["table", "image", "text"]), min_size=1, max_size=3).map(tuple),
        stages=st.lists(train_stages, min_size=1, max_size=3).map(tuple),
        group=st.text(max_size=4),
        source=st.sampled_from(["scratch", "pretrained"]),
        min_tasks=st.integers(1, 4),
        shuffled_control=st.booleans(),
    )
)
def test_plans_survive_json(plan: Plan) -> None:
    assert Plan.from_json(through_json(plan.to_json())) == plan


def test_one_training_stage_may_be_written_in_short() -> None:
    short = Plan.from_json({**SHORT, "sharing": "a.b:C", "training": {"batch_size": 4}})
    long = Plan.from_json({**SHORT, "stages": [{"kind": "train", "sharing": "a.b:C", "training": {"batch_size": 4}}]})
    assert short == long
    assert short.stages == (TrainStage(sharing=Component("a.b:C"), training={"batch_size": 4}),)
    assert Plan.from_json(SHORT).stages == (TrainStage(),)


@pytest.mark.parametrize(
    ("family", "role"),
    [
        *(("separate", "reference"), ("sharing", "joint"), ("balancing", "joint"), ("tuning", "joint")),
        *(("trees", "independent"), ("frozen", "independent")),
    ],
)
def test_family_is_read_as_role_and_group(family: str, role: str) -> None:
    plan = Plan.from_json({**{key: SHORT[key] for key in ("name", "title", "modalities")}, "family": family})
    assert (plan.role, plan.group) == (role, family)
    assert "family" not in plan.to_json()


def test_a_plan_of_an_older_run_is_read() -> None:
    plan = Plan.from_json(OLD)
    assert (plan.role, plan.group, plan.min_tasks, plan.shuffled_control) == ("joint", "balancing", 2, False)
    assert plan.train.sharing == Component("graftwork.methods.sharing.ple:PLE", {"num_experts": 3})
    assert plan.train.objectives == (Component("d:E", {"x": [1, 2]}),)
    assert plan.train.training == {"batch_size": 8}
    assert Plan.from_json(through_json(plan.to_json())) == plan


def test_all_problems_come_at_once_with_the_nearest_match() -> None:
    wrong = {
        "name": "",
        "titel": "T",
        "role": "jiont",
        "modalities": ["tabel", "text"],
        "source": "pretraind",
        "min_tasks": 0,
        "sharing": 3,
        "objectives": "a:B",
        "training": ["x"],
        "shuffled_control": 1,
        "optimizaton": "a:B",
    }
    with pytest.raises(ConfigError) as caught:
        Plan.from_json(wrong)
    text = str(caught.value)
    for part in (
        "unknown key 'titel'. Did you mean 'title'?",
        "unknown key 'optimizaton'. Did you mean 'optimization'?",
        "missing key 'title'",
        "name must be a text that is not empty; got ''",
        "role must be one of reference, joint, independent; got 'jiont'. Did you mean 'joint'?",
        "modalities must be of any, image, series, table, text; got 'tabel'. Did you mean 'table'?",
        "source must be scratch or pretrained; got 'pretraind'",
        "min_tasks must be an integer of at least 1; got 0",
        "shuffled_control must be true or false; got 1",
        "sharing: A component is a text 'package.module:Name'",
        "objectives: takes a list of components; got 'a:B'",
        "training: takes an object of names and values; got ['x']",
    ):
        assert part in text, part
    assert len(caught.value.problems) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": None}, "missing key 'role'"),
        ({"family": "trees"}, "family is an older word"),
        ({"role": None, "family": "sharng"}, r"got 'sharng'\. Did you mean 'sharing'"),
        ({"role": None, "family": 3}, "got 3"),
        ({"modalities": "table"}, "modalities must be a list"),
        ({"modalities": []}, "at least one of"),
        ({"stages": []}, "stages must be a list of at least one object"),
        ({"stages": ["train"]}, "stages must be a list of at least one object"),
        ({"stages": [{}]}, "stage 1: unknown kind of stage None. Known kinds: .*train"),
        ({"stages": [{"kind": "trian"}]}, r"stage 1: unknown kind of stage 'trian'\. Did you mean 'train'"),
        ({"stages": [{"kind": "__init__"}]}, "unknown kind of stage"),
        ({"stages": [{"kind": "train", "shraing": "a:B"}]}, r"stage 1: unknown key 'shraing'\. Did you mean 'sharing'"),
        ({"stages": [{"kind": "train"}], "sharing": "a:B"}, "sharing: with `stages`, components belong into a stage"),
        ({"sharing": None}, "sharing: takes a component; leave the key out"),
        ({"group": 3}, "group must be a text"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], message: str) -> None:
    value = {key: item for key, item in {**SHORT, **change}.items() if item is not None or key == "sharing"}
    with pytest.raises(ConfigError, match=message) as caught:
        Plan.from_json(value)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("value", [3, None, [], "plan"])
def test_what_is_no_object_is_no_plan(value: object) -> None:
    with pytest.raises(ConfigError, match="a plan is an object"):
        Plan.from_json(value)  # type: ignore[arg-type]


def test_a_stage_is_replaced_and_the_plan_stays() -> None:
    plan = Plan.from_json(OLD)
    changed = plan.with_train(sharing=Component("x:Y"))
    assert changed.train.sharing == Component("x:Y")
    assert changed.train.objectives == plan.train.objectives
    assert changed.with_train(sharing=plan.train.sharing) == plan


KIND = """
from dataclasses import dataclass, field
from typing import ClassVar
from graftwork.core.components import Component
from graftwork.core.stage import Stage, place

@dataclass(frozen=True, kw_only=True, slots=True)
class BlendStage(Stage):
    kind: ClassVar[str] = "blend"
    merger: Component = field(default=Component("graftwork.methods.merging.ties:TiesMerger"), metadata=place("merger:Merger"))
    share: float = 0.5

STAGE = BlendStage
"""


@pytest.fixture
def blend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A new kind of stage: one new module, and no other file is touched."""
    (tmp_path / "blend.py").write_text(KIND, encoding="utf-8")
    monkeypatch.setattr(stages, "__path__", [*stages.__path__, str(tmp_path)])
    yield
    sys.modules.pop("graftwork.core.stages.blend", None)


def test_a_new_kind_of_stage_is_one_new_module(blend: None) -> None:
    assert set(stage_kinds()) == {"blend", "merge", "train"}
    plan = Plan.from_json({**SHORT, "stages": [{"kind": "train"}, {"kind": "blend", "share": 0.25, "merger": {"path": "a.b:C"}}]})
    assert [stage.kind for stage in plan.stages] == ["train", "blend"]
    assert isinstance(plan.stages[1], stage_class("blend"))
    assert plan.stages[1].to_json() == {"kind": "blend", "merger": {"path": "a.b:C", "settings": {}}, "share": 0.25}
    assert Plan.from_json(through_json(plan.to_json())) == plan
    assert [label for label, _, _ in plan.components()][-1] == "stage 2 (blend), merger"
    with pytest.raises(ConfigError, match=r"stage 1: unknown key 'shaer'\. Did you mean 'share'"):
        Plan.from_json({**SHORT, "stages": [{"kind": "blend", "shaer": 1}]})


def test_a_plan_without_training_says_so(blend: None) -> None:
    plan = Plan.from_json({**SHORT, "stages": [{"kind": "blend"}]})
    with pytest.raises(ConfigError, match=r"Plan 'p' has no training stage; its stages are \['blend'\]"):
        _ = plan.train


def test_kinds_that_are_read_only_together() -> None:
    plan = Plan.from_json({**SHORT, "modalities": ["text", "table + text"]})
    assert plan.fits(["text"])
    assert plan.fits(["table", "text"])
    assert plan.fits(["text", "table"])
    assert not plan.fits(["table"])
    assert not plan.fits(["image", "text"])
    assert Plan.from_json(plan.to_json()) == plan
    with pytest.raises(ConfigError, match=r"modalities must be of .*got 'table \+ teksts'"):
        Plan.from_json({**SHORT, "modalities": ["table + teksts"]})
