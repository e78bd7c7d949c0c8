"""What the recipe of CoDiEmb learns from and measures."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import ndcg_score

from graftwork.recipes.merging.codiemb import KINDS, RECIPE, EmojiBatches, cosent_loss
from graftwork.recipes.merging.emoji_pairs import emoji_texts, graded_pairs, ndcg, retrieval_rows

SUITE = emoji_texts(0, most=80)
EMOJI = SUITE.splits["train"][::3] // 3


def test_a_query_has_its_own_names_and_a_negative_of_its_kind() -> None:
    rows = retrieval_rows(SUITE, EMOJI, np.random.default_rng(0))
    np.testing.assert_array_equal(rows[:, :3], 3 * EMOJI[:, None] + np.arange(3))
    negatives = rows[:, 3]
    assert (negatives % 3 == 1).all()
    assert (negatives // 3 != EMOJI).all()
    kinds, parts = SUITE.targets["category"], SUITE.targets["subcategory"]
    for query, negative in zip(rows[:, 0], negatives, strict=True):
        others = 3 * EMOJI[query // 3 != EMOJI]
        near = [labels for labels in (parts, kinds) if (labels[others] == labels[query]).any()]
        assert not near or near[0][negative] == near[0][query]


def test_grades_follow_the_taxonomy() -> None:
    pairs, grades = graded_pairs(SUITE, EMOJI, np.random.default_rng(0))
    kinds, parts = SUITE.targets["category"], SUITE.targets["subcategory"]
    for (one, two), grade in zip(pairs, grades, strict=True):
        same = (kinds[one] == kinds[two], parts[one] == parts[two], one // 3 == two // 3)
        assert grade == sum(same)
    assert set(grades) == {0.0, 1.0, 2.0, 3.0}
    # The language of the second text must not tell the grade.
    assert set(pairs[grades == 0][:, 1] % 3) == {1, 2}


def test_test_emoji_are_never_learned_from() -> None:
    learned = {number for kind in ("mixed", "one task a batch") for number in _rows(EmojiBatches(SUITE, kind, 0))}
    test = set((SUITE.splits["test"] // 3).tolist())
    assert learned
    assert not learned & test


def _rows(batches: EmojiBatches) -> set[int]:
    found = [batches.batch(step) for step in range(20)]
    return {int(row) // 3 for batch in found for part in (batch.retrieval, batch.pairs) for row in part.reshape(-1)}


def test_batches_of_an_arm_hold_one_task_or_both() -> None:
    for kind in set(KINDS.values()):
        seen = {(len(batch.retrieval) > 0, len(batch.pairs) > 0) for batch in map(EmojiBatches(SUITE, kind, 0).batch, range(8))}
        assert (
            seen
            == {
                "one task a batch": {(True, False), (False, True)},
                "mixed": {(True, True)},
                "retrieval": {(True, False)},
                "similarity": {(False, True)},
            }[kind]
        )
        assert len({len(EmojiBatches(SUITE, kind, 0).batch(step)) for step in range(8)}) == 1, "as many texts in every batch"


def test_the_gain_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    similarity, relevant = random.standard_normal((5, 30)), random.random((5, 30)) < 0.1
    relevant[:, 3] = True
    np.testing.assert_allclose(ndcg(similarity, relevant), ndcg_score(relevant, similarity, k=10), rtol=1e-9)


def test_cosent_counts_pairs_in_the_wrong_order() -> None:
    similar, grades = torch.tensor([0.2, 0.9, 0.4]), torch.tensor([2.0, 0.0, 1.0])
    # 0 above 1, 0 above 2, 2 above 1.
    expected = torch.log(1 + sum(torch.exp(torch.tensor(d) / 0.05) for d in (0.7, 0.2, 0.5)))
    torch.testing.assert_close(cosent_loss(similar, grades), expected, rtol=1e-5, atol=1e-5)


def test_fusion_and_soup_merge_the_same_checkpoints() -> None:
    assert RECIPE.pilot is not None
    assert RECIPE.pilot.follows == {"fusion": "codiemb", "fusion-tensor": "codiemb", "soup": "codiemb"}
