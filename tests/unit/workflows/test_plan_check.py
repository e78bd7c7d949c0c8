"""Plans are checked without building models: paths, places, settings, training keys, all at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from graftwork.cli.main import main
from graftwork.core.components import Component, components_allowed
from graftwork.core.errors import ComponentError, ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.plan import Plan
from graftwork.methods.sharing.ple import PLE
from graftwork.workflows.compare import compare
from graftwork.workflows.fit import fit
from graftwork.workflows.plan_check import check_plans, plan_problems
from graftwork.workflows.portfolio import load_catalogue

SHORT: dict[str, Any] = {"name": "mine", "title": "t", "role": "joint", "modalities": ["table"]}
METHODS = "graftwork.methods"


def plan(**fields: Any) -> Plan:
    return Plan.from_json({**SHORT, **fields})


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        ({}, []),
        (
            {"sharing": f"{METHODS}.sharing.pel:PLE"},
            [rf"sharing: There is no module '{METHODS}.sharing.pel'. Did you mean '{METHODS}.sharing.ple'?"],
        ),
        ({"sharing": f"{METHODS}.sharing.ple:PLEE"}, ["sharing: There is no 'PLEE' in", "Did you mean 'PLE'?"]),
        (
            {"sharing": f"{METHODS}.shraing.ple:PLE"},
            [f"There is no module '{METHODS}.shraing'. Did you mean '{METHODS}.sharing'?"],
        ),
        ({"sharing": f"{METHODS}.optimization.dwa:DynamicWeightAverage"}, ["no component of the seam SharedModel"]),
        ({"tuning": f"{METHODS}.sharing.ple:PLE"}, ["no component of the seam Tuner"]),
        ({"learner": f"{METHODS}.sharing.ple:PLE"}, ["no component of the seam Learner"]),
        (
            {"sharing": {"path": f"{METHODS}.sharing.ple:PLE", "settings": {"num_levls": 2}}},
            ["has no setting 'num_levls'. Did you mean 'num_levels'? Its settings are:"],
        ),
        (
            {"sharing": {"path": f"{METHODS}.sharing.ple:PLE", "settings": {"tasks": []}}},
            ["is given 'tasks' by graftwork; it is no setting"],
        ),
        (
            {"sharing": "graftwork.training.assembly:ComposedModel"},
            ["does not take the argument 'inputs', which graftwork hands it"],
        ),
        (
            {"learner": {"path": "graftwork.domains.tabular.lightgbm:LightGBMLearner", "settings": {"num_leave": 7}}},
            ["has no setting 'num_leave'. Did you mean 'num_leaves'?"],
        ),
        (
            {
                "optimization": {
                    "path": f"{METHODS}.optimization.torchjd_bridge:jacobian_balancer",
                    "settings": {"aggregator": "PCGard"},
                }
            },
            ["There is no gradient aggregator 'PCGard'. Did you mean PCGrad"],
        ),
        (
            {"optimization": {"path": f"{METHODS}.optimization.sam:ASAM", "settings": {"rho": -1.0}}},
            ["optimization: ", "rho"],
        ),
        (
            {"optimization": {"path": f"{METHODS}.optimization.sam:ASAM", "settings": {"balancer": "os:system"}}},
            ["'os:system' is not part of graftwork"],
        ),
        ({"tuning": {"path": f"{METHODS}.tuning.lora:LoRA", "settings": {"rank": 3}}}, ["tuning: ", "has no setting 'rank'"]),
        ({"objectives": ["os:system"]}, ["objectives: The component 'os:system' is not part of graftwork"]),
        ({"training": {"batch_siz": 3}}, ["training: unknown training setting 'batch_siz'. Did you mean 'batch_size'?"]),
        ({"training": {"batch_size": 0}}, ["training: batch_size must be an integer of at least 1; got 0"]),
    ],
)
def test_what_is_wrong_is_said_with_the_nearest_match(fields: dict[str, Any], messages: list[str]) -> None:
    problems = plan_problems(plan(**fields))
    assert len(problems) == (1 if messages else 0), problems
    for message in messages:
        assert message in problems[0]


def test_all_problems_of_all_plans_come_at_once() -> None:
    first = plan(
        sharing={"path": f"{METHODS}.sharing.ple:PLE", "settings": {"num_levls": 2}},
        optimization=f"{METHODS}.optimization.dwa:Dynamic",
        training={"batch_siz": 3, "max_stps": 3},
    )
    with pytest.raises(ComponentError) as caught:
        check_plans([first, plan(name="other", objectives=["os:system"])], "The file")
    assert str(caught.value).startswith("The file holds plans that cannot be used.")
    assert [text.partition(":")[0] for text in caught.value.problems] == [
        *("plan 'mine', sharing", "plan 'mine', optimization", "plan 'mine', training", "plan 'mine', training"),
        "plan 'other', objectives",
    ]
    with pytest.raises(ConfigError) as caught_settings:
        check_plans([plan(training={"batch_siz": 3})], "The file")
    assert not isinstance(caught_settings.value, ComponentError)


def test_a_record_made_in_python_is_held_against_the_same_rules() -> None:
    wrong = Plan(name="x", title="t", role="jiont", modalities=("table",), source="moon", min_tasks=0)  # type: ignore[arg-type]
    problems = plan_problems(wrong)
    assert len(problems) == 3
    assert any("Did you mean 'joint'?" in problem for problem in problems)


def test_no_model_is_built_to_check_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **settings: Any) -> None:
        raise AssertionError("a model was built")

    import torch

    monkeypatch.setattr(torch.nn.Linear, "__init__", refuse)
    monkeypatch.setattr(torch.nn.Conv2d, "__init__", refuse)
    for entry in load_catalogue().values():
        assert plan_problems(entry.plan) == [], entry.plan.name


NEEDY = """
from graftwork.interfaces.learner import Learner
from graftwork.methods.optimization.equal_weights import EqualWeights

