"""Finals on a part of the rows: what is said of it, and attempts with more of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from graftwork.core.records import Plan
from graftwork.workflows.fit.attempts import Attempts
from graftwork.workflows.fit.judged_field import rows_words
from graftwork.workflows.runs.presets import PRESETS


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"a": 600, "b": 600}, "finalists learned from all of them"),
        ({"a": 60, "b": 60}, "finalists learned from 60 of them: more did not fit into the time limit"),
        ({"a": 60, "b": 600}, "`b` learned from all of them, the other finalists from 60: more did not fit into the time limit"),
    ],
)
def test_what_is_said_of_rows(seen: dict[str, int], words: str) -> None:
    assert rows_words(seen, 600) == words


@pytest.mark.parametrize(("seen", "wanted"), [(60, [600, 240, 120]), (200, [600, 400]), (0, [])])
def test_more_rows_are_tried_first(seen: int, wanted: list[int]) -> None:
    plan = Plan(name="trees", title="", role="independent", modalities=("table",)).with_train(training={"max_steps": 50})
    context: Any = SimpleNamespace(
        plans={"trees": plan},
        schedule=SimpleNamespace(horizons={"trees": 50}),
        suite=SimpleNamespace(splits={"train": range(600)}),
        settings=SimpleNamespace(plans=None, overrides={}, preset_values=PRESETS["good"]),
        run=SimpleNamespace(result=lambda _: {}, state={}),
    )
    finals: Any = {"trees": {0: SimpleNamespace(rows=seen, id="final")}}
    found = list(Attempts(context, finals, 0.0)._candidates())
    assert [one.rows["trees"] for one in found if "rows" in one.key] == wanted
    assert {one.rows["trees"] for one in found if "rows" not in one.key} <= {seen}, "settings are compared on equal rows"


def test_a_baseline_is_not_tried_again() -> None:
    plan = Plan(name="constant", title="", role="independent", modalities=("table",), group="baseline")
    context: Any = SimpleNamespace(
        plans={"constant": plan.with_train(training={"max_steps": 1})},
        schedule=SimpleNamespace(horizons={"constant": 1}),
        suite=SimpleNamespace(splits={"train": range(600)}),
        settings=SimpleNamespace(plans=None, overrides={}, preset_values=PRESETS["good"]),
        run=SimpleNamespace(result=lambda _: {}, state={}),
    )
    finals: Any = {"constant": {0: SimpleNamespace(rows=60, id="final")}}
    assert list(Attempts(context, finals, 0.0)._candidates()) == []
