from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.growing_head import UNSEEN, GrowingHead, only_classes


def make_head() -> GrowingHead:
    torch.manual_seed(0)
    head = GrowingHead(3, 5)
    head.grow((1, 4))
    head.grow((0,))
    return head


@given(st.integers(0, 20))
def test_rows_stand_in_the_places_of_their_classes(seed: int) -> None:
    head, features = make_head(), torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    logits = head(features)
    torch.testing.assert_close(logits[:, [1, 4]], head.rows[0](features))
    torch.testing.assert_close(logits[:, [0]], head.rows[1](features))
    assert bool((logits[:, [2, 3]] == UNSEEN).all())


def test_groups_can_have_features_of_their_own_and_be_left_out() -> None:
    head, features = make_head(), torch.randn(2, 4, 3)
    logits = head(features)
    torch.testing.assert_close(logits[:, [1, 4]], head.rows[0](features[0]))
    torch.testing.assert_close(logits[:, [0]], head.rows[1](features[1]))
    only = head(features[1:], [1])
    torch.testing.assert_close(only[:, 0], logits[:, 0])
    assert bool((only[:, 1:] == UNSEEN).all())
    assert bool((head(features[0], []) == UNSEEN).all())


def test_older_rows_are_frozen() -> None:
    head = make_head()
    assert [parameter.requires_grad for parameter in head.parameters()] == [False, False, True, True]


@pytest.mark.parametrize("classes", [(), (4,), (5,), (-1,)])
def test_classes_that_are_known_or_not_there_are_refused(classes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="must be from 0 to 4 and new"):
        make_head().grow(classes)


def test_classes_that_are_left_out_move_nothing_under_either_loss() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    kept = only_classes(logits, [1, 2])
    assert bool((kept.softmax(1)[:, [0, 3]] == 0).all())
    for loss in (
        F.cross_entropy(kept, torch.tensor([1, 2, 1])),
        F.binary_cross_entropy_with_logits(kept, torch.tensor([[0.0, 1.0, 0.0, 0.0]] * 3)),
    ):
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert bool(loss.isfinite())
        assert not gradient[:, [0, 3]].any()
        assert bool((gradient[:, [1, 2]] != 0).all())
