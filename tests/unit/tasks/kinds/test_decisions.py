"""A class that a table, an answer or an example shows is the class that the metrics count, also where probabilities are equal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.records import TaskSpec
from graftwork.evaluation.metrics import score_task
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.classes import ClassKind

SPECS = {
    "binary": TaskSpec(name="y", kind="binary", size=1, classes=("a", "b")),
    "multiclass": TaskSpec(name="y", kind="multiclass", size=3, classes=("a", "b", "c")),
    "ordinal": TaskSpec(name="y", kind="ordinal", size=3, classes=("a", "b", "c")),
}
SHARES = st.lists(st.integers(0, 4), min_size=3, max_size=3).filter(any)


@pytest.mark.parametrize("kind", list(SPECS))
@given(shares=SHARES)
def test_one_row_has_one_class_wherever_it_is_shown(kind: str, shares: list[int]) -> None:
    spec, made = SPECS[kind], task_kind(SPECS[kind])
    assert isinstance(made, ClassKind)
    values = np.array([shares[0] / 4]) if kind == "binary" else np.array([shares]) / sum(shares)
    shown = made.table(spec, values)["y"][0]
    index = spec.classes.index(shown)
    assert made.answers(spec, values)[0]["value"] == shown
    assert made.describe(spec, values[0], is_prediction=True).startswith(f"{shown} (")
    assert made.is_right(spec, np.array(index), values[0])
    assert score_task(spec, np.array([index]), values)["accuracy"] == 1.0


def test_an_ordinal_class_is_the_most_probable_one() -> None:
    spec = SPECS["ordinal"]
    values = np.array([[0.4, 0.3, 0.3]])  # its median is b
    assert task_kind(spec).describe(spec, values[0], is_prediction=True) == "a (40 %)"


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75]), min_size=3, max_size=3))
def test_labels_apply_above_one_half(shares: list[float]) -> None:
    spec = TaskSpec(name="y", kind="multilabel", size=3, classes=("a", "b", "c"))
    kind, values = task_kind(spec), np.array([shares])
    shown = kind.answers(spec, values)[0]["value"]
    assert shown == [name for name, share in zip(spec.classes, shares, strict=True) if share > 0.5]
    assert kind.describe(spec, values[0], is_prediction=True) == (", ".join(shown) or "none")
    target = np.array([[float(name in shown) for name in spec.classes]])
    assert kind.is_right(spec, target[0], values[0])
    assert score_task(spec, target, values)["f1_macro"] in (1.0, pytest.approx(np.nan, nan_ok=True))


@pytest.mark.parametrize("unit", [1e-13, 1e-6, 1.0, 1e12])
@pytest.mark.parametrize("kind", ["regression", "ranking"])
def test_the_unit_of_a_number_does_not_matter(kind: str, unit: float) -> None:
    spec = TaskSpec(name="y", kind=kind, size=1)
    target = (np.array([[1.0, 0.0], [2.0, 0.0], [4.0, 1.0]]) * [unit, 1.0]).astype(np.float32)
    target = target if kind == "ranking" else target[:, :1]
    fitted = task_kind(spec).fit_spec(spec, target)
    assert fitted.scale[0] == pytest.approx(np.std([1.0, 2.0, 4.0]) * unit, rel=1e-5)
    target[:, 0] = 0.1 * unit
    assert task_kind(spec).fit_spec(spec, target).scale == (1.0,), "a constant keeps its unit"


@pytest.mark.parametrize("size", [1, 2])
def test_no_rows_are_no_answers(size: int) -> None:
    spec = TaskSpec(name="y", kind="regression", size=size)
    kind = task_kind(spec)
    assert kind.answers(spec, np.zeros((0, size))) == []
    assert {len(column) for column in kind.table(spec, np.zeros((0, size))).values()} == {0}
    assert len(kind.table(spec, np.zeros((0, size)))) == size
