"""Corrections of probabilities: what they may change and what not, and that they are kept only where they help."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graftwork.core.errors import FileFormatError
from graftwork.core.records import TaskSpec
from graftwork.evaluation.correction import Correction
from graftwork.evaluation.correction_fit import fit_correction, kept_correction, labels_of
from graftwork.evaluation.metrics import score_task

CLASSES = TaskSpec(name="kind", kind="multiclass", size=4)
FLAG = TaskSpec(name="late", kind="binary", size=1)
LABELS = TaskSpec(name="tags", kind="multilabel", size=3)
SCALES = st.floats(0.05, 4.0)


def softmax(scores):
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def world(rows: int, seed: int = 0, sureness: float = 1.0):
    """Classes drawn from known probabilities, and these made too sure (or not sure enough)."""
    generator = np.random.default_rng(seed)
    scores = 1.5 * generator.normal(size=(rows, 4))
    truth = (softmax(scores).cumsum(axis=1) < generator.random((rows, 1))).sum(axis=1).clip(max=3)
    return truth.astype(np.int64), softmax(sureness * scores).astype(np.float32)


@given(arrays(np.float32, (6, 4), elements=st.floats(0, 1, width=32)), SCALES)
def test_a_temperature_never_changes_the_most_probable_class(values, scale) -> None:
    given_ = values / np.maximum(values.sum(axis=1, keepdims=True), 1e-3)
    found = Correction(exclusive=True, scale=scale).apply(given_)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)
    # Equal up to rounding, where two classes were all but equal before.
    assert (found[np.arange(6), given_.argmax(axis=1)] >= found.max(axis=1) - 1e-6).all()


@given(arrays(np.float64, 8, elements=st.floats(0, 1)), SCALES)
def test_a_temperature_never_turns_an_answer_over_and_keeps_the_order(values, scale) -> None:
    found = Correction(exclusive=False, scale=scale).apply(values)
    assert ((found > 0.5) <= (values >= 0.5 - 1e-12)).all()
    assert ((found < 0.5) <= (values <= 0.5 + 1e-12)).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(found[order]) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(3, 60), st.floats(0.2, 5.0), st.booleans(), st.sampled_from(["classes", "flag", "labels"])
)
def test_the_loss_on_the_rows_of_the_fit_is_never_higher(seed, rows, sureness, shifted, form) -> None:
    truth, found = world(rows, seed, sureness)
    if form == "flag":
        task, target, prediction = FLAG, (truth == 1).astype(np.int64), found[:, 1]
    elif form == "labels":
        task, target, prediction = LABELS, (truth[:, None] == np.arange(3)).astype(np.float32), found[:, :3]
        target[0, 0] = np.nan
    else:
        task, target, prediction = CLASSES, truth, found
    labels = labels_of(task, target, prediction)
    assert labels is not None
    corrected = fit_correction(labels, prediction, shifted=shifted).apply(prediction)
    before, after = (score_task(task, target, one, ["log_loss"])["log_loss"] for one in (prediction, corrected))
    assert after <= before + 1e-5
    assert labels.losses(prediction).sum() / labels.total == pytest.approx(before, rel=1e-4, abs=1e-6)


def test_what_was_too_sure_becomes_right_and_what_was_right_stays() -> None:
    rows = np.arange(2000)
    truth, sure = world(2000, sureness=2.5)
    found = kept_correction(CLASSES, truth, sure, rows)
    assert found is not None
    assert found.correction is not None
    assert found.correction.scale == pytest.approx(0.4, rel=0.1)
    assert found.correction.shifts == ()
    # Each row was corrected without its own label.
    after = score_task(CLASSES, truth, found.predictions, ["log_loss"])["log_loss"]
    assert found.log_loss == pytest.approx((score_task(CLASSES, truth, sure, ["log_loss"])["log_loss"], after), rel=1e-5)
    assert found.log_loss[1] < found.log_loss[0] - 0.1
    assert found.brier[1] < found.brier[0]
    truth, right = world(2000)
    found = kept_correction(CLASSES, truth, right, rows)
    assert found is not None
    assert found.correction is None
    assert found.why_not == "no correction was clearly better on other rows"
    np.testing.assert_array_equal(found.predictions, right)


def test_probabilities_that_mean_nothing_are_rarely_corrected() -> None:
    kept = 0
    for seed in range(60):
        truth, right = world(80, seed)
        found = kept_correction(CLASSES, truth, right, np.arange(80))
        assert found is not None
        kept += found.correction is not None
    assert kept <= 15


def test_a_shift_is_fitted_where_each_class_has_rows_enough() -> None:
    generator = np.random.default_rng(3)
    scores = generator.normal(size=1500)
    truth = (generator.random(1500) < 1 / (1 + np.exp(-scores))).astype(np.int64)
    shifted = (1 / (1 + np.exp(-scores - 1.5))).astype(np.float32)
    found = kept_correction(FLAG, truth, shifted, np.arange(1500))
    assert found is not None
    assert found.correction is not None
    assert found.correction.shifts == pytest.approx((-1.5,), abs=0.4)
    rare = truth.copy()
    rare[np.flatnonzero(truth)[10:]] = -1
    found = kept_correction(FLAG, rare, shifted, np.arange(1500))
    assert found is not None
    assert found.correction is None or found.correction.shifts == ()


def test_few_rows_or_one_large_group_get_no_correction() -> None:
    truth, sure = world(30, sureness=4.0)
    found = kept_correction(CLASSES, truth, sure, np.arange(30))
    assert found is not None
    assert found.correction is None
    assert found.why_not == "30 labelled rows are too few"
    truth, sure = world(600, sureness=4.0)
    found = kept_correction(CLASSES, truth, sure, np.arange(600) % 12)
    assert found is not None
    assert found.correction is None
    assert found.rows == 12


def test_rows_without_a_label_are_corrected_but_not_counted() -> None:
    truth, sure = world(500, sureness=3.0)
    truth[:100] = -1
    found = kept_correction(CLASSES, truth, sure, np.arange(500))
    assert found is not None
    assert found.correction is not None
    assert found.rows == 400
    np.testing.assert_allclose(found.predictions[:100], found.correction.apply(sure[:100]))


def test_numbers_and_positions_have_no_probabilities() -> None:
    number = TaskSpec(name="size", kind="regression", size=1)
    assert kept_correction(number, np.zeros((9, 1), np.float32), np.zeros((9, 1), np.float32), np.arange(9)) is None
    assert (
        labels_of(
            TaskSpec(name="parts", kind="multiclass", size=2, positions="pixels"),
            np.zeros((2, 3, 3), np.int64),
            np.ones((2, 2, 3, 3)),
        )
        is None
    )


def test_balanced_losses_weigh_all_classes_alike() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    found = np.where(truth == 1, 0.6, 0.4).astype(np.float32)
    labels = labels_of(FLAG, truth, found, np.array([100 / 180, 5.0]))
    assert labels is not None
    assert labels.losses(found)[:90].sum() == pytest.approx(labels.losses(found)[90:].sum())


@given(SCALES, st.lists(st.floats(-5, 5), max_size=4), st.booleans())
def test_a_correction_is_read_back_as_it_was_written(scale, shifts, exclusive) -> None:
    made = Correction(exclusive=exclusive, scale=scale, shifts=tuple(shifts))
    again = Correction.from_json(json.loads(json.dumps(made.to_json())))
    assert again.scale == pytest.approx(made.scale)
    assert (again.shifts, again.exclusive) == (made.shifts, made.exclusive)


@pytest.mark.parametrize(
    "value", [{}, {"exclusive": True, "temperature": 0, "shifts": []}, {"exclusive": True, "temperature": -1, "shifts": []}, 3]
)
def test_a_damaged_correction_is_refused(value) -> None:
    with pytest.raises(FileFormatError, match="no correction of probabilities"):
        Correction.from_json(value)


def test_of_very_many_rows_a_part_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    from graftwork.evaluation import correction, correction_fit

    truth, sure = world(1200, sureness=3.0)
    whole = Correction(exclusive=True, scale=0.3).apply(sure)
    monkeypatch.setattr(correction_fit, "_MOST_SEEN", 1600)
    monkeypatch.setattr(correction_fit, "_LEAST_FITTED", 100)
    monkeypatch.setattr(correction, "_MOST_ENTRIES", 60)
    np.testing.assert_array_equal(Correction(exclusive=True, scale=0.3).apply(sure), whole)
    found = kept_correction(CLASSES, truth, sure, np.arange(1200))
    assert found is not None
    assert found.correction is not None
    assert found.rows == 400
    np.testing.assert_array_equal(found.predictions[1::3], found.correction.apply(sure)[1::3])
    assert not np.array_equal(found.predictions[::3], found.correction.apply(sure)[::3])
