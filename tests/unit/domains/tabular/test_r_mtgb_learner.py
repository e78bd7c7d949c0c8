"""R-MTGB in the race: kinds of targets, slices, checkpoints, one label a row, ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graftwork.core.errors import CheckpointError, ConfigError, DataError
from graftwork.core.input_spec import InputSpec, table_input
from graftwork.core.records import Plan, TaskSpec
from graftwork.data.suite import Suite
from graftwork.data.suites.outlier_tasks import outlier_tasks
from graftwork.domains.tabular.r_mtgb_estimator import minority_side
from graftwork.domains.tabular.r_mtgb_learner import RMTGBLearner
from graftwork.domains.tabular.tree_tables import IndicatorTable
from graftwork.interfaces.learner import LearnerContext

PLAN = Plan(name="r-mtgb", title="t", role="joint", modalities=("table",))


def mixed_suite(rows: int = 400, seed: int = 0, cardinality: int = 60) -> Suite:
    """All kinds of targets over numbers and two categories, a fifth of the labels missing."""
    generator = np.random.default_rng(seed)
    numeric = generator.normal(size=(rows, 4)).astype(np.float32)
    categorical = generator.integers(0, (cardinality, 4), size=(rows, 2))
    signal = numeric[:, 0] * numeric[:, 1] + np.sin(2 * numeric[:, 2]) + (categorical[:, 0] % 3) + 2.0 * (categorical[:, 1] == 2)
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


def learner_of(suite: Suite, tmp_path: Path, *, seed: int = 3, steps: int = 10, **settings: object) -> RMTGBLearner:
    context = LearnerContext(suite=suite, plan=PLAN, seed=seed, max_steps=steps, cache=tmp_path / "cache")
    return RMTGBLearner(context, **settings)  # type: ignore[arg-type]


def assert_equal_predictions(first: RMTGBLearner, second: RMTGBLearner) -> None:
    rows = first.context.suite.splits["test"]
    left, right = first.predict(rows), second.predict(rows)
    for task in left:
        np.testing.assert_array_equal(left[task], right[task])


def test_slices_saves_and_loads_change_nothing(tmp_path: Path) -> None:
    suite = mixed_suite()
    whole = learner_of(suite, tmp_path)
    whole.train(10)
    part = learner_of(suite, tmp_path)
    for number, until in enumerate((1, 2, 6)):  # within each of the blocks
        part.train(until)
        part.save(tmp_path / str(number))
        again = learner_of(suite, tmp_path)
        again.load(tmp_path / str(number))
        assert_equal_predictions(part, again)
        part = again
    part.train(10)
    assert part.step == whole.step == 10
    assert_equal_predictions(whole, part)
    assert part.ledger().parameters_stored == whole.ledger().parameters_stored > 0


def test_shapes_and_ranges_of_predictions(tmp_path: Path) -> None:
    suite = mixed_suite()
    learner = learner_of(suite, tmp_path)
    learner.train(5)
    found = learner.predict(suite.splits["test"])
    rows = len(suite.splits["test"])
    shapes = {"late": (rows,), "kind": (rows, 4), "half": (rows, 2), "price": (rows, 2), "tags": (rows, 3)}
    assert {name: array.shape for name, array in found.items()} == shapes
    np.testing.assert_allclose(found["kind"].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found["half"].sum(axis=1), 1, rtol=1e-5)
    assert found["price"][:, 0].mean() > 900
    assert list(learner.predict(suite.splits["test"], ["tags"])) == ["tags"]
    other = {name: array[:3] for name, array in suite.inputs.items()}
    np.testing.assert_array_equal(learner.predict(np.arange(2), inputs=other)["late"], learner.predict(np.arange(2))["late"])


def test_it_learns_what_there_is_to_learn(tmp_path: Path) -> None:
    suite = mixed_suite(rows=1500, cardinality=6)
    learner = learner_of(suite, tmp_path, steps=25, learning_rate=0.2)
    learner.train(25)
    rows = suite.splits["test"][suite.targets["late"][suite.splits["test"]] >= 0]
    found = learner.predict(rows)
    assert np.mean((found["late"] >= 0.5) == (suite.targets["late"][rows] == 1)) > 0.8
    assert np.mean(found["kind"].argmax(axis=1) == suite.targets["kind"][rows]) > 0.55
    price = suite.targets["price"][rows, 0]
    assert np.mean((found["price"][:, 0] - price) ** 2) < 0.4 * np.var(price)


def test_rows_may_have_the_label_of_one_task_and_outliers_are_found(tmp_path: Path) -> None:
    suite = outlier_tasks(train_rows=160, val_rows=40, test_rows=200, seed=5)
    learner = learner_of(suite, tmp_path, steps=40, max_leaf_nodes=4)
    learner.train(40)
    error = {}
    for name in suite.task_names:
        rows = suite.splits["test"][~np.isnan(suite.targets[name][suite.splits["test"], 0])]
        error[name] = float(np.mean((learner.predict(rows, [name])[name] - suite.targets[name][rows]) ** 2))
        assert error[name] < 0.5 * np.nanvar(suite.targets[name])
    (group,) = learner._groups
    assert minority_side(group.task_weights()).tolist() == suite.raw["outliers"]


def test_targets_of_one_kind_share_trees(tmp_path: Path) -> None:
    learner = learner_of(mixed_suite(), tmp_path)
    groups = [[(member.task.name, member.column) for member in group.members] for group in learner._groups]
    assert groups == [
        [("late", 0), ("half", 0), ("tags", 0), ("tags", 1), ("tags", 2)],
        [("kind", 0)],
        [("price", 0), ("price", 1)],
    ]
    assert learner._groups[1].blocks.shared == learner._groups[1].blocks.robust == 0, "one target alone has nothing to share"


def test_it_stops_when_more_rounds_do_not_help(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    noise = Suite.of_arrays(
        name="noise",
        input_specs=table_input(2),
        tasks=[TaskSpec(name=name, kind="regression", size=1) for name in "ab"],
        inputs={"numeric": generator.normal(size=(100, 2)).astype(np.float32)},
        targets={name: generator.normal(size=(100, 1)).astype(np.float32) for name in "ab"},
        splits={"train": np.arange(60), "val": np.arange(60, 80), "test": np.arange(80, 100)},
    )
    learner = learner_of(noise, tmp_path, steps=200, patience=4)
    learner.train(200)
    steps = learner.step
    assert steps < 200
    learner.train(200)
    assert learner.step == steps


def test_progress_may_stop_it_and_it_is_still_whole(tmp_path: Path) -> None:
    learner = learner_of(mixed_suite(), tmp_path)

    def stop(step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learner.train(20, on_progress=stop)
    assert learner.step == 4
    learner.train(10)
    whole = learner_of(mixed_suite(), tmp_path)
    whole.train(10)
    assert_equal_predictions(learner, whole)


@pytest.mark.parametrize("change", ["seed", "bytes", "missing"])
def test_checkpoints_of_others_and_damaged_ones_are_refused(tmp_path: Path, change: str) -> None:
    suite = mixed_suite()
    learner = learner_of(suite, tmp_path)
    learner.train(2)
    learner.save(tmp_path / "c")
    other = learner
    if change == "seed":
        other = learner_of(suite, tmp_path, seed=4)
    elif change == "bytes":
        file = next((tmp_path / "c").glob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:-1] + b"#")
    else:
        (tmp_path / "c" / "boosting.json").unlink()
    with pytest.raises(CheckpointError, match="written for another seed|damaged|no whole checkpoint"):
        other.load(tmp_path / "c")


def test_pictures_unlabelled_tasks_and_bad_shares_are_refused(tmp_path: Path) -> None:
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
    suite = mixed_suite()
    with pytest.raises(DataError, match="'late' has no labelled training row"):
        learner_of(suite.with_targets({"late": np.full(len(suite), -1)}), tmp_path)
    with pytest.raises(ConfigError, match="at least 0"):
        learner_of(suite, tmp_path, shares=(0.8, 0.8, -0.6))


def test_levels_become_indicators_unless_there_are_many() -> None:
    suite = mixed_suite(rows=10)
    table = IndicatorTable(suite)
    assert table.columns[4:] == [(4, None), (5, 0), (5, 1), (5, 2), (5, 3)]
    levels = suite.inputs["categorical"][:, 1]
    np.testing.assert_array_equal(table.matrix(suite.inputs)[:, 5:], np.eye(4, dtype=np.float32)[levels])


@pytest.mark.parametrize("cardinality", [5, 60])
def test_the_onnx_graph_computes_the_same(tmp_path: Path, cardinality: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    suite = mixed_suite(rows=800, cardinality=cardinality)
    learner = learner_of(suite, tmp_path)
    learner.train(12)
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
    assert (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("shares", [(0.1, 0.2, 0.3), (0.5, 0.6, 0.1), (0.5, 0.5), (float("nan"), 0.5, 0.5)])
def test_shares_add_up_to_one(tmp_path: Path, shares: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="`shares` must be three numbers of at least 0 that add up to 1; got"):
        learner_of(mixed_suite(60), tmp_path, shares=shares)
