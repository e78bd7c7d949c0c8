from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError, DataError
from graftwork.data.reading.cells import as_text
from graftwork.data.reading.infer import InferredTask, TargetRequest, infer_task, infer_tasks, parse_kind, parse_targets
from graftwork.data.reading.scales import looks_like_scale_name, positive_word, word_order


def infer(values: object, name: str = "y", kind: str = "", **more: object) -> InferredTask:
    column = values if isinstance(values, pd.Series) else pd.Series(values)
    return infer_task(pd.DataFrame({name: column}), TargetRequest(name, (name,), kind, **more))  # type: ignore[arg-type]


KINDS = [
    ("floats", np.linspace(0, 1, 30), "y", "regression", ()),
    ("many whole numbers", list(range(10, 400, 3)), "y", "regression", ()),
    ("numbers in strings", [str(i / 7) for i in range(30)], "y", "regression", ()),
    ("zero and one", [0, 1, 1, 0], "y", "binary", ("0", "1")),
    ("one and two", [2, 1, 1, 2], "y", "binary", ("1", "2")),
    ("booleans", [True, False, True], "y", "binary", ("False", "True")),
    ("booleans with gaps", [True, None, False], "y", "binary", ("False", "True")),
    ("yes and no", ["yes", "no", "yes"], "y", "binary", ("no", "yes")),
    ("positive is first in the alphabet", ["malignant", "other", "other"], "y", "binary", ("other", "malignant")),
    ("two words", ["b", "a", "b"], "y", "binary", ("a", "b")),
    ("digits", list(range(10)) * 5, "digit", "multiclass", tuple("0123456789")),
    ("codes with gaps", [101, 205, 300] * 5, "y", "regression", ()),
    ("words", ["cat", "dog", "bird"] * 3, "y", "multiclass", ("bird", "cat", "dog")),
    ("stars", [1, 2, 3, 4, 5] * 3, "stars", "ordinal", tuple("12345")),
    ("stars with gaps", [1, 2, None, 4, 3, 5] * 3, "userRating", "ordinal", tuple("12345")),
    ("no scale by name", [1, 2, 3, 4, 5] * 3, "doors", "multiclass", tuple("12345")),
    ("low to high", ["High", "low", "medium", "low"], "y", "ordinal", ("low", "medium", "High")),
    (
        "diamond cuts",
        ["Ideal", "Premium", "Good", "Very Good", "Fair"],
        "cut",
        "ordinal",
        ("Fair", "Good", "Very Good", "Premium", "Ideal"),
    ),
    (
        "ordered categorical",
        pd.Series(pd.Categorical(["z", "m", "a"] * 2, ["z", "m", "a", "unused"], ordered=True)),
        "y",
        "ordinal",
        ("z", "m", "a"),
    ),
    ("plain categorical", pd.Series(pd.Categorical(["z", "m", "a"] * 2)), "y", "multiclass", ("a", "m", "z")),
    ("label sets", ["a;b", "b", "c;a", "a", "b;c", "a;b;c"] * 2, "tags", "multilabel", ("a", "b", "c")),
    ("label sets with bars", ["a|b", "b", "c; a", "a", "b;c", "a;b|c"] * 2, "tags", "multilabel", ("a", "b", "c")),
    ("label sets with commas", ["a, b", "b", "c,a", "a", "b,c", "a,b,c"] * 2, "tags", "multilabel", ("a", "b", "c")),
    ("lists", [["a", "b"], [], None, ["b"]], "tags", "multilabel", ("a", "b")),
]


@pytest.mark.parametrize(("values", "name", "kind", "classes"), [row[1:] for row in KINDS], ids=[row[0] for row in KINDS])
def test_kind_and_classes(values: object, name: str, kind: str, classes: tuple[str, ...]) -> None:
    task = infer(values, name)
    assert task.spec.kind == kind, task.reason
    assert task.spec.classes == classes
    assert task.spec.size == (1 if kind in ("binary", "regression") else len(classes))
    assert task.reason