class Needy(EqualWeights):
    def __init__(self, alpha, beta=1.0):
        raise RuntimeError("boom" if alpha else "never without alpha")

def broken(alpha): pass
"""


def test_missing_settings_and_constructors_that_fail_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy.py").write_text(NEEDY, encoding="utf-8")
    (tmp_path / "needs_more.py").write_text("import no_such_package_anywhere\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with components_allowed(["needy", "needs_more"]):
        assert plan_problems(plan(optimization="needy:Needy")) == ["optimization: 'needy:Needy' needs the setting 'alpha'"]
        built = plan(optimization={"path": "needy:Needy", "settings": {"alpha": 1}})
        assert plan_problems(built) == ["optimization: 'needy:Needy' cannot be built: RuntimeError: boom"]
        assert "importing 'needs_more:X' failed: ModuleNotFoundError" in plan_problems(plan(sharing="needs_more:X"))[0]


FILE = f"""
[[plans]]
name = "mine"
titel = "Mine"
role = "jiont"
modalities = ["tabel"]
sharing = {{ path = "{METHODS}.sharing.ple:PLE", settings = {{ num_levls = 2 }} }}
optimization = "{METHODS}.optimization.dwa:DynamicWeightAvrage"
training = {{ batch_siz = 3 }}

[[plans]]
name = "yours"
title = "Yours"
family = "sharng"
modalities = ["table"]
default = ["text"]
"""
WRONG = (
    "unknown key 'titel'. Did you mean 'title'?",
    "missing key 'title'",
    "got 'jiont'. Did you mean 'joint'?",
    "got 'tabel'. Did you mean 'table'?",
    "has no setting 'num_levls'. Did you mean 'num_levels'?",
    "There is no 'DynamicWeightAvrage' in",
    "Did you mean 'DynamicWeightAverage'?",
    "unknown training setting 'batch_siz'. Did you mean 'batch_size'?",
    "got 'sharng'. Did you mean 'sharing'?",
    "`default` must be true, false or a list of its modalities ['table']; got ['text']",
)


def test_validate_says_everything_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(FILE, encoding="utf-8")
    assert main(["validate", str(file)]) == 2
    found = capsys.readouterr()
    for part in WRONG:
        assert part in found.err, part
    assert "9 problems" in found.out
    assert main(["validate", str(Path(__file__).parents[3] / "src/graftwork/workflows/portfolio.toml")]) == 0


@pytest.fixture
def table(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(80, 2))
    rows = [(a, b, 2 * a + 0.1 * b, b - a) for a, b in x]
    path = tmp_path / "table.csv"
    path.write_text("a,b,y,z\n" + "".join(f"{a},{b},{y},{z}\n" for a, b, y, z in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("verb", [fit, compare])
def test_no_run_folder_is_made_for_plans_that_cannot_run(tmp_path: Path, table: Path, verb: Any) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(FILE, encoding="utf-8")
    settings: dict[str, Any] = {"targets": "y,z", "steps": 4, "workers": 0, "backbone": "none", "out": tmp_path / "run"}
    with pytest.raises(ConfigError) as caught:
        verb(table, plans=[str(file)], overrides={"learning_rat": 1.0}, **settings)
    for part in (*WRONG, "training settings: unknown training setting 'learning_rat'. Did you mean 'learning_rate'?"):
        assert part in str(caught.value), part
    with pytest.raises(ConfigError, match=r"there is no plan 'mmeo'; did you mean 'mmoe'"):
        verb(table, plans=["mmeo"], **settings)
    with pytest.raises(ConfigError, match=r"plan 'mine': sharing: There is no 'PLEE'.*Did you mean 'PLE'"):
        verb(table, plans=[plan(sharing=f"{METHODS}.sharing.ple:PLEE")], **settings)
    assert not (tmp_path / "run").exists()


def flat(value: dict[str, Any]) -> dict[str, Any]:
    """The plan as version 0.1 wrote it."""
    families = {"reference": "separate", "joint": "sharing", "independent": "trees"}
    stage = {key: item for key, item in value["stages"][0].items() if key != "kind"}
    kept = {key: item for key, item in value.items() if key not in ("stages", "role", "group")}
    return {**kept, **stage, "family": families[value["role"]]}


def test_a_run_of_an_older_version_goes_on(tmp_path: Path, table: Path) -> None:
    from graftwork.core.files import read_json, write_json

    settings: dict[str, Any] = {"targets": "y,z", "steps": 4, "seeds": 1, "workers": 0, "backbone": "none"}
    plans = ["shared-trunk"]
    fresh = fit(table, plans=plans, out=tmp_path / "fresh", **settings)
    fit(table, plans=plans, out=tmp_path / "old", dry_run=True, **settings)
    state = read_json(tmp_path / "old" / "run.json")
    state["plans"] = [flat(value) for value in state["plans"]]
    assert all("family" in value and "stages" not in value for value in state["plans"])
    write_json(tmp_path / "old" / "run.json", state)
    resumed = fit(out=tmp_path / "old", resume=True, workers=0)
    for name in ("separate", "shared-trunk"):
        assert resumed.result["plans"][name]["test"] == fresh.result["plans"][name]["test"]
    assert resumed.choice == fresh.choice


def test_a_checkpoint_of_an_older_version_is_read(tmp_path: Path) -> None:
    from graftwork.core.files import read_json, write_json
    from graftwork.core.records import TaskSpec
    from graftwork.data.suite import Suite
    from graftwork.interfaces.learner import LearnerContext
    from graftwork.training.learner import NeuralLearner

    draw = np.random.default_rng(0)
    x = draw.normal(size=(60, 3)).astype(np.float32)
    suite = Suite.of_arrays(
        name="s",
        input_specs=table_input(3),
        tasks=[TaskSpec(name="y", kind="regression", size=1), TaskSpec(name="z", kind="regression", size=1)],
        inputs={"numeric": x, "categorical": np.zeros((60, 0), np.int64)},
        targets={"y": x[:, :1], "z": x[:, 1:2]},
        splits={"train": np.arange(40), "val": np.arange(40, 50), "test": np.arange(50, 60)},
    )

    def learner() -> NeuralLearner:
        old = Plan.from_json(flat(plan().to_json()))
        return NeuralLearner(LearnerContext(suite=suite, plan=old, seed=0, max_steps=8, cache=tmp_path))

    first = learner()
    first.train(4)
    first.save(tmp_path / "checkpoint")
    files = [file for file in (tmp_path / "checkpoint").glob("*.json") if "identity" in file.read_text()]
    assert len(files) == 1
    text = files[0].read_text()
    index = read_json(files[0])
    new, older = json.dumps(learner().context.plan.to_json()), json.dumps(flat(plan().to_json()))
    assert new != older
    assert _replace_plan(index, json.loads(older)) == 1
    # Older versions wrote no hash of the values either.
    del index["state_sha256"]
    write_json(files[0], index)
    assert files[0].read_text() != text
    second = learner()
    second.load(tmp_path / "checkpoint")
    assert second.step == 4


def _replace_plan(value: Any, older: dict[str, Any]) -> int:
    """Put the older form in place of every stored plan; return how many there were."""
    if not isinstance(value, dict | list):
        return 0
    count = 0
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if isinstance(item, dict) and "stages" in item:
            value[key] = older
            count += 1
        else:
            count += _replace_plan(item, older)
    return count


def test_validate_reads_a_received_run(tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from graftwork.core.files import read_json, write_json

    run = fit(table, targets="y,z", plans=["shared-trunk"], steps=4, seeds=1, workers=0, backbone="none", out=tmp_path / "run")
    capsys.readouterr()
    assert main(["validate", str(run.folder)]) == 0
    for file in ("run.json", "model/config.json"):
        stored = read_json(run.folder / file)
        changed = json.loads(json.dumps(stored))
        held = changed["plans"][0] if "plans" in changed else changed["plan"]
        held["stages"][0]["sharing"] = {"path": "os:system", "settings": {"command": f"touch {tmp_path / 'it-ran'}"}}
        write_json(run.folder / file, changed)
        assert main(["validate", str(run.folder)]) == 2
        assert "sharing: The component 'os:system' is not part of graftwork" in capsys.readouterr().err
        write_json(run.folder / file, stored)
    assert not (tmp_path / "it-ran").exists()


def test_ple_is_the_class_that_these_tests_misspell() -> None:
    assert Component(f"{METHODS}.sharing.ple:PLE").resolve() is PLE
