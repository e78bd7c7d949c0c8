from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork import open_suite
from graftwork.data.reading.checks import check_features, duplicate_note, label_notes
from graftwork.data.reading.grouping import group_notes
from graftwork.data.reading.infer import InferredTask, infer_tasks, parse_targets
from graftwork.data.reading.leaks import LEAK_SCORE, FeatureKeys, single_feature_score

RNG = np.random.default_rng(0)
N = 400


def tasks_of(frame: pd.DataFrame, targets: str) -> list[InferredTask]:
    return infer_tasks(frame, parse_targets(targets, list(frame.columns)))


@pytest.fixture
def frame() -> pd.DataFrame:
    generator = np.random.default_rng(1)
    value = generator.normal(size=N)
    return pd.DataFrame(
        {
            "row": np.arange(N),
            "uuid": [f"k{index:05d}" for index in range(N)],
            "fixed": 3,
            "empty": [None] * N,
            "comment": [f"a rather long remark about row number {index} of this table" for index in range(N)],
            "noise": generator.normal(size=N),
            "colour": generator.choice(["red", "green"], N),
            "value": value,
            "value_copy": value,
            "value_scaled": np.exp(2.0 * value),
            "kind": np.where(value > 0, "up", "down"),
            "sick": (generator.random(N) > 0.5).astype(int),
        }
    )


def test_useless_and_leaking_columns(frame: pd.DataFrame) -> None:
    names = [name for name in frame.columns if name not in ("value", "sick")]
    report = check_features(frame, names, tasks_of(frame, "value,sick"))
    assert report.features == ("noise", "colour", "value_scaled", "kind")
    assert report.identifiers == ("row", "uuid")
    text = "\n".join(report.notes)
    assert "'value_copy' is identical to target 'value'" in text
    assert "Dropped columns that hold one value or none: fixed, empty." in text
    assert "only name rows (nearly all values differ): row, uuid." in text
    assert "Dropped free-text columns: comment. To learn from a text, name its column with --text." in text
    leaks = [note for note in report.notes if note.startswith("Possible leak")]
    assert len(leaks) == 1, "a sign alone does not give a value away"
    assert "'value_scaled' alone predicts target 'value'" in leaks[0]
    assert "remove it from the table" in leaks[0]


def test_boxes_that_are_ticked_or_not_are_learned_from(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ticked = rng.random(N) < 0.4
    frame = pd.DataFrame(
        {
            "radio": np.where(ticked, "Radio", ""),
            "tv": np.where(ticked, 1.0, np.nan),
            "seldom": np.where(np.arange(N) < 3, "x", ""),
            "noise": rng.normal(size=N),
            "y": ticked + 0.1 * rng.normal(size=N),
        }
    )
    frame.to_csv(tmp_path / "survey.csv", index=False)
    suite = open_suite(tmp_path / "survey.csv", targets="y")
    assert "Dropped columns that hold one value or none: seldom." in suite.notes
    said = "2 columns hold one value or an empty cell, and are learned from as boxes that are ticked or not: radio, tv."
    assert said in suite.notes
    codes = suite.inputs["categorical"][:, 0]
    assert len(np.unique(codes[ticked])) == len(np.unique(codes[~ticked])) == 1
    assert codes[ticked][0] != codes[~ticked][0]
    assert [float(abs(np.corrcoef(ticked, column)[0, 1])) > 0.99 for column in suite.inputs["numeric"].T if column.std()].count(
        True
    ) == 1


def test_a_threshold_leaks_a_class(frame: pd.DataFrame) -> None:
    report = check_features(frame, ["value", "noise", "colour"], tasks_of(frame, "kind"))
    assert [note for note in report.notes if "leak" in note and "'value'" in note]
    assert not [note for note in report.notes if "'noise'" in note]


def test_a_recoded_class_leaks_but_stays() -> None:
    kind = np.random.default_rng(0).choice(["a", "b", "c"], N)
    frame = pd.DataFrame(
        {"kind": kind, "code": pd.Series(kind).map({"a": "x1", "b": "x2", "c": "x3"}), "other": RNG.normal(size=N)}
    )
    report = check_features(frame, ["code", "other"], tasks_of(frame, "kind"))
    assert report.features == ("code", "other")
    assert any("'code' alone predicts target 'kind'" in note for note in report.notes)


def test_leak_score_needs_rows_and_variety() -> None:
    frame = pd.DataFrame({"x": np.arange(30.0), "y": np.arange(30.0) * 2})
    task = tasks_of(frame, "y")[0]
    assert single_feature_score(FeatureKeys.of(frame["x"], "numeric"), task.spec, task.target) is None
    frame = pd.DataFrame({"x": np.arange(200.0), "y": np.arange(200) >= 199})
    task = tasks_of(frame, "y")[0]
    assert single_feature_score(FeatureKeys.of(frame["x"], "numeric"), task.spec, task.target) is None, (
        "one class has nearly all rows"
    )


def test_leak_score_by_hand() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=4000)
    frame = pd.DataFrame({"x": x, "y": x + generator.normal(size=4000), "when": pd.date_range("2020", periods=4000, freq="h")})
    task = tasks_of(frame, "y")[0]
    score = single_feature_score(FeatureKeys.of(frame["x"], "numeric"), task.spec, task.target)
    assert score is not None
    assert 0.4 < score < 0.55, "the rank correlation of x and x + noise is about 0.69, squared 0.47"
    days = (frame["when"] - frame["when"].iloc[0]).dt.days.to_numpy().astype(float)
    task = tasks_of(frame.assign(y=days), "y")[0]
    score = single_feature_score(FeatureKeys.of(frame["when"], "date"), task.spec, task.target)
    assert score is not None
    assert score > LEAK_SCORE


