"""The handed-over models give corrected probabilities wherever they are used, and labels above the thresholds that were chosen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftwork.core.components import Component
from graftwork.core.input_spec import table_input
from graftwork.core.records import Plan, TaskSpec
from graftwork.core.stages.train import TrainStage
from graftwork.data.suite import Suite
from graftwork.evaluation.correction import Correction
from graftwork.evaluation.metrics import score_task
from graftwork.export.corrected_graph import THRESHOLDS
from graftwork.serving.answers import prediction_rows
from graftwork.serving.predict import Predictor
from graftwork.workflows.fit import FitRun, fit
from graftwork.workflows.runs.job_data import read_predictions

runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("sklearn")


def suite(rows: int = 700) -> Suite:
    """A rare answer and three classes, both noisy, and a number."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, 4)).astype(np.float32)
    signal = x[:, 0] + 0.7 * x[:, 1] + generator.normal(size=rows)
    targets: dict[str, Any] = {
        "sold": (signal > 1.6).astype(np.int64),
        "kind": np.digitize(x[:, 2] + generator.normal(size=rows), [-0.5, 0.8]),
        "price": signal[:, None].astype(np.float32),
    }
    parts = np.split(generator.permutation(rows), [int(0.4 * rows), int(0.5 * rows)])
    return Suite.of_arrays(
        name="noisy",
        input_specs=table_input(4),
        tasks=[
            TaskSpec(name="sold", kind="binary", size=1, classes=("no", "yes"), metric="f1_macro"),
            TaskSpec(name="kind", kind="multiclass", size=3, classes=("a", "b", "c")),
            TaskSpec(name="price", kind="regression", size=1),
        ],
        inputs={"numeric": x, "categorical": np.zeros((rows, 0), np.int64)},
        targets=targets,
        splits={name: np.sort(part) for name, part in zip(("train", "val", "test"), parts, strict=True)},
    )


def forest(name: str, role: Any, trees: int) -> Plan:
    learner = Component("graftwork.domains.tabular.forests:ExtraTreesLearner", {"num_trees": trees})
    return Plan(name=name, title=name, role=role, modalities=("table",), stages=(TrainStage(learner=learner),))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FitRun:
    plans = ["none", forest("few", "reference", 4), forest("more", "independent", 12)]
    out = tmp_path_factory.mktemp("runs") / "run"
    return fit(suite(), plans=plans, out=out, steps=4, seeds=1, workers=0, backbone="none", single=True, refit=False)


def config_of(folder: Path) -> Any:
    return json.loads((folder / "model" / "config.json").read_text())


@pytest.mark.parametrize("name", ["few", "more"])
def test_a_bare_session_and_the_predictor_give_corrected_probabilities(run: FitRun, name: str) -> None:
    predictor = Predictor(run.folder, plan=name, threads=1)
    config = config_of(predictor.model.path.parent)
    judged = read_predictions(run.folder / "jobs" / f"final-{name}-s0" / "predictions.safetensors", run.suite())["test"]
    if name == run.choice:
        assert "kind" in config["corrections"], "some trees are too sure of noise"
    rows = suite().splits["test"]
    inputs = {key: values[rows] for key, values in suite().inputs.items()}
    session = runtime.InferenceSession(str(predictor.model.path), providers=["CPUExecutionProvider"])
    feed = {item.name: inputs[item.name] for item in session.get_inputs()}
    bare = dict(zip([item.name for item in session.get_outputs()], session.run(None, feed), strict=True))
    through = predictor.run_arrays(inputs)
    for task in ("sold", "kind"):
        correction = config["corrections"].get(task)
        wanted = Correction.from_json(correction).apply(np.asarray(judged[task])) if correction else judged[task]
        np.testing.assert_allclose(bare[task], wanted, atol=1e-4)
        np.testing.assert_array_equal(bare[task], through[task])
        # Fitted on these rows, so it is better on them.
        spec, target = predictor.tasks[0 if task == "sold" else 1], suite().targets[task][rows]
        before, after = (score_task(spec, target, one, ["log_loss"])["log_loss"] for one in (judged[task], bare[task]))
        assert after < before - 0.005 if correction else after == pytest.approx(before, abs=1e-4)
    np.testing.assert_allclose(bare["price"], judged["price"], rtol=1e-5)


def test_the_threshold_is_stored_with_the_model_and_decides(run: FitRun) -> None:
    predictor = Predictor(run.folder, threads=1)
    config = config_of(run.folder)
    (threshold,) = config["thresholds"]["sold"]
    assert 0.1 < threshold < 0.45, "macro F1 of a rare answer wants a low one"
    stored = runtime.InferenceSession(str(run.folder / "model.onnx")).get_modelmeta().custom_metadata_map
    assert json.loads(stored[THRESHOLDS]) == config["thresholds"]
    inputs = {key: values[suite().splits["test"]] for key, values in suite().inputs.items()}
    found = predictor.run_arrays(inputs)
    answers = [row["sold"]["value"] for row in prediction_rows(predictor.tasks, found)]
    assert answers == ["yes" if one > np.float32(threshold) else "no" for one in found["sold"]]
    assert sum(0.5 >= one > threshold for one in found["sold"]) > 5
    # The run's own record of the task has none: what was judged was judged at one half.
    assert [task["details"] for task in run.result["suite"]["tasks"] if "details" in task] == []


def test_the_result_says_what_came_of_it_on_other_rows(run: FitRun) -> None:
    said, config = run.result["probabilities"], config_of(run.folder)
    assert set(said) == {"sold", "kind"}
    judged = read_predictions(run.folder / "jobs" / f"final-{run.choice}-s0" / "predictions.safetensors", run.suite())["test"]
    for task, one in said.items():
        assert one["correction"] == config["corrections"].get(task)
        assert (one["after"]["log_loss"] < one["before"]["log_loss"]) == bool(one["correction"])
        assert bool(one["why_not"]) != bool(one["correction"])
        target = suite().targets[task][suite().splits["test"]]
        spec = run.suite().task(task)
        plain = score_task(spec, target, np.asarray(judged[task]), ["log_loss"])["log_loss"]
        assert one["before"]["log_loss"] == pytest.approx(plain, rel=1e-5), "the score of the plan that the report shows"
    assert said["sold"]["thresholds"]["values"] == config["thresholds"]["sold"]
    assert said["sold"]["thresholds"]["after"] > said["sold"]["thresholds"]["before"]
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    card = (run.folder / "model" / "README.md").read_text(encoding="utf-8")
    for text in (page, card):
        assert "are corrected" in text
        assert "is answered with yes above" in text


def test_a_correction_that_was_cut_is_made_once(run: FitRun, tmp_path: Path) -> None:
    """Completing a folder whose graph is corrected already changes nothing."""
    from graftwork.export.corrected_graph import correct_graph

    path = tmp_path / "model.onnx"
    path.write_bytes((run.folder / "model.onnx").read_bytes())
    config = config_of(run.folder)
    corrections = {task: Correction.from_json(value) for task, value in config["corrections"].items()}
    # What JSON holds of a temperature is not its last digit.
    stored = {task: replace(one, scale=float(f"{one.scale:.6g}")) for task, one in corrections.items()}
    correct_graph(path, stored, config["thresholds"], {})
    assert path.read_bytes() == (run.folder / "model.onnx").read_bytes()
