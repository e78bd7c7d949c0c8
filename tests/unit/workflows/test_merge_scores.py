"""Scores before and after a merge, and settings searched on validation rows, in Python and as the command line runs them."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from torch import nn

from graftwork.cli.main import main
from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.records import Plan, TaskSpec
from graftwork.core.tensor_files import TensorFile
from graftwork.data.store import save_suite
from graftwork.data.suite import Suite
from graftwork.data.suites.digit_family import digit_family
from graftwork.evaluation.metrics import score_task
from graftwork.interfaces.learner import Learner, LearnerContext
from graftwork.interfaces.model_merger import ModelMerger
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.workflows.merge import merge
from graftwork.workflows.merge_scores import TaskScore, mean_change
from graftwork.workflows.merge_search import best_trial, candidates

COLOUR = TaskSpec(name="colour", kind="multiclass", size=3, classes=("a", "b", "c"))
LATE = TaskSpec(name="late", kind="binary", size=1)


def make_suite(*, test: bool = True) -> Suite:
    """Every row has both labels."""
    numeric = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    splits = {"train": np.arange(20), "val": np.arange(20, 40), "test": np.arange(40, 60)}
    return Suite.of_arrays(
        name="two",
        input_specs=table_input(4),
        tasks=(COLOUR, LATE),
        inputs={"numeric": numeric, "categorical": np.zeros((60, 0), np.int64)},
        targets={"colour": numeric[:, :3].argmax(axis=1).astype(np.int64), "late": (numeric[:, 3] > 0).astype(np.int64)},
        splits={name: rows for name, rows in splits.items() if test or name != "test"},
    )


def build(tasks: tuple[TaskSpec, ...], seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SharedTrunk(tasks, lambda: TableBackbone(4, width=6, num_blocks=1, dropout=0.0), inputs={}, head_hidden=0)


def family(folder: Path, *tasks: tuple[TaskSpec, ...]) -> tuple[Path, list[Path], list[Any]]:
    """Write a base and one model a group of tasks; return their paths and what builds their networks."""
    groups = [(COLOUR,), *tasks]
    start = build(groups[0], 0).state_dict()
    paths, builders = [], []
    for seed, group in enumerate(groups):
        maker = functools.partial(build, group, seed)
        state = {name: value.numpy() for name, value in maker().state_dict().items()}
        noise = np.random.default_rng(seed)
        for name, value in start.items():
            if not name.startswith("heads."):
                state[name] = (value.numpy() + 0.5 * bool(seed) * noise.normal(size=tuple(value.shape))).astype(np.float32)
        paths.append(folder / f"m{seed}.safetensors")
        save_file(state, paths[-1])
        builders.append(maker)
    return paths[0], paths[1:], builders


def score_of(state: dict[str, np.ndarray], task: TaskSpec, seed: int, split: str) -> float:
    network = build((task,), seed)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    suite = make_suite()
    rows = suite.splits[split]
    with torch.no_grad():
        output = network.eval()({name: torch.from_numpy(value[rows]) for name, value in suite.inputs.items()})[task.name]
    said = output.softmax(1).numpy() if task is COLOUR else output.sigmoid().numpy()[:, 0]
    return score_task(task, suite.targets[task.name][rows], said, ["accuracy"])["accuracy"]


def test_models_of_different_tasks_keep_their_heads(tmp_path: Path) -> None:
    base, models, builders = family(tmp_path, (COLOUR,), (LATE,))
    report = merge(
        base,
        models,
        tmp_path / "out.safetensors",
        method="task-arithmetic",
        exclude=["heads.*"],
        suite=make_suite(),
        network=builders,
        metric="accuracy",
    )
    assert report.scored_on == "test"
    merged = {name: value for name, value in load_file(tmp_path / "out.safetensors").items() if not name.startswith("heads.")}
    assert [(Path(score.model).stem, score.task) for score in report.scores] == [
        ("m0", "colour"),
        ("m1", "colour"),
        ("m2", "late"),
    ]
    for score, seed, task in zip(report.scores[1:], (1, 2), (COLOUR, LATE), strict=True):
        own = load_file(models[seed - 1])
        assert score.num_rows == 20
        assert score.before == pytest.approx(score_of(own, task, seed, "test"))
        assert score.after == pytest.approx(score_of({**own, **merged}, task, seed, "test"))
    assert report.scores[0].after is None, "the base is what it was"


def test_models_of_equal_tasks_become_one(tmp_path: Path) -> None:
    base, models, builders = family(tmp_path, (COLOUR,), (COLOUR,))
    report = merge(
        None,
        models,
        tmp_path / "out.safetensors",
        method="averaging",
        suite=make_suite(test=False),
        network=builders[1:],
        metric="accuracy",
    )
    assert report.scored_on == "val"
    assert len(report.scores) == 2
    assert report.scores[0].after == report.scores[1].after
    merged = load_file(tmp_path / "out.safetensors")
    assert report.scores[0].after == pytest.approx(score_of(merged, COLOUR, 1, "val"))
    del base


def test_the_best_of_what_is_searched_is_merged(tmp_path: Path) -> None:
    base, models, builders = family(tmp_path, (COLOUR,), (LATE,))
    options: dict[str, Any] = {"exclude": ["heads.*"], "suite": make_suite(), "network": builders}
    report = merge(
        base,
        models,
        tmp_path / "out.safetensors",
        method="ties",
        search={"scaling": [0.0, 0.5, 1.0], "density": [0.3, 1.0]},
        **options,
    )
    assert [dict(trial.settings) for trial in report.trials][:2] == [
        {"scaling": 0.0, "density": 0.3},
        {"scaling": 0.0, "density": 1.0},
    ]
    assert len(report.trials) == 6
    best = max(report.trials, key=lambda trial: trial.change)
    again = merge(base, models, tmp_path / "again.safetensors", method="ties", settings=best.settings, **options)
    first, second = TensorFile(report.path), TensorFile(again.path)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert report.method["scaling"] == best.settings["scaling"]
    # Searched on validation rows, reported on test rows.
    on_val = merge(
        base,
        models,
        tmp_path / "val.safetensors",
        method="ties",
        settings=best.settings,
        **{**options, "suite": make_suite(test=False)},
    )
    assert best.change == pytest.approx(mean_change(on_val.scores))


def test_weights_are_searched_by_a_number_of_points(tmp_path: Path) -> None:
    base, models, builders = family(tmp_path, (COLOUR,), (COLOUR,))
    report = merge(
        base,
        models,
        tmp_path / "out.safetensors",
        method="averaging",
        search={"weights": 5},
        suite=make_suite(),
        network=builders,
    )
    assert [trial.settings["weights"] for trial in report.trials] == [
        (1.0, 0.0),
        (0.75, 0.25),
        (0.5, 0.5),
        (0.25, 0.75),
        (0.0, 1.0),
    ]
    best = max(trial.change for trial in report.trials)
    assert report.trials[0].change <= best


def test_methods_that_look_at_whole_models_are_scored_too(tmp_path: Path) -> None:
    base, models, builders = family(tmp_path, (COLOUR,), (COLOUR,))
    report = merge(base, models, tmp_path / "out.safetensors", method="regmean", suite=make_suite(), network=builders)
    assert report.scores[1].after is not None
    searched = merge(
        base,
        models,
        tmp_path / "s.safetensors",
        method="regmean",
        search={"alpha": [0.5, 1.0]},
        suite=make_suite(),
        network=builders,
    )
    assert len(searched.trials) == 2
    plain = merge(
        None, models, tmp_path / "plain.safetensors", method="fisher", settings={"information": "none"}, suite=make_suite()
    )
    assert plain.scores == ()
    assert "holds weights only" in " ".join(plain.notes)


class LastOne(ModelMerger):
    def merge(self, base: object, experts: Any, context: object) -> dict[str, np.ndarray]:
        found = {name: np.array(experts[-1].tensors[name]) for name in experts[-1].tensors}
        return {name: value[:1] for name, value in found.items()} if len(experts) > 2 else found


def test_a_result_in_the_shapes_of_another_model_is_scored_there(tmp_path: Path) -> None:
    paths, builders = [], []
    for width in (5, 7, 7):
        network = functools.partial(lambda width: nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3)), width)
        paths.append(tmp_path / f"w{len(paths)}.safetensors")
        save_file({name: value.numpy() for name, value in network().state_dict().items()}, paths[-1])
        builders.append(network)
    suite = make_suite().with_tasks(("colour",))
    out = tmp_path / "out.safetensors"
    report = merge(None, paths[:2], out, method=LastOne(), suite=suite, network=builders[:2])
    assert report.scores[1].after == report.scores[1].before == report.scores[0].after
    broken = merge(None, paths, out, method=LastOne(), suite=suite, network=builders)
    assert all(score.after is None for score in broken.scores)
    assert "there are no scores after the merge: The merged tensor" in " ".join(broken.notes)


def test_what_cannot_be_searched_or_scored_is_named(tmp_path: Path) -> None:
    base, models, builders = family(tmp_path, (COLOUR,), (LATE,))
    call: dict[str, Any] = {"base": base, "models": models, "out": tmp_path / "out.safetensors", "exclude": ["heads.*"]}
    with pytest.raises(ConfigError, match="searched on labelled validation rows: give data with --suite"):
        merge(search={"scaling": [1.0]}, **call)
    with pytest.raises(ConfigError, match="unknown setting 'scalling'"):
        merge(search={"scalling": [1.0]}, suite=make_suite(), network=builders, **call)
    with pytest.raises(ConfigError, match="A number \\(at least 1\\) is for weights"):
        merge(search={"scaling": 3}, suite=make_suite(), network=builders, **call)
    with pytest.raises(ConfigError, match="m1.safetensors holds weights only"):
        merge(suite=make_suite(), **call)
    with pytest.raises(ConfigError, match="'rmse' cannot judge the task 'colour'"):
        merge(suite=make_suite(), network=builders, metric="rmse", **call)
    assert not (tmp_path / "out.safetensors").exists()


@given(st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=3), min_size=1, max_size=3), st.data())
def test_all_combinations_are_tried_and_the_first_best_wins(values: list[list[float]], data: st.DataObject) -> None:
    search = {f"s{place}": options for place, options in enumerate(values)}
    tried = candidates(search, 2)
    assert len(tried) == math.prod(map(len, values))
    scores = data.draw(st.lists(st.sampled_from([-1.0, 0.0, 2.0, math.nan]), min_size=len(tried), max_size=len(tried)))
    found = iter(scores)
    if all(math.isnan(score) for score in scores):
        with pytest.raises(ConfigError, match="scores that are finite"):
            best_trial(tried, lambda _: next(found))
        return
    place, trials = best_trial(tried, lambda _: next(found))
    known = [score for score in scores if not math.isnan(score)]
    assert place == scores.index(max(known))
    assert len(trials) == len(tried)


def test_the_mean_change_has_the_sign_of_the_metric() -> None:
    better = TaskScore("m", "t", "accuracy", 10, before=0.5, after=0.6)
    lower = TaskScore("m", "u", "rmse", 10, before=2.0, after=1.0)
    assert mean_change([better, lower]) == pytest.approx((20.0 + 50.0) / 2)
    assert math.isnan(mean_change([TaskScore("m", "t", "accuracy", 10, before=0.5)]))


def test_the_command_line_prints_scores_and_the_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = digit_family("plain", copies=1, seed=0)
    save_suite(suite, tmp_path / "suite")
    sharing = "graftwork.methods.sharing.separate:Separate"
    plan = Plan.from_json({"name": "p", "title": "P", "role": "reference", "modalities": ["table"], "sharing": sharing})
    for name, steps in (("a", 3), ("b", 20)):
        learner: Learner = plan.train.learner.build(
            LearnerContext(suite=suite, plan=plan, seed=0, max_steps=20, cache=tmp_path / "cache"), seam=Learner
        )
        learner.train(steps)
        learner.export(tmp_path / name)
    words = ["merge", "--models", str(tmp_path / "a"), str(tmp_path / "b"), "--method", "averaging"]
    words += ["--out", str(tmp_path / "out.safetensors"), "--suite", str(tmp_path / "suite")]
    assert main([*words, "--search", "weights=3"]) == 0
    said = capsys.readouterr().out
    assert "searched 3 settings on validation rows: weights=" in said
    assert "before" in said
    assert "merged" in said
    assert "test rows" in said
    assert json.loads(TensorFile(tmp_path / "out.safetensors").metadata["method"])["weights"] in (
        [1.0, 0.0],
        [0.5, 0.5],
        [0.0, 1.0],
    )
    assert main([*words, "--search", "weights=1,0;0.2,0.8"]) == 0
    assert "searched 2 settings" in capsys.readouterr().out