def test_targets_follow_the_layout() -> None:
    task = infer(["a", None, "b", "a"])
    assert task.target.dtype == np.int64
    assert task.target.tolist() == [0, -1, 1, 0]
    sets = infer([["a", "b"], [], None, ["b"]], "tags").target
    assert sets.dtype == np.float32
    np.testing.assert_array_equal(sets, np.array([[1, 1], [0, 0], [np.nan, np.nan], [0, 1]], np.float32))
    numbers = infer([1.5, None, 2.5, 3.0, 1.0, 9.0, 8.0, 7.5, 4.25, 11.0, 13.5], "y").target
    assert numbers.shape == (11, 1)
    assert numbers.dtype == np.float32
    assert np.isnan(numbers[1, 0])


def test_several_columns() -> None:
    frame = pd.DataFrame({"r": [0.1, 0.2, None], "g": [1.0, 2.0, 3.0], "x": [0, 1, 1], "z": [1, 0, 0], "w": ["a", "b", "c"]})
    colour = infer_task(frame, TargetRequest("colour", ("r", "g")))
    assert (colour.spec.kind, colour.spec.size, colour.spec.columns) == ("regression", 2, ("r", "g"))
    assert np.isnan(colour.target[2, 0])
    assert colour.target[2, 1] == 3.0
    tags = infer_task(frame, TargetRequest("tags", ("x", "z")))
    assert (tags.spec.kind, tags.spec.classes) == ("multilabel", ("x", "z"))
    assert tags.target.tolist() == [[0, 1], [1, 0], [1, 0]]
    with pytest.raises(DataError, match="'q' of several columns needs numbers.*w: 'a', 'b'"):
        infer_task(frame, TargetRequest("q", ("r", "w")))
    with pytest.raises(DataError, match="columns may hold 0 and 1 only"):
        infer_task(frame, TargetRequest("q", ("r", "g"), "multilabel"))
    with pytest.raises(DataError, match="it can be multilabel, ranking, regression or survival; got 'ordinal'"):
        infer_task(frame, TargetRequest("q", ("r", "g"), "ordinal"))


BAD = [
    ("one class", ["a"] * 5, "", r"only one class or value: 'a' in all 5 labelled rows.*at least two.*Leave it out"),
    ("one number", [2.0] * 5, "", "only one class or value: '2'"),
    ("all missing", [None, float("nan")], "", "all 2 labels are missing.*Fill in"),
    ("infinite", [1.0, float("inf"), 2.0, 3.0], "", "1 infinite values, the first in row 2.*must be finite.*Replace"),
    (
        "mixed",
        [1, 2, 3, "many", "few"],
        "",
        r"mixes numbers \('1', '2', '3'\) and words \('few', 'many'\).*--task-kind y=multiclass",
    ),
    (
        "identifiers",
        [f"user{i}" for i in range(40)],
        "",
        "40 different strings in 40 labelled rows.*identifier or free text.*Choose another",
    ),
    ("dates", pd.date_range("2020", periods=5), "", "holds dates.*Turn it into a number"),
    ("words as regression", ["a", "b", "c"], "regression", "to be a regression but holds words.*multiclass"),
    ("three as binary", ["a", "b", "c"], "binary", "to be binary but has 3 different values.*multiclass"),
    ("unknown order", ["p", "q", "r"], "ordinal", "order of its words is not known.*ordinal: p < q < r"),
    ("one label everywhere", [["a"], ["a"]], "", "only one class, the label 'a'"),
    ("no label", [[], []], "", "all labels are missing"),
    ("beyond float32", [1.0, 2.0, 1e39] + [0.1 * i for i in range(9)], "", "beyond 3.4e38.*logarithm"),
]


