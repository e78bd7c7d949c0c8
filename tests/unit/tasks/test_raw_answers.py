from __future__ import annotations

import numpy as np
import pytest
import torch

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.decode import decode_output
from graftwork.tasks.raw_answers import raw_answers

SPECS = (
    TaskSpec(name="level", kind="multiclass", size=4),
    TaskSpec(name="flag", kind="binary", size=1),
    TaskSpec(name="tags", kind="multilabel", size=3),
    TaskSpec(name="stars", kind="ordinal", size=5),
    TaskSpec(name="amount", kind="regression", size=2, center=(3.0, -1.0), scale=(2.0, 0.5)),
)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_the_way_back_is_the_way_there(spec: TaskSpec) -> None:
    raw = torch.randn(7, spec.num_outputs)
    if spec.kind == "ordinal":  # logits of being above each class fall from class to class
        raw = raw.sort(dim=1, descending=True).values
    answers = decode_output(spec, raw).numpy()
    back = decode_output(spec, torch.from_numpy(raw_answers(spec, answers))).numpy()
    np.testing.assert_allclose(back, answers, rtol=1e-4, atol=1e-4)


def test_sure_answers_stay_finite() -> None:
    for spec, answers in ((SPECS[0], np.eye(4)), (SPECS[1], np.array([0.0, 1.0])), (SPECS[3], np.eye(5))):
        raw = raw_answers(spec, answers)
        assert np.isfinite(raw).all()
        assert raw.shape == (len(answers), spec.num_outputs)
        back = decode_output(spec, torch.from_numpy(raw)).numpy()
        np.testing.assert_allclose(back.reshape(answers.shape), answers, atol=2e-3)


def test_other_kinds_and_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match="'who' \\(embedding\\) cannot be taught as they are"):
        raw_answers(TaskSpec(name="who", kind="embedding", size=2), np.zeros((3, 2)))
    with pytest.raises(ConfigError, match=r"must have the shape \[N, 4\]; got \(3, 5\)"):
        raw_answers(SPECS[0], np.zeros((3, 5)))


NAMED = (
    TaskSpec(name="level", kind="multiclass", size=3, classes=("low", "middle", "high")),
    TaskSpec(name="flag", kind="binary", size=1, classes=("no", "yes")),
    TaskSpec(name="tags", kind="multilabel", size=2, classes=("red", "round")),
    TaskSpec(name="stars", kind="ordinal", size=3, classes=("1", "2", "3")),
    TaskSpec(name="amount", kind="regression", size=2, columns=("width", "height")),
    TaskSpec(name="date", kind="regression", size=1, details={"origin": [20_000.0]}),
)


@pytest.mark.parametrize("spec", NAMED, ids=lambda spec: f"{spec.kind} {spec.name}")
def test_a_table_of_predictions_is_read_back(spec: TaskSpec) -> None:
    answers = decode_output(spec, torch.randn(5, spec.num_outputs)).numpy()
    kind = task_kind(spec)
    back = kind.read_answers(spec, kind.table(spec, answers, probabilities=True), hard=0.9)
    assert back is not None
    np.testing.assert_allclose(back, answers, rtol=1e-5, atol=1e-5)
    assert kind.read_answers(spec, {"another": np.zeros(5)}, hard=0.9) is None


def test_names_of_classes_alone_are_surely_or_hardly_believed() -> None:
    level, flag = NAMED[:2]
    found = task_kind(level).read_answers(level, {"level": np.array(["high", "low"])}, hard=0.9)
    np.testing.assert_allclose(found, [[0.05, 0.05, 0.9], [0.9, 0.05, 0.05]])
    sure = {"flag": np.array(["no", "yes"]), "flag_probability": np.array([0.7, 0.6])}
    np.testing.assert_allclose(task_kind(flag).read_answers(flag, sure, hard=0.9), [0.3, 0.6])
    with pytest.raises(ConfigError, match="'level' name 'highest', which is no class; classes: low, middle, high"):
        task_kind(level).read_answers(level, {"level": np.array(["highest"])}, hard=0.9)


AMOUNT = TaskSpec(name="price", kind="regression", size=1)
HEADING = np.array(["0.5", "price", "1.5"], dtype=object)


@pytest.mark.parametrize(
    ("spec", "columns", "words"),
    [
        (AMOUNT, {"price": HEADING}, "Column 'price' holds 'price' in row 2, which is no number"),
        (AMOUNT, {"price": np.array([1.0, {"a": 1}], dtype=object)}, "holds {'a': 1} in row 2"),
        (AMOUNT, {"price": np.array([1.0, [2.0, 3.0]], dtype=object)}, r"holds \[2.0, 3.0\] in row 2"),
        (AMOUNT, {"price": np.array([10**400, 1], dtype=object)}, "holds 1000"),
        (NAMED[0], {f"level[{name}]": HEADING for name in NAMED[0].classes}, r"Column 'level\[low\]' holds 'price' in row 2"),
        (
            NAMED[1],
            {"flag": np.array(["no", "yes", "no"]), "flag_probability": HEADING},
            "Column 'flag_probability' holds 'price' in row 2",
        ),
        (NAMED[2], {f"tags[{name}]": HEADING for name in NAMED[2].classes}, r"Column 'tags\[red\]' holds 'price' in row 2"),
    ],
)
def test_a_cell_that_is_no_number_is_named(spec: TaskSpec, columns: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        task_kind(spec).read_answers(spec, columns, hard=0.9)
    assert len(str(caught.value)) < 400


def test_numbers_written_as_texts_are_numbers_and_missing_cells_are_none() -> None:
    found = task_kind(AMOUNT).read_answers(AMOUNT, {"price": np.array(["0.5", None, True], dtype=object)}, hard=0.9)
    np.testing.assert_array_equal(found, [[0.5], [np.nan], [1.0]])
