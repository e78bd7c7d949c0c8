from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.data.suites import load_embedded
from graftwork.data.suites.short_texts import TEXT_TASKS, short_texts


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_texts_are_unique_and_classes_have_names(task: str) -> None:
    suite = short_texts(task)
    texts = [text.lower() for text in suite.raw["text"]]
    assert len(set(texts)) == len(texts)
    counts = Counter(suite.targets["kind"].tolist())
    assert len(counts) == suite.tasks[0].size == len(suite.tasks[0].classes or ())
    assert max(counts.values()) <= 150
    assert min(counts.values()) >= 40
    rows = np.concatenate(list(suite.splits.values()))
    assert sorted(rows.tolist()) == list(range(len(suite)))


def test_a_seed_draws_the_split_of_the_same_texts() -> None:
    first, second = short_texts("nouns", seed=0), load_embedded("short-texts", task="nouns", seed=1)
    assert first.raw["text"].tolist() == second.raw["text"].tolist()
    assert first.splits["test"].tolist() != second.splits["test"].tolist()
    assert len(first.splits["train"]) == round(0.5 * len(first))


def test_labels_are_right() -> None:
    def kind(task: str, text: str) -> str:
        suite = short_texts(task)
        row = suite.raw["text"].tolist().index(text)
        return str((suite.tasks[0].classes or ())[suite.targets["kind"][row]])

    def known(task: str) -> dict[str, str]:
        return dict(TEXT_TASKS[task]())

    assert known("nouns")["dog, domestic dog, Canis familiaris"] == "animal"
    assert known("nouns")["banana"] == "food"
    assert known("characters")["infinity"] == "mathematical symbol"
    assert known("emoji")["pizza"] if "pizza" in known("emoji") else known("emoji")["slice of pizza"] == "Food & Drink"
    assert known("emoji-german")["pizza"] == "Food & Drink"
    text = short_texts("airports").raw["text"][0]
    assert kind("airports", text) == known("airports")[text]


def test_no_emoji_is_named_in_two_languages() -> None:
    suite = short_texts("languages")
    assert len(suite.tasks[0].classes or ()) == 8
    assert len(suite) == 1200


def test_error() -> None:
    with pytest.raises(ConfigError, match="There is no text task 'news'; the tasks are emoji, "):
        short_texts("news")