@pytest.mark.parametrize(("values", "kind", "pattern"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_unusable_targets(values: object, kind: str, pattern: str) -> None:
    with pytest.raises(DataError, match=rf"(?s)Target 'y'.*{pattern}"):
        infer(values, kind=kind)


def test_overrides() -> None:
    stars = [1, 2, 3, 4, 5] * 2
    assert infer(stars, "stars", "regression").spec.kind == "regression"
    assert infer(stars, "stars", "multiclass").spec.kind == "multiclass"
    assert infer([10, 30, 20], kind="ordinal").spec.classes == ("10", "20", "30")
    assert infer([1, "two", 3], kind="multiclass").spec.classes == ("1", "3", "two")
    given_order = infer(["p", "r", "q"], kind="ordinal", classes=("r", "q", "p"))
    assert given_order.target.tolist() == [2, 0, 1]
    with pytest.raises(DataError, match="holds 'z', not among the classes given: a, b"):
        infer(["a", "z"], kind="multiclass", classes=("a", "b"))
    assert infer(["p;q", "p"], kind="multilabel", classes=("q", "p")).target.tolist() == [[1, 1], [0, 1]]


def test_classes_may_include_one_that_does_not_occur() -> None:
    assert infer(["a", "b"], kind="multiclass", classes=("a", "b", "c")).spec.size == 3


def test_all_faulty_targets_are_listed_at_once() -> None:
    frame = pd.DataFrame({"a": [1, 1, 1], "b": [None] * 3, "c": [0, 1, 0]})
    with pytest.raises(DataError, match=r"(?s)2 targets cannot be used.*'a' has only one.*'b': all 3 labels"):
        infer_tasks(frame, parse_targets("a,b,c", list(frame.columns)))


def test_override_of_something_else() -> None:
    frame = pd.DataFrame({"stars": [1, 2, 3]})
    with pytest.raises(ConfigError, match="--task-kind names 'star', which is no target. Did you mean 'stars'"):
        infer_tasks(frame, parse_targets("stars", ["stars"]), {"star": "regression"})
    with pytest.raises(ConfigError, match="'regresion', which does not exist. Did you mean 'regression'.*Allowed are binary"):
        infer_tasks(frame, parse_targets("stars", ["stars"]), {"stars": "regresion"})


def test_parse_targets() -> None:
    columns = ["a", "b", "c", "d=e", "x,y"]
    assert [(r.name, r.columns) for r in parse_targets("a, col=b+c", columns)] == [("a", ("a",)), ("col", ("b", "c"))]
    assert parse_targets(["d=e"], columns)[0].columns == ("d=e",)
    assert parse_targets("x,y", columns)[0].columns == ("x,y",)
    assert parse_targets({"v": ["a", "b"], "w": "c"}, columns)[0].columns == ("a", "b")
    with pytest.raises(DataError, match="'aa' is not a column.*The columns are: a, b, c"):
        parse_targets("aa", columns)
    with pytest.raises(DataError, match="column 'a' more than once"):
        parse_targets("a,v=a+b", columns)
    with pytest.raises(DataError, match="No target is named"):
        parse_targets(" , ", columns)


def test_parse_kind() -> None:
    assert parse_kind("x", "ordinal: a < b<c") == ("ordinal", ("a", "b", "c"))
    assert parse_kind("x", "binary") == ("binary", ())


def test_scales() -> None:
    assert word_order(["S", "XL", "M"]) == ["S", "M", "XL"]
    assert word_order(["low", "high"]) is None
    assert word_order(["low", "high", "cat"]) is None
    assert looks_like_scale_name("review_score")
    assert not looks_like_scale_name("start")
    assert positive_word(["a", "b"]) is None
    assert positive_word(["Yes", "No"]) == "Yes"


def test_cells_as_text() -> None:
    assert [as_text(item) for item in (3.0, 3, "3", np.int64(3), 2.5, " a ", "", None, float("nan"), pd.NA, pd.NaT, True)] == [
        "3", "3", "3", "3", "2.5", "a", None, None, None, None, None, "True",
    ]  # fmt: skip


@given(st.lists(st.sampled_from(["red", "green", "blue", None]), min_size=4, max_size=60))
def test_classes_decode_to_the_cells_they_came_from(cells: list[str | None]) -> None:
    if len({cell for cell in cells if cell}) < 2:
        return
    task = infer(pd.Series(cells, dtype=object))
    decoded = [None if code < 0 else task.spec.classes[code] for code in task.target]
    assert decoded == cells


GAPS = [
    ("amounts", [0, 5000, 23000, 41000] * 10, "y"),
    ("few counts with a gap", [0, 1, 2, 4, 7] * 10, "y"),
    ("codes that begin at two", [2, 3, 4, 5] * 10, "y"),
    ("counts by name", [0, 1, 2, 3] * 10, "visit_count"),
    ("an age in a row", [1, 2, 3, 4, 5] * 10, "ageInYears"),
]


@pytest.mark.parametrize(("values", "name"), [row[1:] for row in GAPS], ids=[row[0] for row in GAPS])
def test_whole_numbers_that_are_no_codes_in_a_row_are_numbers(values: list[int], name: str) -> None:
    task = infer(values, name)
    assert task.spec.kind == "regression", task.reason
    assert f"whole numbers from {min(values)} to {max(values)}" in task.reason


def test_halves_are_not_called_whole_numbers() -> None:
    assert infer([0.0, 0.5, 1.0, 1.5, 2.0] * 10, "y").reason == "5 different numbers from 0 to 2 that are no codes in a row"


def kinds_of(columns: Mapping[str, list[int] | list[float]], **overrides: str) -> dict[str, str]:
    frame = pd.DataFrame(columns)
    return {
        task.spec.name: task.spec.kind for task in infer_tasks(frame, parse_targets(list(frame.columns), list(frame)), overrides)
    }


def test_siblings_are_inferred_together() -> None:
    months = {
        "month_1": [500 * step for step in range(40)],
        "month_2": [0, 19000, 1000, 2000] * 10,
        "month_3": [0, 3000] * 20,
    }
    assert set(kinds_of(months).values()) == {"regression"}
    assert kinds_of({"month_3": months["month_3"]}) == {"month_3": "binary"}, "alone it has two values"
    assert kinds_of({"day_1": list(range(40)), "day_2": [0, 1, 2, 3] * 10})["day_2"] == "regression"
    questions = {"q1": [1, 2, 3, 4, 5] * 8, "q2": [2, 3, 5, 5] * 10, "q3": [1, 2] * 20}
    assert kinds_of(questions) == {"q1": "multiclass", "q2": "multiclass", "q3": "binary"}
    assert kinds_of({"q2": questions["q2"]}) == {"q2": "regression"}
    assert kinds_of(questions, q1="regression")["q2"] == "regression", "a sibling with a kind of its own decides nothing"


def test_amounts_are_siblings_whatever_their_names() -> None:
    sales: list[int] = [500 * step for step in range(60)]
    few = [0, 23000] * 30
    assert kinds_of({"north": sales, "south": few}) == {"north": "regression", "south": "regression"}
    assert kinds_of({"south": few}) == {"south": "binary"}
    assert kinds_of({"north": sales, "coded": [17, 99] * 30})["coded"] == "binary", "its values are others"


def test_other_columns_are_no_siblings() -> None:
    counts = [3 * step for step in range(40)]
    assert kinds_of({"y1": [0, 1] * 20, "y2": counts})["y1"] == "binary", "a flag beside counts stays one"
    assert kinds_of({"colour": [0, 1, 2, 3] * 10, "amount_1": counts})["colour"] == "multiclass"
    assert kinds_of({"y1": [0, 1, 2, 0] * 10, "y2": counts})["y1"] == "multiclass", "its values are others"
    assert kinds_of({"y1": [0, 1, 2, 0] * 10, "y2": [0.5 * step for step in range(40)]})["y1"] == "multiclass"


@given(st.integers(2, 20), st.sampled_from([0, 1]), st.randoms(use_true_random=False))
def test_consecutive_codes_are_classes_in_any_order(size: int, first: int, random: object) -> None:
    values = list(range(first, first + size)) * 3
    random.shuffle(values)  # type: ignore[attr-defined]
    assert infer(values).spec.kind == ("binary" if size == 2 else "multiclass")
    if size > 2:
        assert infer([value * 10 for value in values]).spec.kind == "regression"
