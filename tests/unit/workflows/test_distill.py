"""``distill`` from a table with and without labels to a student: teachers of every kind, resuming, what is refused; words
alone."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graftwork as gw
from graftwork.cli.main import main
from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.data.store import load_suite
from graftwork.data.suites.glyphs import glyphs
from graftwork.data.teacher_answers import TeacherAnswers, read_answers
from graftwork.workflows.distill.plans import student_plan, teacher_weights
from graftwork.workflows.distill.settings import DistillSettings
from graftwork.workflows.distill.taps import Tap
from graftwork.workflows.distill.teaching import leak_words
from graftwork.workflows.distill.ways import objectives_of, usable_ways
from graftwork.workflows.distill.words import flip_sentences, gain_sentence, kept_sentences, size_sentence
from graftwork.workflows.runs.jobs.teach import relevance_of
from graftwork.workflows.teachers.asking import open_teacher
from graftwork.workflows.teachers.tables import read_teacher_file

ROWS = 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of which a third has no labels, features of its rows, and predictions for them."""
    path = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    values = random.standard_normal((ROWS, 4))
    kind = np.where(values[:, 0] > 0.5, 2, np.where(values[:, 1] > 0, 1, 0))
    with (path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c", "d", "kind", "amount"])
        for number in range(ROWS):
            known = number % 3 != 0
            own = ["red", "green", "blue"][kind[number]], round(float(values[number, 0] * 2), 3)
            writer.writerow([*values[number].round(4), *(own if known else ("", ""))])
    np.save(path / "features.npy", values.astype(np.float32))
    with (path / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "kind", "kind_probability", "amount"])
        for number in range(ROWS):
            writer.writerow([number, ["red", "green", "blue"][kind[number]], 0.8, values[number, 0] * 2])
    return path


def distilled(folder: Path, out: Path, *teachers: str, **settings: Any) -> gw.DistillRun:
    asked = {"targets": "kind,amount", "steps": 6, "seeds": 2, "workers": 0, "progress": False, "overrides": {"batch_size": 16}}
    return gw.distill(folder / "table.csv", teachers=[*teachers], out=out, **{**asked, **settings})


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> gw.DistillRun:
    """Predictions teach, and features that are of no use."""
    np.save(folder / "noise.npy", np.random.default_rng(1).standard_normal((ROWS, 3)).astype(np.float32))
    out = tmp_path_factory.mktemp("runs") / "run"
    return distilled(folder, out, str(folder / "predictions.csv"), str(folder / "noise.npy"), weighting="0.9,0.1")


def test_the_result_says_what_was_compared(run: gw.DistillRun) -> None:
    result = run.result
    assert run.student == "scratch"
    assert result["budget"] == {"steps": 6, "seeds": [0, 1], "unlabelled": result["budget"]["unlabelled"]}
    assert result["budget"]["unlabelled"] > 20
    alone, taught = (result["plans"][name] for name in ("student-alone", "distilled"))
    # The same trunk, steps and labelled rows; rows without labels come on top for the one that can use them.
    assert alone["ledger"]["steps"] == taught["ledger"]["steps"] == 6
    assert alone["ledger"]["parameters_total"] == taught["ledger"]["parameters_total"]
    assert (alone["ledger"]["samples"], taught["ledger"]["samples"]) == (6 * 16, 6 * 32)
    assert alone["plan"]["stages"][0]["objectives"] == []
    paths = [item["path"].rpartition(":")[2] for item in taught["plan"]["stages"][0]["objectives"]]
    assert paths == ["LogitDistillation", "FeatureDistillation"]
    assert set(run.changes) == {"kind", "amount"}
    assert all(item["low"] <= item["value"] <= item["high"] for item in run.changes.values())
    assert "same labelled rows for both" in run.sentences[0]


