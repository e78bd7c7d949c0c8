"""LightGBM as a learner: slices, checkpoints, missing labels, kinds of tasks, ONNX."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from graftwork.core.errors import CheckpointError, DataError
from graftwork.core.input_spec import InputSpec, table_input
from graftwork.core.records import Plan, TaskSpec
from graftwork.data.options import DataOptions
from graftwork.data.reading.assemble import RawSuite, assemble_suite
from graftwork.data.reading.infer import TargetRequest
from graftwork.data.suite import Suite
from graftwork.domains.tabular.lightgbm import LightGBMLearner, design_matrix
from graftwork.domains.tabular.trees_onnx import _round_down, flatten_trees
from graftwork.interfaces.learner import LearnerContext

pytest.importorskip("lightgbm")

PLAN = Plan(name="lightgbm", title="t", role="independent", modalities=("table",))


def mixed_suite(rows: int = 400, seed: int = 0, cardinality: int = 60) -> Suite:
    """All kinds of targets over numbers and two categories, a fifth of the labels missing."""
    generator = np.random.default_rng(seed)
    numeric = generator.normal(size=(rows, 4)).astype(np.float32)
    categorical = generator.integers(0, (cardinality, 4), size=(rows, 2))
    signal = numeric[:, 0] * numeric[:, 1] + np.sin(2 * numeric[:, 2]) + (categorical[:, 0] % 3)
    missing = generator.random(rows) < 0.2
    late = (signal > 1).astype(np.int64)
    kind = np.digitize(signal, [0, 1, 2])
    price = np.stack([1000 + 50 * signal, numeric[:, 3]], axis=1).astype(np.float32)
    tags = np.stack([signal > 0, numeric[:, 1] > 0, categorical[:, 1] == 2], axis=1).astype(np.float32)
    late[missing], kind[missing], price[missing], tags[missing] = -1, -1, np.nan, np.nan
    parts = np.split(generator.permutation(rows), [int(0.6 * rows), int(0.8 * rows)])
    return Suite.of_arrays(
        name="mixed",
        input_specs=table_input(4, [cardinality, 4]),
        tasks=[
            TaskSpec(name="late", kind="binary", size=1, classes=("no", "yes")),
            TaskSpec(name="kind", kind="multiclass", size=4),
            TaskSpec(name="half", kind="ordinal", size=2),
            TaskSpec(name="price", kind="regression", size=2),
            TaskSpec(name="tags", kind="multilabel", size=3),
        ],
        inputs={"numeric": numeric, "categorical": categorical},
        targets={"late": late, "kind": kind, "half": np.where(kind < 0, -1, kind // 2), "price": price, "tags": tags},
        splits={name: np.sort(part) for name, part in zip(("train", "val", "test"), parts, strict=True)},
    )


def learner_of(suite: Suite, tmp_path: Path, **settings: object) -> LightGBMLearner:
    context = LearnerContext(suite=suite, plan=PLAN, seed=3, max_steps=30, cache=tmp_path / "cache")
    return LightGBMLearner(context, **settings)  # type: ignore[arg-type]


def assert_equal_predictions(first: LightGBMLearner, second: LightGBMLearner) -> None:
    rows = first.context.suite.splits["test"]
    left, right = first.predict(rows), second.predict(rows)
    for task in left:
        np.testing.assert_array_equal(left[task], right[task])


def test_slices_saves_and_loads_change_nothing(tmp_path: Path) -> None:
    suite = mixed_suite()
    whole = learner_of(suite, tmp_path)
    whole.train(30)
    part = learner_of(suite, tmp_path)
    part.train(11)
    part.save(tmp_path / "a")
    again = learner_of(suite, tmp_path)
    again.load(tmp_path / "a")
    assert_equal_predictions(part, again)
    again.train(12)
    again.save(tmp_path / "b")
    last = learner_of(suite, tmp_path)
    last.load(tmp_path / "b")
    last.train(30)
    assert last.step == whole.step == 30
    assert_equal_predictions(whole, last)
    assert last.ledger().parameters_stored == whole.ledger().parameters_stored > 0


def test_shapes_and_ranges_of_predictions(tmp_path: Path) -> None:
    suite = mixed_suite()
    learner = learner_of(suite, tmp_path)
    learner.train(5)
    found = learner.predict(suite.splits["test"])
    rows = len(suite.splits["test"])
    assert {name: array.shape for name, array in found.items()} == {
        "late": (rows,),
        "kind": (rows, 4),
        "half": (rows, 2),
        "price": (rows, 2),
        "tags": (rows, 3),
    }
    np.testing.assert_allclose(found["kind"].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found["half"].sum(axis=1), 1, rtol=1e-5)
    assert found["price"][:, 0].mean() > 900
    assert list(learner.predict(suite.splits["test"], ["tags"])) == ["tags"]
    other = {"numeric": suite.inputs["numeric"][:3], "categorical": suite.inputs["categorical"][:3]}
    np.testing.assert_array_equal(learner.predict(np.arange(2), inputs=other)["late"], learner.predict(np.arange(2))["late"])


def test_it_learns_what_there_is_to_learn(tmp_path: Path) -> None:
    suite = mixed_suite(rows=1500)
    learner = learner_of(suite, tmp_path)
    learner.train(30)
    rows = suite.splits["test"][suite.targets["late"][suite.splits["test"]] >= 0]
    accuracy = np.mean((learner.predict(rows)["late"] >= 0.5) == (suite.targets["late"][rows] == 1))
    assert accuracy > 0.8


def test_it_stops_when_more_rounds_do_not_help(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    noise = Suite.of_arrays(
        name="noise",
        input_specs={"table": InputSpec(kind="table")},
        tasks=[TaskSpec(name="y", kind="regression", size=1)],
        inputs={"numeric": generator.normal(size=(100, 2)).astype(np.float32), "categorical": np.zeros((100, 0), np.int64)},
        targets={"y": generator.normal(size=(100, 1)).astype(np.float32)},
        splits={"train": np.arange(60), "val": np.arange(60, 80), "test": np.arange(80, 100)},
    )
    learner = learner_of(noise, tmp_path, patience=4)
    learner.train(200)
    assert learner.step < 200
    steps = learner.step
    learner.train(200)
    assert learner.step == steps


def test_progress_may_stop_it_and_it_is_still_whole(tmp_path: Path) -> None:
    learner = learner_of(mixed_suite(), tmp_path)

    def stop(step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learner.train(30, on_progress=stop)
    assert learner.step == 4
    learner.train(30)
    whole = learner_of(mixed_suite(), tmp_path)
    whole.train(30)
    assert_equal_predictions(learner, whole)


@pytest.mark.parametrize("change", ["seed", "bytes", "missing"])
def test_checkpoints_of_others_and_damaged_ones_are_refused(tmp_path: Path, change: str) -> None:
    suite = mixed_suite()
    learner = learner_of(suite, tmp_path)
    learner.train(2)
    learner.save(tmp_path / "c")
    other = learner
    if change == "seed":
        other = LightGBMLearner(LearnerContext(suite=suite, plan=PLAN, seed=4, max_steps=30, cache=tmp_path))
    elif change == "bytes":
        file = next((tmp_path / "c").glob("*.txt"))
        file.write_text(file.read_text() + "#")
    else:
        (tmp_path / "c" / "boosters.json").unlink()
    with pytest.raises(CheckpointError, match="written for another seed|damaged|no whole checkpoint"):
        other.load(tmp_path / "c")


def test_dense_tasks_and_pictures_are_refused(tmp_path: Path) -> None:
    picture = Suite(
        name="p",
        input_specs={"image": InputSpec(kind="image")},
        tasks=(TaskSpec(name="y", kind="binary", size=1),),
        inputs={"image": np.zeros((4, 2, 2, 3), np.uint8)},
        targets={"y": np.zeros(4, np.int64)},
        splits={"train": np.arange(2), "val": np.arange(2, 3), "test": np.arange(3, 4)},
    )
    with pytest.raises(DataError, match="needs a table"):
        learner_of(picture, tmp_path)


@pytest.mark.parametrize("cardinality", [5, 200])
def test_the_onnx_graph_computes_the_same(tmp_path: Path, cardinality: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    suite = mixed_suite(rows=800, cardinality=cardinality)
    learner = learner_of(suite, tmp_path)
    learner.train(20)
    learner.export(tmp_path / "model")
    session = onnxruntime.InferenceSession(str(tmp_path / "model" / "model.onnx"))
    rows = np.arange(len(suite))
    feed = {name: np.asarray(suite.inputs[name]) for name in ("numeric", "categorical")}
    expected = learner.predict(rows)
    for task in suite.tasks:
        found = session.run([task.name], feed)[0]
        assert found.shape == expected[task.name].shape
        scale = np.asarray(task.scale) if task.scale else 1.0
        assert np.abs((found - expected[task.name]) / scale).max() < 1e-4
    assert (tmp_path / "model" / "config.json").exists()


def test_users_of_a_log_are_told_apart_and_exported(tmp_path: Path) -> None:
    """Trees see users beyond the 256th (of ten training rows or more: LightGBM looks at no fewer), and sets with such codes are
    exported."""
    onnxruntime = pytest.importorskip("onnxruntime")
    generator = np.random.default_rng(0)
    user = generator.permutation(np.arange(500).repeat(24))
    effect = generator.choice([-3.0, 3.0], 500)[user]
    frame = pd.DataFrame({"user": [f"user {code}" for code in user], "x": generator.normal(size=12_000)})
    frame["y"] = effect + frame["x"] + 0.1 * generator.normal(size=12_000)
    # As a feature: by itself, a column of persons would divide the rows.
    raw = RawSuite(name="log", frame=frame, requests=[TargetRequest("y", ("y",))], options=DataOptions(group="none"))
    suite = assemble_suite(raw)
    assert suite.only_input.sizes["cardinalities"] == [501]
    learner = learner_of(suite, tmp_path, learning_rate=0.3)
    learner.train(25)
    members = [
        max(int(code) for code in str(node["threshold"]).split("||"))
        for tree in learner._all[0].trees()
        for node in walk(tree["tree_structure"])
        if node["decision_type"] == "=="
    ]
    assert max(members) > 400
    rows = suite.splits["test"]
    rare = rows[suite.inputs["categorical"][rows, 0] > 300]
    error = np.square(learner.predict(rare)["y"] - suite.targets["y"][rare]).mean()
    assert error < 0.6 * suite.targets["y"][rare].var()
    learner.export(tmp_path / "model")
    session = onnxruntime.InferenceSession(str(tmp_path / "model" / "model.onnx"))
    found = session.run(["y"], {name: np.asarray(suite.inputs[name][rows]) for name in ("numeric", "categorical")})[0]
    np.testing.assert_allclose(found, learner.predict(rows)["y"], atol=1e-4 * suite.tasks[0].scale[0])


def walk(part: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All splits of a tree as LightGBM dumps it."""
    if "split_index" in part:
        yield part
        yield from walk(part["left_child"])
        yield from walk(part["right_child"])


