"""What kept-back rows say of a plan whose models are averaged: two models answer each row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation.choice.scores import FinalRun
from graftwork.workflows.fit.answers import Answers
from graftwork.workflows.fit.kept_rows import KeptRows, averaged_tasks

LATE = TaskSpec(name="late", kind="binary", size=1)
PRICE = TaskSpec(name="price", kind="regression", size=1)
ROWS = np.arange(0, 120, 2)


def field(*, folds: bool) -> Any:
    generator = np.random.default_rng(0)
    targets = {"late": generator.integers(0, 2, 120), "price": generator.normal(size=(120, 1)).astype(np.float32)}
    suite = Suite(
        name="s",
        input_specs={},
        tasks=(LATE, PRICE),
        inputs={},
        targets=targets,
        splits={"train": np.arange(1, 120, 2), "val": np.array([], np.int64), "test": ROWS},
    )
    test = {"late": np.full(60, 0.2, np.float32), "price": np.zeros((60, 1), np.float32)}
    final = FinalRun(plan_name="p", seed=0, predictions=test, validation={})
    # Validation rows in another order, some of them no test rows.
    val_rows = np.concatenate([ROWS[::-1][:40], [1, 3]])
    val = {"late": np.full(42, 0.6, np.float32), "price": np.ones((42, 1), np.float32)}
    answers = Answers(final=final, val_rows=val_rows, val=val, val_parts=np.zeros(42, np.int64) if folds else None)
    return SimpleNamespace(suite=suite, finals={"p": [final]}, answers={"p": [answers]})


def test_two_models_answer_a_row_where_their_average_is_handed_over() -> None:
    rows = KeptRows(field(folds=True))
    single, averaged = rows.of(LATE, "p"), rows.of(LATE, "p", averaged=True)
    assert single.examples == pytest.approx(0.2)
    assert averaged.examples[:20] == pytest.approx(0.2)
    assert averaged.examples[20:] == pytest.approx(0.4)
    assert (single.averaged, averaged.averaged) == (False, True)
    assert rows.of(LATE, "p") is single, "worked out once"


def test_without_folds_there_is_no_second_answer() -> None:
    found = KeptRows(field(folds=False)).of(LATE, "p", averaged=True)
    assert found.averaged is False
    assert found.examples == pytest.approx(0.2)


def test_numbers_keep_their_errors_and_no_more() -> None:
    found = KeptRows(field(folds=True)).all({"late": "p", "price": "p"}, ["late", "price"])
    assert found["price"].facts() is None
    assert found["price"].errors is not None
    assert len(found["price"].errors[0]) == 60
    assert found["late"].errors is None
    assert found["late"].facts()["averaged"] is True


def test_a_plan_of_which_several_models_are_handed_over_is_an_average() -> None:
    job = lambda name: SimpleNamespace(plan=SimpleNamespace(name=name))  # noqa: E731
    given: Any = SimpleNamespace(
        trained=(job("a"), job("a"), job("b")), weights={"a": {"late": 1.0, "price": 0.0}, "b": {"price": 1.0}}
    )
    assert averaged_tasks(given) == {"late"}


def test_what_is_counted_on_rows_is_not_decided_by_thresholds_that_these_rows_chose() -> None:
    draw = np.random.default_rng(1)
    late = (draw.random(600) < 0.15).astype(np.int64)
    said = (1 / (1 + np.exp(2.0 - late - draw.normal(size=600)))).astype(np.float32)
    spec = TaskSpec(name="late", kind="binary", size=1, metric="f1_macro")
    rows = np.arange(600)
    suite = Suite(name="s", tasks=(spec,), inputs={}, targets={"late": late}, splits={"test": rows})
    runs = [FinalRun(plan_name="p", seed=seed, predictions={"late": said}, validation={}) for seed in (0, 1)]
    answers = [Answers(final=run, val_rows=rows[:0], val={}) for run in runs]
    whole: Any = SimpleNamespace(suite=suite, finals={"p": runs}, answers={"p": answers})
    found = KeptRows(whole).of(spec, "p")
    assert found.chosen is not None
    assert found.chosen.thresholds
    assert found.decisions is not None
    assert found.decisions.shape == (600,), "those of the first training"
    assert (found.decisions != (found.answers > found.chosen.thresholds[0])).any()
    assert KeptRows(field(folds=False)).of(LATE, "p").decisions is None