def test_it_says_what_was_kept_of_each_teacher_and_what_turned(run: gw.DistillRun) -> None:
    first, second = run.teachers
    assert (first["weight"], second["weight"]) == (0.9, 0.1)
    assert (first["ways"], second["ways"]) == (["logits"], ["features"])
    # The predictions are the truth, so the teacher's own scores are perfect.
    assert first["scores"]["kind"]["value"] == pytest.approx(1.0)
    assert first["kept"]["kind"]["measure"] == "agreement"
    assert first["kept"]["amount"]["measure"] == "distance"
    assert second["kept"] == {} == second["scores"]
    assert second["alike"]["taught"] is not None
    assert first["relevance"]["kind"] > second["relevance"]["kind"] + 0.2
    item = run.flips["kind"]
    suite = load_suite(run.folder / "suite")
    tested = suite.targets["kind"][suite.splits["test"]]
    assert item["rows"] == int((tested >= 0).sum())
    assert item["net"]["value"] == pytest.approx(item["positive"] - item["negative"])


def test_the_model_predicts_and_knows_its_teachers(run: gw.DistillRun, folder: Path) -> None:
    assert (run.folder / "model.onnx").exists()
    assert len(run.predict(folder / "table.csv")) == ROWS
    lineage = json.loads((run.folder / "model" / "lineage.json").read_text())
    assert lineage["made_by"].startswith("graftwork distill")
    assert {name for name in lineage["bases"] if name.startswith("teacher ")} == {
        f"teacher {folder / name}" for name in ("predictions.csv", "noise.npy")
    }
    page = run.report.read_text(encoding="utf-8")
    assert "What was kept of each teacher" in page
    assert all(f'"{name}"' in page for name in ("distill-changes", "distill-flips", "distill-kept"))
    assert "turn right" in run.summary()
    assert list(run.leaderboard()["plan"]) in (["distilled", "student-alone"], ["student-alone", "distilled"])


def test_a_finished_run_is_read_again_and_other_settings_are_refused(run: gw.DistillRun, folder: Path) -> None:
    assert gw.load_run(run.folder).result == run.result
    with pytest.raises(ConfigError, match="temperature: the run has 2.0, you gave 3.0"):
        distilled(folder, run.folder, resume=True, temperature=3.0, steps=None, seeds=None, targets=None, overrides=None)
    assert main(["distill", "--resume", str(run.folder), "--quiet"]) == 0