def test_thresholds_decide_the_same_in_float32() -> None:
    for threshold in (0.1, 0.3, -0.7, 1e-40, 12345.678):
        rounded = _round_down(threshold)
        assert rounded <= threshold
        for value in (np.float32(threshold), np.nextafter(np.float32(threshold), np.float32(np.inf)), np.float32(rounded)):
            assert (float(value) <= threshold) == (float(value) <= rounded)


def test_a_tree_without_split_is_one_value() -> None:
    flat = flatten_trees([{"tree_structure": {"leaf_value": 2.5}}], 1)
    assert flat["weights"] == [2.5]
    assert flat["true_leaves"] == flat["false_leaves"] == [1]


def test_the_design_is_numbers_then_codes() -> None:
    inputs = {"numeric": np.array([[0.5], [1.5]], np.float32), "categorical": np.array([[3], [4]])}
    assert design_matrix(inputs, np.array([1])).tolist() == [[1.5, 4.0]]


def test_categories_of_few_rows_are_told_apart(tmp_path) -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 9, size=(160, 1))
    # No order of the codes: only splits by category can find it.
    target = np.asarray([0.0, 3.0, 1.0, 5.0, 0.5, 4.0, 2.0, 6.0, 1.5])[codes[:, 0]] + generator.normal(0, 0.1, 160)
    suite = Suite.of_arrays(
        name="few",
        input_specs=table_input(0, [9]),
        tasks=[TaskSpec(name="y", kind="regression", size=1)],
        inputs={"categorical": codes},
        targets={"y": target[:, None].astype(np.float32)},
        splits={"train": np.arange(100), "val": np.arange(100, 130), "test": np.arange(130, 160)},
    )
    context = LearnerContext(suite=suite, plan=PLAN, seed=0, max_steps=300, cache=tmp_path / "cache")
    learner = LightGBMLearner(context)
    learner.train(300)
    test = suite.splits["test"]
    error = learner.predict(test)["y"][:, 0] - target[test]
    assert np.sqrt(np.mean(error**2)) < 0.25 * target.std()


def test_thousands_of_classes_are_refused_and_tables_of_thousands_of_columns_get_fewer_bins(tmp_path: Path) -> None:
    suite = mixed_suite()
    tasks = (TaskSpec(name="kind", kind="multiclass", size=5000),)
    with pytest.raises(DataError, match=r"at most 2000 classes, and 'kind' has 5000"):
        learner_of(dataclasses.replace(suite, tasks=tasks, targets={"kind": suite.targets["kind"]}), tmp_path)
    assert "max_bin" not in learner_of(suite, tmp_path)._params
    wide = np.zeros((len(suite), 2500), dtype=np.float32)
    many = dataclasses.replace(suite, input_specs=table_input(2500, [60, 4]), inputs={**suite.inputs, "numeric": wide})
    assert learner_of(many, tmp_path)._params["max_bin"] == 63


def test_targets_of_the_same_rows_share_their_columns(tmp_path: Path) -> None:
    boosters = [booster for group in learner_of(mixed_suite(), tmp_path).boosters.values() for booster in group]
    assert len({id(booster._data.train_x) for booster in boosters}) == 1
