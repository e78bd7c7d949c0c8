"""What gives targets away is named in a few lines, and nothing is said of tables without such columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork import open_suite
from graftwork.data.reading.checks import check_features, label_notes
from graftwork.data.reading.infer import InferredTask, infer_tasks, parse_targets
from graftwork.data.reading.leak_notes import CopyFinder, leak_notes
from graftwork.data.reading.leaks import LEAK_SCORE, FeatureKeys, single_feature_score
from graftwork.data.reading.notes import fold, fold_by_example
from graftwork.data.reading.odd_cells import mixed_cell_notes, odd_cell_notes, stand_in
from graftwork.data.reading.relations import relation_findings
from graftwork.data.reading.screening import screened
from graftwork.data.reading.table import as_table
from graftwork.interfaces.task_kind import LabelColumn

N = 300


def tasks_of(frame: pd.DataFrame, targets: str) -> list[InferredTask]:
    return infer_tasks(frame, parse_targets(targets, list(frame.columns)))


def relations(frame: pd.DataFrame, targets: str) -> list[str]:
    tasks = tasks_of(frame, targets)
    used = {column for task in tasks for column in task.spec.columns}
    return [one for one, _ in relation_findings(as_table(frame), [name for name in frame.columns if name not in used], tasks)]


def shop(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"net": rng.uniform(5, 90, N).round(2), "tax": rng.uniform(1, 20, N).round(2)})
    frame["start"] = rng.uniform(1e4, 2e4, N).round(1)
    frame["end"] = (frame["start"] + rng.uniform(1, 60, N)).round(1)
    frame["pieces"] = rng.integers(1, 30, N)
    frame["noise"] = rng.normal(size=N)
    return frame


@pytest.mark.parametrize(
    ("words", "make"),
    [
        ("'net' + 'tax'", lambda frame: frame["net"] + frame["tax"]),
        ("'net' - 'tax'", lambda frame: frame["net"] - frame["tax"]),
        ("'end' - 'start'", lambda frame: (frame["end"] - frame["start"]).round(1)),
        ("'net' + 'pieces' + 'tax'", lambda frame: frame["net"] + frame["tax"] + frame["pieces"] + 7),
        ("'net' / 'pieces'", lambda frame: frame["net"] / frame["pieces"]),
        ("'net' / 'pieces'", lambda frame: (frame["net"] / frame["pieces"]).round(2)),
        ("100 * 'tax' / 'net'", lambda frame: 100 * frame["tax"] / frame["net"]),
        ("'net' * 'pieces'", lambda frame: frame["net"] * frame["pieces"]),
        ("'net' / 'tax'^2", lambda frame: frame["net"] / frame["tax"] ** 2),
        ("'net' with rounded numbers", lambda frame: frame["net"].round(0)),
    ],
)
def test_targets_that_follow_from_columns(words: str, make: object) -> None:
    frame = shop()
    frame["y"] = make(frame)  # type: ignore[operator]
    (found,) = relations(frame, "y")
    # The order of the terms of a sum does not matter.
    assert sorted(found.removeprefix("'y' (").removesuffix(")").split()) == sorted(words.split()), found


def test_a_rounded_copy_among_the_columns() -> None:
    frame = shop()
    frame["shown"] = frame["net"].round(0)
    assert relations(frame[["shown", "net", "noise"]], "net") == ["'net' ('shown' with rounded numbers)"]
    frame["cut"] = np.floor(frame["net"])
    assert relations(frame[["cut", "net", "noise"]], "net") == ["'net' ('cut' with rounded numbers)"]


@pytest.mark.parametrize(
    ("unit", "make"),
    [
        ("days", lambda hours: np.floor(hours / 24) + 1),
        ("days", lambda hours: (hours / 24).round(2)),
        ("hours", lambda hours: hours),
        ("weeks", lambda hours: -(hours / 168).round(3)),
        ("years", lambda hours: np.floor(hours / 24 / 365.2425)),
    ],
)
def test_a_target_that_is_the_time_between_two_dates(unit: str, make: Callable[[Any], Any]) -> None:
    rng = np.random.default_rng(0)
    hours = rng.integers(1, 40 * 8766 if unit == "years" else 600, N)
    begin = pd.Timestamp("1999-03-01") + pd.to_timedelta(24 * rng.integers(0, 300, N), unit="h")
    frame = pd.DataFrame({"begin": begin, "end": begin + pd.to_timedelta(hours, unit="h"), "noise": rng.normal(size=N)})
    frame["y"] = make(hours)
    order = "'end' to 'begin'" if frame["y"].iloc[0] < 0 else "'begin' to 'end'"
    assert relations(frame, "y") == [f"'y' (the {unit} from {order})"]
    written = frame.assign(begin=frame["begin"].dt.strftime("%d.%m.%Y"), end=frame["end"].dt.strftime("%Y-%m-%d %H:%M"))
    assert relations(written, "y") == [f"'y' (the {unit} from {order})"]
    frame["y"] = rng.permutation(frame["y"])
    assert relations(frame, "y") == []


def test_columns_that_follow_from_targets() -> None:
    frame = shop()
    frame["gross"] = (frame["net"] + frame["tax"]).round(2)
    frame["rate"] = (frame["tax"] / frame["net"]).round(4)
    found = relations(frame[["net", "tax", "gross", "rate", "noise"]], "net,tax")
    assert any(one.startswith("column 'gross'") for one in found), found
    assert any(one.startswith("column 'rate' ('tax' / 'net'") for one in found), found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.sampled_from([45, 120, 400]), st.booleans())
def test_null_and_noisy_worlds_have_no_relations(seed: int, columns: int, rows: int, positive: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns + 2))
    if positive:
        values = np.exp(values).round(2) + 0.01
    frame = pd.DataFrame(values, columns=[*(f"x{index}" for index in range(columns)), "y", "z"])
    frame["w"] = frame["x0"] + frame["x1"] + rng.normal(size=rows)
    frame["flag"] = rng.integers(0, 2, rows)
    assert relations(frame, "y,z,w") == []


def test_packaged_tables_have_few_findings() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    for load in (datasets.load_iris, datasets.load_wine, datasets.load_breast_cancer, datasets.load_diabetes):
        table = load(as_frame=True).frame
        tasks = tasks_of(table, "target")
        assert leak_notes(as_table(table), [name for name in table.columns if name != "target"], tasks) == [], load.__name__


def test_a_wide_table_is_filtered_and_its_leaks_are_found() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(N, 700))
    frame = pd.DataFrame(values, columns=[f"x{index}" for index in range(700)])
    frame["price"] = np.exp(values[:, 650] / 2)
    frame["sold"] = values[:, 651] > 0.3
    frame["gaps"] = frame["price"].where(rng.random(N) > 0.2)
    tasks = tasks_of(frame, "price,sold")
    notes = leak_notes(as_table(frame), [name for name in frame.columns if name not in ("price", "sold")], tasks)
    assert len(notes) == 3, notes
    for name, target in (("x650", "price"), ("x651", "sold"), ("gaps", "price")):
        assert any(f"{name!r} alone predicts target {target!r}" in note for note in notes)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["number", "levels", "classes", "flag"]), st.integers(120, 900))
def test_what_determines_a_target_passes_the_filter(seed: int, form: str, rows: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    made = {
        "number": (np.sinh(3 * x), "regression"),
        "levels": (np.digitize(x, [-1, 0, 1]) * 7.0, "regression"),
        "classes": (np.digitize(x, [-1, 0, 1]), "multiclass"),
        "flag": ((x > 0.5).astype(int), "binary"),
    }
    values, kind = made[form]
    frame = pd.DataFrame({"x": x, "y": values})
    (task,) = infer_tasks(frame, parse_targets("y", ["x", "y"]), {"y": kind})
    label = LabelColumn("number", values) if kind == "regression" else LabelColumn("classes", values.astype(np.int64))
    score = single_feature_score(FeatureKeys.of(frame["x"]), task.spec, task.target)
    could = screened([lambda: x, lambda: rng.normal(size=rows)], [label], block=1)
    assert score is None or score <= LEAK_SCORE or could[0, 0]
    assert not could[1, 0]


def test_many_findings_are_one_line() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=N)
    frame = pd.DataFrame(
        {f"copy_{index}": base * (index + 2) for index in range(30)} | {f"same_{index}": base for index in range(9)}
    )
    frame["noise"] = rng.normal(size=N)
    for index in range(20):
        frame[f"y{index}"] = base + (0 if index < 10 else rng.normal(size=N))
    names = [name for name in frame.columns if name[0] != "y"]
    tasks = tasks_of(frame, ",".join(f"y{index}" for index in range(20)))
    report = check_features(frame, names, tasks)
    assert len(report.notes) <= 4, report.notes
    assert any(note.startswith("9 columns are identical to targets") and note.endswith("and 6 more.") for note in report.notes)
    assert any(note.startswith("Possible leaks: 300 times a column alone predicts") for note in report.notes)
    assert len(label_notes(tasks_of(frame.iloc[:60].where(rng.random((60, 60)) > 0.1), "y0,y1,y2,y3,y4"), 60)) <= 3


def test_values_that_stand_for_missing_cells() -> None:
    rng = np.random.default_rng(0)
    plain = rng.uniform(0, 5000, 400).round(1)
    assert stand_in(plain) is None
    assert stand_in(np.where(rng.random(400) < 0.1, -999.0, plain)) is not None
    assert stand_in(np.where(rng.random(400) < 0.1, 9999.0, plain)) is not None
    assert stand_in(np.where(np.arange(400) == 3, 99999.0, plain)) is None, "once is an outlier"
    assert stand_in(np.array([1.0, 2.0, 3.0, 99.0, 99.0])) == (99.0, 2)
    assert stand_in(rng.integers(0, 100, 400).astype(float)) is None, "99 is an age like 98"
    assert stand_in(np.array([-1.0, 0.0, 1.0] * 50)) is None
    assert stand_in(np.array([-1.0, *range(60), -1.0])) == (-1.0, 2)


def test_odd_cells_are_one_line_each() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "a": np.where(rng.random(N) < 0.1, -999, rng.integers(0, 90, N)),
            "b": np.where(rng.random(N) < 0.1, -999, rng.integers(0, 90, N)),
            "job": np.where(rng.random(N) < 0.1, "?", rng.choice(["cook", "smith"], N)),
            "c": pd.Series(rng.normal(size=N)).where(rng.random(N) > 0.25),
            "d": rng.normal(size=N),
        }
    )
    notes = odd_cell_notes(as_table(frame), list(frame.columns))
    assert len(notes) == 3
    assert notes[0].startswith("2 columns hold one far value many times: 'a' (-999 in ")
    assert notes[0].endswith("say --missing -999.")
    assert notes[1].startswith("A column holds a word that may stand for a missing cell, as a level of its own: 'job' ('?' in ")
    assert notes[2].startswith("Missing cells: 6% of all, in 1 of 5 columns ('c' 2")
    assert odd_cell_notes(as_table(frame[["d"]]), ["d"]) == []


def test_a_column_of_words_most_cells_of_which_are_numbers_is_said() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=N)
    frame = pd.DataFrame(
        {
            "dose": np.where(np.arange(N) % 9 == 0, "refused", [f"{value:.3f}" for value in values]),
            "lab value": np.where(np.arange(N) % 9 == 0, "<0.5", [f"{value:.3f}" for value in values]),
            "job": np.array(["cook", "smith", "7"])[np.arange(N) % 3],
            "y": values,
        }
    )
    few = int((np.arange(N) % 9 == 0).sum())
    dose, lab = mixed_cell_notes(as_table(frame), list(frame.columns))
    assert f"'dose' is read as words, although {N - few} of its {N} cells are numbers: {few} are not ('refused')." in dose
    assert dose.endswith("say --missing 'refused'; --categories dose says that it is right as it is.")
    assert "('<0.5'). Write those cells as numbers" in lab
    assert "--categories 'lab value'" in lab
    assert mixed_cell_notes(as_table(frame, categories=["dose", "lab value"]), list(frame.columns)) == []
    assert any(dose in note for note in open_suite(frame, targets="y").notes), "also of columns that learn nothing"
    missing = open_suite(frame, targets="y", missing=["refused"], ignore=["lab value"])
    assert not any("is read as words" in note for note in missing.notes)


def test_every_code_and_word_is_named_with_its_flag() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "a": np.where(np.arange(N) % 9 == 0, -999, rng.integers(0, 90, N)),
            "b": np.where(np.arange(N) % 9 == 1, 9999, rng.integers(0, 90, N)),
            "job": np.array(["cook", "smith", "--", "N/A"])[np.arange(N) % 4],
        }
    )
    codes, words = odd_cell_notes(as_table(frame), list(frame.columns))
    assert codes.endswith("If it stands for a missing cell, say --missing -999 --missing 9999.")
    assert f"('--' in {N // 4} rows, 'N/A' in {N // 4} rows)" in words
    assert words.startswith("A column holds words that may stand for a missing cell, as levels of their own: 'job'")
    assert words.endswith("If they do, say --missing='--' --missing 'N/A'.")


def test_folding() -> None:
    assert fold(["A.", "B."], "Remarks") == ["A.", "B."]
    assert fold_by_example([("a", "A.")], "{count}: {examples}") == ["A."]
    assert fold_by_example([(name, name) for name in "abcde"], "{count}: {examples}") == ["5: a, b, c and 2 more"]


def test_many_targets_are_a_few_lines() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        rng.normal(size=(N, 40)), columns=[*(f"y{index}" for index in range(30)), *(f"x{index}" for index in range(10))]
    )
    frame["kind"] = rng.choice(list("abc"), N)
    targets = [*(f"y{index}" for index in range(30)), "kind"]
    suite = open_suite(frame, targets=targets)
    assert suite.notes[0].startswith("30 targets are read as regression: 'y0' (numbers with 300 different values), 'y1'")
    assert suite.notes[0].endswith("and 27 more.")
    assert suite.notes[1].startswith("1 target is read as multiclass: 'kind' (3 different words)")
    assert len(suite.notes) <= 4
    assert len(open_suite(frame, targets="y0,y1").notes) == 2


def test_a_category_is_told_from_a_target_of_many_numbers_without_naming_them(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []

    def counting(text: str, naming: str) -> str:
        named.append(text)
        return str(text)

    monkeypatch.setattr("graftwork.data.reading.column.level_name", counting)
    monkeypatch.setattr("graftwork.data.reading.leak_notes.level_name", counting)
    rows = 2000
    table = as_table(pd.DataFrame({"kind": pd.Categorical(["a", "b"] * (rows // 2)), "price": np.linspace(0.0, 1.0, rows)}), ())
    assert CopyFinder(table, [("price", "price")]).copied(table["kind"]) == ""
    assert len(named) < 100