def test_a_run_teaches_logits_and_a_cut_run_goes_on(
    run: gw.DistillRun, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def cut(*arguments: Any) -> Any:
        asked.append(1)
        raise KeyboardInterrupt

    # Cut before the trainings: teachers have answered by then.
    with monkeypatch.context() as patch:
        patch.setattr("graftwork.workflows.distill.session.run_trainings", lambda *given, **more: cut())
        with pytest.raises(KeyboardInterrupt):
            distilled(folder, tmp_path / "second", str(run.folder), seeds=1, targets="kind")
    entry = json.loads((tmp_path / "second" / "jobs" / "teacher-1" / "result.json").read_text())["entry"]
    answers = read_answers(entry)
    assert set(answers.outputs) == {"kind"}
    # The cache is cleared in between: the answers are computed again, in the same place, of the teacher that is named again.
    shutil.rmtree(entry)
    with pytest.raises(ConfigError, match=rf"graftwork distill --teacher {run.folder} --resume"):
        distilled(folder, tmp_path / "second", resume=True, steps=None, seeds=None, targets=None, overrides=None)
    second = distilled(
        folder, tmp_path / "second", str(run.folder), resume=True, steps=None, seeds=None, targets=None, overrides=None
    )
    (teacher,) = second.teachers
    assert teacher["ways"] == ["logits"]
    assert teacher["kept"]["kind"]["measure"] == "agreement"
    # One seed: nothing is asserted.
    assert second.sentences[0].startswith("With one seed nothing can be asserted")
    # The teacher answers what its own model predicts.
    suite = load_suite(second.folder / "suite")
    asked_again = open_teacher(str(run.folder), suite).ask(np.arange(5))
    np.testing.assert_allclose(asked_again["outputs/kind"], answers.outputs["kind"][:5], rtol=1e-4, atol=1e-5)


def test_files_of_teachers_are_read_as_what_they_say(folder: Path, run: gw.DistillRun, tmp_path: Path) -> None:
    suite = load_suite(run.folder / "suite")
    answers = read_teacher_file(folder / "predictions.csv", suite)
    raw = answers.outputs["kind"]
    odds = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    assert odds.max(axis=1) == pytest.approx(0.8)
    known = suite.targets["kind"] >= 0
    assert (raw.argmax(axis=1) == suite.targets["kind"])[known].all()
    np.savez(tmp_path / "all.npz", features=np.ones((ROWS, 2, 3)), kind=odds, classes=np.full((ROWS, 4), 0.25))
    several = read_teacher_file(tmp_path / "all.npz", suite)
    assert several.features is not None
    assert several.features.shape == (ROWS, 6)
    np.testing.assert_allclose(several.outputs["kind"], np.log(odds), rtol=1e-4)
    np.save(tmp_path / "short.npy", np.ones((4, 2)))
    with pytest.raises(ConfigError, match="has 4 rows of 'features', and the data has 150"):
        read_teacher_file(tmp_path / "short.npy", suite)
    np.savez(tmp_path / "wrong.npz", classes=np.ones((ROWS, 3)))
    with pytest.raises(ConfigError, match="`classes` must be probabilities"):
        read_teacher_file(tmp_path / "wrong.npz", suite)
    np.savez(tmp_path / "other.npz", scores=np.ones((ROWS, 3)))
    with pytest.raises(ConfigError, match="holds the arrays scores; a teacher gives features, classes"):
        read_teacher_file(tmp_path / "other.npz", suite)
    (tmp_path / "table.csv").write_text("kind\n" + "purple\n" * ROWS)
    with pytest.raises(ConfigError, match="name 'purple', which is no class; classes: "):
        read_teacher_file(tmp_path / "table.csv", suite)
    (tmp_path / "table.csv").write_text("amount\n" + "amount\n" + "1.5\n" * (ROWS - 1))
    with pytest.raises(FileFormatError, match=r"table.csv: Column 'amount' holds 'amount' in row 1, which is no number"):
        read_teacher_file(tmp_path / "table.csv", suite)
    for array in (np.array(["a"] * ROWS), np.float32(1.0), np.zeros(ROWS, dtype="M8[s]")):
        np.savez(tmp_path / "words.npz", features=array)
        with pytest.raises(
            FileFormatError, match="words.npz: the array 'features' has the type .*a teacher's arrays are numbers"
        ):
            read_teacher_file(tmp_path / "words.npz", suite)
    (tmp_path / "table.csv").write_text("mood\n" + "good\n" * ROWS)
    with pytest.raises(ConfigError, match="none of them predicts a task .* graftwork predict RUN DATA --probabilities"):
        read_teacher_file(tmp_path / "table.csv", suite)


def test_relevance_reads_labels_of_training_rows_alone(run: gw.DistillRun, folder: Path) -> None:
    suite = load_suite(run.folder / "suite")
    answers = read_teacher_file(folder / "features.npy", suite)
    before = relevance_of(answers, suite, 0)
    changed = suite.targets["kind"].copy()
    rest = np.setdiff1d(np.arange(ROWS), suite.splits["train"])
    changed[rest] = 0
    assert relevance_of(answers, suite.with_targets({**suite.targets, "kind": changed}), 0) == before


TEACHERS = (
    {"teacher": "one", "entry": "/x/1", "tasks": ["kind"], "features": 8, "relevance": {"kind": 0.4}},
    {"teacher": "two", "entry": "/x/2", "tasks": [], "features": 4, "classes": 10, "relevance": {"kind": 0.2}},
    {"teacher": "three", "entry": "/x/3", "tasks": [], "features": 4, "relevance": {"kind": -0.2}},
)


def test_teachers_are_weighed_by_relevance_or_as_asked() -> None:
    relevance = teacher_weights(DistillSettings(), TEACHERS)
    assert relevance[0] == pytest.approx(2**9 / (2**9 + 1))
    assert relevance[2] == 0.0
    assert teacher_weights(DistillSettings(weighting="equal"), TEACHERS) == [1 / 3] * 3
    assert teacher_weights(DistillSettings(weighting="3,1,0"), TEACHERS) == [0.75, 0.25, 0.0]


def test_each_way_takes_the_teachers_that_have_what_it_needs() -> None:
    assert [usable_ways(("auto",), teacher) for teacher in TEACHERS] == [("logits",), ("classes", "features"), ("features",)]
    more: dict[str, Any] = {"temperature": 3.0, "strength": 2.0}
    made = objectives_of(("logits", "relations"), TEACHERS, [0.5, 0.5, 0.0], **more, taps=[Tap("backbone.a", "b")])
    logits, relations = (dict(item.settings) for item in made)
    # Each teacher counts by its weight in every way.
    assert logits == {"answers": ["/x/1"], "weight": 2.0, "teacher_weights": [0.5], "temperature": 3.0}
    assert relations["answers"] == ["/x/1", "/x/2"]
    assert (relations["tap"], relations["teacher_tap"], relations["weight"]) == ("backbone.a", "b", 2.0)
    with pytest.raises(
        ConfigError, match="No teacher can teach classes: that needs classes of its own. one gives answers for kind, 8 feat"
    ):
        objectives_of(("classes",), TEACHERS[:1], [1.0], **more)
    with pytest.raises(ConfigError, match="--tap STUDENT=TEACHER"):
        objectives_of(("attention",), TEACHERS, [1.0, 1.0, 1.0], **more)


def test_a_network_that_runs_beside_the_student_is_named_in_the_plan() -> None:
    more: dict[str, Any] = {"temperature": 3.0, "strength": 2.0}
    vit = {"teacher": "vit-mini", "entry": "/x/4", "tasks": [], "features": 192, "network": "vit-mini", "blocks": 10}
    lite = {"teacher": "lite", "entry": "/x/5", "tasks": [], "features": 8, "network": "efficientnet_lite0@64", "blocks": 0}
    made = objectives_of(("scalekd", "guidance"), [vit, lite, TEACHERS[0]], [0.5, 0.25, 0.25], **more)
    assert [(item.path.rpartition(":")[2], dict(item.settings)) for item in made] == [
        ("ScaleKD", {"teacher": "vit-mini", "weight": 1.0}),
        ("Guidance", {"guide": "vit-mini", "weight": 1.0}),
        ("Guidance", {"guide": "efficientnet_lite0@64", "weight": 0.5}),
    ]
    with pytest.raises(ConfigError, match="No teacher can teach scalekd: that needs to be a named network of blocks"):
        objectives_of(("scalekd",), [lite], [1.0], **more)


def test_a_picture_network_teaches_through_its_layers(tmp_path: Path) -> None:
    pictures = glyphs(num_train=24, num_val=8, num_test=8, num_classes=2, size=16)
    made = gw.distill(
        pictures, teachers="vit-mini", ways="scalekd,guidance", steps=4, seeds=1, workers=0, progress=False, out=tmp_path / "run",
        overrides={"batch_size": 8},
    )  # fmt: skip
    objectives = made.result["plans"]["distilled"]["plan"]["stages"][0]["objectives"]
    assert [item["path"].rpartition(":")[2] for item in objectives] == ["ScaleKD", "Guidance"]
    assert (objectives[0]["settings"]["teacher"], objectives[1]["settings"]["guide"]) == ("vit-mini", "vit-mini")
    # Projectors are gone: the student has its old structure.
    ledgers = [made.result["plans"][name]["ledger"]["parameters_total"] for name in ("student-alone", "distilled")]
    assert ledgers[0] == ledgers[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ways": ("logit",)}, "got 'logit'. Did you mean 'logits'"),
        ({"ways": ("auto", "logits")}, "auto chooses by itself"),
        ({"temperature": 0.0}, "temperature must be a number above 0; got 0.0"),
        ({"strength": float("nan")}, "strength must be a number above 0"),
        ({"weighting": "much"}, "weighting is relevance, equal, or one number a teacher"),
        ({"weighting": "1,2", "teachers": ("a",)}, r"one number a teacher \(1\); got 2"),
        ({"taps": ("backbone",)}, "a pair of module paths, STUDENT=TEACHER or WAY:STUDENT=TEACHER; got 'backbone'"),
        ({"taps": ("a=b", "a=b")}, "a tap is given twice"),
        ({"taps": ("features:a=b",)}, "tap features:a=b is for the way features, which is not among the ways auto"),
        ({"taps": ("featurs:a=b",), "ways": ("features",)}, "names the way 'featurs'.* Did you mean 'features'"),
        ({"taps": ("logits:a=b",), "ways": ("logits",)}, "ways that compare modules are features, attention, relations"),
        ({"teachers": ("a", "a")}, "a teacher is named twice"),
        ({"overrides": {"augment": "flip"}}, "augment changes pictures while the teachers have answered"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DistillSettings(**settings)


def test_wrong_teachers_and_students_leave_no_folder_behind(
    run: gw.DistillRun, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="needs at least one teacher"):
        distilled(folder, out)
    with pytest.raises(ConfigError, match="There is no file or folder runs/nothing"):
        distilled(folder, out, "runs/nothing")
    with pytest.raises(ConfigError, match="There is no backbone 'minlm'.* Did you mean 'minilm'"):
        distilled(folder, out, "minlm")
    with pytest.raises(ConfigError, match="reads text data, but the suite's inputs are of the kind table"):
        distilled(folder, out, "minilm")
    with pytest.raises(ConfigError, match="The student 'vit-mini' reads image data"):
        distilled(folder, out, str(folder / "features.npy"), student="vit-mini")
    with pytest.raises(ConfigError, match="features.npy is a file, which has no modules to tap"):
        distilled(folder, out, str(folder / "features.npy"), ways="features", tap="backbone=backbone")
    monkeypatch.setattr("graftwork.workflows.distill.session.ask_teachers", lambda *given: pytest.fail("a teacher computes"))
    with pytest.raises(ConfigError, match="the student: SharedTrunk has no module 'backbone.nope'.* Its modules: .*backbone"):
        distilled(folder, out, str(run.folder), ways="features", tap="backbone.nope=backbone")
    with pytest.raises(
        ConfigError, match=r"(?s)--tap backbone=backbon: no teacher has the module.*no module 'backbon'.*'backbone'"
    ):
        distilled(folder, out, str(run.folder), ways="features", tap=["backbone=backbone", "backbone=backbon"])
    with pytest.raises(ConfigError, match="the module 'backbone' of .* gives one vector a row, and attention compares places"):
        distilled(folder, out, str(run.folder), ways="attention", tap="attention:backbone=backbone")
    with pytest.raises(ConfigError, match="distill takes no 'colour'"):
        distilled(folder, out, str(folder / "features.npy"), colour="red")
    assert not out.exists()


def test_students_are_trunks_by_name_or_path() -> None:
    plan, backbone = student_plan(DistillSettings(student="osnet_x0_25"), ("image",))
    assert plan.train.backbone is not None
    assert (plan.source, backbone) == ("scratch", "")
    plan, backbone = student_plan(DistillSettings(student="conv-mini"), ("image",))
    assert (plan.source, backbone, plan.train.backbone) == ("pretrained", "conv-mini", None)
    plan, _ = student_plan(DistillSettings(student="graftwork.nn.backbones.osnet:OSNet"), ("image",))
    assert plan.train.backbone is not None
    assert plan.train.backbone.path == "graftwork.nn.backbones.osnet:OSNet"


def change(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "level": 0.95}


def test_sentences_assert_what_the_interval_allows() -> None:
    budget: dict[str, Any] = {"tasks": 2, "seeds": 3, "steps": 100, "unlabelled": 0}
    assert gain_sentence(change(4, 1, 7), **budget).startswith("Teaching helps: +4.0 % (95 % interval 1.0 to 7.0)")
    assert gain_sentence(change(-4, -7, -1), **budget).startswith("Teaching hurts: -4.0 %")
    assert gain_sentence(change(4, -1, 9), **budget).startswith("No difference is shown")
    assert gain_sentence(change(4, 1, 7), **{**budget, "seeds": 1}).startswith("With one seed nothing can be asserted")
    assert gain_sentence(None, **budget).startswith("The student alone and the taught one could not be compared")
    kept = {"measure": "agreement", "alone": change(0.8, 0.7, 0.9), "taught": change(0.9, 0.8, 1.0)}
    for low, high, words in ((0.05, 0.15, "It kept something"), (-0.1, 0.3, "is not shown"), (-0.3, -0.1, "It is further")):
        (said,) = kept_sentences([{"name": "big", "kept": {"kind": {**kept, "difference": change((low + high) / 2, low, high)}}}])
        assert words in said
        assert "90.0 % of the test rows" in said
    assert kept_sentences([{"name": "big", "kept": {}}]) == []
    assert flip_sentences({"kind": {"positive": 0.051, "negative": 0.03}}) == [
        "From the student alone to the taught one 5.1 % of the test rows turn right and 3.0 % turn wrong."
    ]
    big = {"name": "big", "costs": {"parameters_total": 1000, "latency_ms_batch1": 4.0}}
    said = size_sentence("small", {"parameters_total": 100, "latency_ms_batch1": 2.0}, [big])
    assert "a tenth of the parameters and half the latency of `big`" in said


def test_a_teacher_that_has_seen_the_test_rows_is_named(run: gw.DistillRun, tmp_path: Path) -> None:
    suite = load_suite(run.folder / "suite")
    context: Any = SimpleNamespace(suite=suite, settings=DistillSettings())
    # The same data, division and training rows: clean.
    assert leak_words(context, str(run.folder)) == ""
    model = tmp_path / "model"
    model.mkdir()

    def written(inputs: dict[str, str], seed: int, rows: str) -> str:
        (model / "lineage.json").write_text(json.dumps({"inputs": inputs}))
        (tmp_path / "result.json").write_text(json.dumps({"settings": {"seed": seed}, "model": {"rows": rows}}))
        # The folder of the model means the same run.
        assert leak_words(context, str(tmp_path)) == leak_words(context, str(model)).replace(str(model), str(tmp_path))
        return leak_words(context, str(tmp_path))

    own = {"suite": suite.fingerprint()}
    assert "learned from all rows of this data, test rows included" in written(own, 0, "all")
    assert "other training rows of this data" in written(own, 7, "training")
    assert written(own, 0, "training") == ""
    assert written({"suite": "other"}, 7, "all") == ""
    assert leak_words(context, "minilm") == ""


def test_answers_without_arrays_have_no_relevance(run: gw.DistillRun) -> None:
    assert relevance_of(TeacherAnswers(name="nobody"), load_suite(run.folder / "suite"), 0) == {}


def test_a_teacher_that_the_time_limit_cuts_says_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the time limit came before it had answered for all rows; give more time"):
        distilled(folder, tmp_path / "late", str(folder / "features.npy"), steps=None, time_limit="0.001s")


def test_a_teacher_of_answers_alone_weighs_as_much_as_the_others_on_average() -> None:
    settings: Any = SimpleNamespace(weighting="relevance")
    features, other, answers = {"relevance": {"a": 0.2, "b": 0.4}}, {"relevance": {"a": 0.3, "b": 0.3}}, {"relevance": {}}
    assert teacher_weights(settings, [features, answers]) == pytest.approx([0.5, 0.5])
    assert teacher_weights(settings, [features, other, answers]) == pytest.approx([1 / 3] * 3)
    assert teacher_weights(settings, [answers, {}]) == pytest.approx([0.5, 0.5])
