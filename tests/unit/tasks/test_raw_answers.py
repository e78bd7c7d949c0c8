from __future__ import annotations

import numpy as np
import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
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