def test_infinite_features_are_said() -> None:
    frame = pd.DataFrame({"x": [*RNG.normal(size=49), np.inf], "y": np.arange(50) % 2})
    assert any(
        "Infinite values count as missing in the feature columns x" in note
        for note in check_features(frame, ["x"], tasks_of(frame, "y")).notes
    )


def test_duplicates() -> None:
    frame = pd.DataFrame({"a": [1, 1, 2, 1], "b": [["x"], ["x"], ["x"], ["y"]]})
    assert duplicate_note(frame)[0].startswith("1 of 4 rows is an exact copy of another")
    assert duplicate_note(frame.iloc[1:]) == []


def test_groups_by_name_and_by_likeness() -> None:
    generator = np.random.default_rng(0)
    who = np.repeat(np.arange(40), 10)
    level = generator.normal(size=(40, 3))[who]
    frame = pd.DataFrame(
        {
            "patientId": [f"p{number}" for number in who],
            "plot": [f"c{number}" for number in who],
            "mixed": generator.permutation([f"m{number}" for number in who]),
            "site": np.where(who < 20, "north", "south"),
            "a": level[:, 0] + 0.1 * generator.normal(size=N),
            "b": level[:, 1] + 0.1 * generator.normal(size=N),
            "c": level[:, 2] + 0.1 * generator.normal(size=N),
        }
    )
    notes = group_notes(frame, list(frame.columns), None)
    text = "\n".join(notes)
    assert len(notes) == 3, text
    assert "'patientId' looks like a group by its name: 40 values, 10 rows each" in text
    assert "--group patientId" in text
    assert "'plot' looks like a group since rows of one value are much alike" in text
    assert "'site'" in text
    assert "With 2 values it cannot be split by group" in text
    assert group_notes(frame, list(frame.columns), "patientId") == []


def test_labels() -> None:
    frame = pd.DataFrame({"a": [0, 1, None, 0, 1, 0], "b": ["x", "y", None, "x", None, "x"]})
    notes = label_notes(tasks_of(frame, "a,b"), 6)
    text = "\n".join(notes)
    assert "Target 'a': 1 of 6 labels are missing" in text
    assert "Few labels: target 'b' has 4" in text
    assert "rare classes with fewer than 5 rows: x (3), y (1)" in text
    assert "1 row has no label of any target; plans that learn from unlabelled rows use them for training, others do not." in text


def test_a_copy_of_a_target_is_found_however_its_numbers_are_written() -> None:
    value = np.random.default_rng(0).uniform(1000, 9000, 60).round(2)
    frame = pd.DataFrame(
        {"y": value, "copy": [f"${number:,.2f}" for number in value], "x": np.random.default_rng(1).normal(size=60)}
    )
    tasks = infer_tasks(frame, parse_targets("y", list(frame.columns)))
    report = check_features(frame, ["copy", "x"], tasks)
    assert report.features == ("x",)
    assert "'copy' is identical to target 'y'" in "".join(report.notes)


@given(
    rows=st.lists(
        st.tuples(st.sampled_from([0.0, -0.0, 1.0, float("nan")]), st.sampled_from(["a", "b", None]), st.booleans()),
        min_size=1,
        max_size=30,
    )
)
def test_copies_are_counted_as_rows_that_equal_an_earlier_one(rows: list[tuple[float, str | None, bool]]) -> None:
    frame = pd.DataFrame(rows, columns=["x", "word", "flag"])
    copies = int(frame.duplicated().sum())
    notes = duplicate_note(frame)
    assert notes == [] if not copies else notes[0].startswith(f"{copies} of {len(frame)} rows ")


def test_classes_that_differ_in_capitals_alone_are_said() -> None:
    frame = pd.DataFrame({"ok": ["Yes", "yes", "no"] * 40, "kind": ["a", "b", "c"] * 40})
    (found,) = [note for note in label_notes(tasks_of(frame, "ok,kind"), len(frame)) if "capitals" in note]
    assert found == ("Target 'ok' has classes that differ in capitals alone: 'Yes' and 'yes'. If one is meant, write them alike.")
