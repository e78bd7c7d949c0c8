from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.data.suites.short_text_mix import short_text_mix
from graftwork.data.suites.short_texts import short_texts

pytest.importorskip("timm")


def test_each_text_has_the_label_of_its_task_alone_and_its_name_before_it() -> None:
    suite = short_text_mix(["characters", "nouns"], seed=1, prefix=True)
    one = short_texts("characters", seed=1)
    labelled = np.stack([suite.targets[task] >= 0 for task in suite.task_names])
    assert (labelled.sum(axis=0) == 1).all()
    assert list(suite.raw["text"][: len(one)]) == [f"characters: {text}" for text in one.raw["text"]]
    np.testing.assert_array_equal(suite.targets["characters"][: len(one)], one.targets["kind"])
    assert suite.tasks[1].classes == short_texts("nouns").tasks[0].classes
    assert len(suite.splits["test"]) == len(one.splits["test"]) + len(short_texts("nouns", seed=1).splits["test"])


def test_rows_of_each_task_are_limited_and_stay_in_their_splits() -> None:
    limits: list[dict[str, Any]] = [{}, {"num_train": 5, "num_test": 3}]
    whole, few = (short_text_mix(["characters", "nouns"], seed=2, **limit) for limit in limits)
    assert {name: len(rows) for name, rows in few.splits.items()} == {"train": 10, "val": 6, "test": 6}
    assert len(few) == 22, "rows in no split are left out"
    for name, rows in few.splits.items():
        assert set(few.raw["text"][rows]) <= set(whole.raw["text"][whole.splits[name]])
    for task in ("characters", "nouns"):
        labels = dict(zip(whole.raw["text"], whole.targets[task], strict=True))
        assert [labels[text] for text in few.raw["text"]] == list(few.targets[task])


def test_tasks_that_are_missing_or_twice_are_refused() -> None:
    for tasks, message in (
        ([], "got none"),
        (["nouns", "nouns"], "each once; got nouns, nouns"),
        (["verbs"], "no text task 'verbs'"),
    ):
        with pytest.raises(ConfigError, match=message):
            short_text_mix(tasks)
